"""Settings & Tools > SFTP connections."""

from collections.abc import Mapping

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from flask_login import current_user
from sqlalchemy.orm import joinedload

from purge import pickup
from purge.extensions import db, now, reading
from purge.intake import sftp
from purge.pickup import DroppedFile, FileState, SftpConnection

blueprint = Blueprint("connections", __name__, url_prefix="/settings/sftp-connections")

RECENT = 50
# Field: what it is called, and the longest, or the least and the most.
TEXTS = {
    "name": ("name", 100),
    "host": ("host", 255),
    "username": ("user", 100),
    "folder": ("folder", 500),
    "email_column": ("column", 200),
}
NUMBERS = {
    "port": ("port", 1, 65_535),
    "every_seconds": ("schedule", 5, 86_400),
    "runs_up_to": ("number of customers", 0, 1_000_000),
    "keep_days": ("number of days", 0, 365),
    "silent_hours": ("number of hours", 1, 10_000),
}
OPTIONAL = {"silent_hours"}
DEFAULTS = {
    "name": "",
    "host": "",
    "username": "",
    "folder": ".",
    "email_column": "Customer Email",
    "port": "22",
    "every_seconds": "60",
    "runs_up_to": "0",
    "keep_days": "0",
    "silent_hours": "",
}


@blueprint.before_request
def _admins_change():
    if request.method == "POST" and not current_user.may_connect:
        abort(403)


@blueprint.get("")
def every():
    found = db.session.scalars(db.select(SftpConnection).order_by(SftpConnection.name, SftpConnection.id)).all()
    return render_template("connections/every.html", shown=[(one, pickup.worries(one)) for one in found])


@blueprint.get("/new")
def new():
    return render_template("connections/edit.html", connection=None, values=DEFAULTS, problems={})


@blueprint.post("")
def add():
    values, problems = _read(request.form)
    connection = SftpConnection(created_by_id=current_user.id, paused_at=now(), host_keys=[])
    _set_key(connection, request.form.get("private_key", "").strip() or pickup.new_private_key(), problems)
    if problems:
        return render_template("connections/edit.html", connection=None, values=request.form, problems=problems), 422
    _fill(connection, values)
    db.session.add(connection)
    db.session.commit()
    return _shown(connection)


@blueprint.get("/<int:connection_id>")
def show(connection_id: int):
    return _page(_fetch(connection_id))


@blueprint.get("/<int:connection_id>/edit")
def edit(connection_id: int):
    connection = _fetch(connection_id)
    values = {name: getattr(connection, name) for name in DEFAULTS}
    values["silent_hours"] = values["silent_hours"] or ""
    return render_template("connections/edit.html", connection=connection, values=values, problems={})


@blueprint.post("/<int:connection_id>/edit")
def change(connection_id: int):
    connection = _fetch(connection_id)
    values, problems = _read(request.form)
    if request.form.get("private_key", "").strip():
        _set_key(connection, request.form["private_key"], problems)
    if problems:
        db.session.rollback()
        shown = {"connection": connection, "values": request.form, "problems": problems}
        return render_template("connections/edit.html", **shown), 422
    if (values["host"], values["port"]) != (connection.host, connection.port):
        connection.host_keys = []  # they were another server's
    _fill(connection, values)
    db.session.commit()
    return _shown(connection)


@blueprint.post("/<int:connection_id>/test")
def test(connection_id: int):
    """Step by step, on the server as it is now; no transaction stands while we wait for it."""
    return _asked(connection_id, lambda connection: {"steps": pickup.test(connection)})


@blueprint.post("/<int:connection_id>/host-keys/fetch")
def fetch_keys(connection_id: int):
    return _asked(connection_id, _fetched)


@blueprint.post("/<int:connection_id>/host-keys")
def pin(connection_id: int):
    """Exactly the keys that were ticked, and none besides."""
    connection = _fetch(connection_id)
    try:
        for key in request.form.getlist("key"):
            sftp.fingerprint(key)
    except sftp.BadKey:
        abort(400)
    connection.host_keys = request.form.getlist("key")
    db.session.commit()
    return _shown(connection)


@blueprint.post("/<int:connection_id>/pause")
def pause(connection_id: int):
    return _moved(connection_id, pickup.pause)


@blueprint.post("/<int:connection_id>/resume")
def resume(connection_id: int):
    return _moved(connection_id, pickup.resume)


def _asked(connection_id: int, ask) -> str:
    connection = _fetch(connection_id)
    db.session.expunge(connection)
    db.session.rollback()
    told = ask(connection)
    with reading():
        return _page(_fetch(connection_id), **told)


def _fetched(connection: SftpConnection) -> dict:
    try:
        return {"fetched": sftp.fetch_host_keys(connection.host, connection.port)}
    except sftp.Trouble as trouble:
        return {"trouble": str(trouble)}


def _page(connection: SftpConnection, steps=None, fetched=None, trouble=None) -> str:
    files = db.select(DroppedFile).where(DroppedFile.connection_id == connection.id)
    recent = files.options(joinedload(DroppedFile.batch)).order_by(DroppedFile.id.desc()).limit(RECENT)
    keys = [(key, sftp.fingerprint(key)) for key in dict.fromkeys([*connection.host_keys, *(fetched or [])])]
    return render_template(
        "connections/show.html",
        connection=connection,
        worries=pickup.worries(connection),
        files=db.session.scalars(recent).all(),
        states=FileState,
        keys=keys,
        steps=steps,
        fetched=fetched,
        trouble=trouble,
    )


def _read(form: Mapping[str, str]) -> tuple[dict, dict[str, str]]:
    """What was typed, and what is wrong with it, by field."""
    values, problems = {}, {}
    for field, (words, longest) in TEXTS.items():
        values[field] = text = form.get(field, "").strip()
        if not text or len(text) > longest or not text.isprintable():
            problems[field] = f"Say the {words}, in at most {longest} characters."
    if values["host"].startswith("-") or " " in values["host"]:
        problems["host"] = "Say the host’s name or address, without anything around it."
    for field, (words, least, most) in NUMBERS.items():
        text = form.get(field, "").strip()
        if not text and field in OPTIONAL:
            values[field] = None
        elif text.isascii() and text.isdigit() and least <= int(text) <= most:
            values[field] = int(text)
        else:
            problems[field] = f"The {words} is a whole number from {least:,} to {most:,}."
    return values, problems


def _set_key(connection: SftpConnection, text: str, problems: dict[str, str]) -> None:
    try:
        pickup.set_private_key(connection, text)
    except sftp.BadKey as bad:
        problems["private_key"] = str(bad)


def _fill(connection: SftpConnection, values: dict) -> None:
    for field, value in values.items():
        setattr(connection, field, value)


def _moved(connection_id: int, act) -> Response:
    connection = _fetch(connection_id)
    act(connection)
    db.session.commit()
    return _shown(connection)


def _shown(connection: SftpConnection) -> Response:
    return redirect(url_for("connections.show", connection_id=connection.id), 303)


def _fetch(connection_id: int) -> SftpConnection:
    return db.session.get(SftpConnection, connection_id) or abort(404)
