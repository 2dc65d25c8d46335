"""Settings & Tools > SFTP connections."""

import ipaddress
import json
import re
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from hashlib import sha256

from flask import Blueprint, Response, abort, current_app, flash, redirect, render_template, request, url_for
from flask_login import current_user
from sqlalchemy.orm import joinedload

from purge import pickup
from purge.batches import NotPossible
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.extensions import db, now, reading
from purge.intake import sftp
from purge.pickup import DroppedFile, FileState, SftpConnection
from purge.views.formats import plural

blueprint = Blueprint("connections", __name__, url_prefix="/settings/sftp-connections")

PAGE = 50
# Field: what it is called, and the longest, or the least and the most.
TEXTS = {
    "name": ("name", 100),
    "host": ("host", 255),
    "username": ("user", 100),
    "folder": ("folder", 500),
    "email_column": ("column", 200),
    "sender_host": ("host", 255),
    "sender_username": ("user", 100),
    "sender_folder": ("folder", 500),
}
NUMBERS = {
    "port": ("port", 1, 65_535),
    "every_seconds": ("schedule", 5, 86_400),
    "runs_up_to": ("number of customers", 0, 1_000_000),
    "keep_days": ("number of days", 0, 365),
    "silent_hours": ("number of hours", 1, 10_000),
    "sender_port": ("port", 1, 65_535),
}
OPTIONAL = {"silent_hours", "sender_host", "sender_port", "sender_username", "sender_folder"}
PLACE = ("host", "port", "username", "folder")  # another one is another server's
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
    **dict.fromkeys(sorted(OPTIONAL), ""),
}


@blueprint.before_request
def _admins_change():
    changes = request.method == "POST" or request.endpoint in ("connections.new", "connections.edit")
    if current_user.is_authenticated and changes and not current_user.may_connect:
        abort(403)


@blueprint.get("")
def every():
    return render_template("connections/every.html", shown=[(one, pickup.worries(one)) for one in pickup.every()])


@blueprint.get("/new")
def new():
    return _form(None, DEFAULTS)


@blueprint.post("")
def add():
    values, problems = _read(request.form)
    _ask_for_another_place(values, problems)
    connection = SftpConnection(created_by_id=current_user.id, paused_at=now(), host_keys=[])
    _set_key(connection, request.form.get("private_key", "").strip() or pickup.new_private_key(), problems)
    _ask_for_key_again(problems)
    if problems:
        return _form(None, request.form, problems), 422
    _fill(connection, values)
    db.session.add(connection)
    db.session.flush()
    return _committed(connection, Act.CONNECTION_ADDED, runs_up_to=connection.runs_up_to)


@blueprint.get("/<int:connection_id>")
def show(connection_id: int):
    """`before` is the number of the file where the page of files before ended."""
    return _page(_fetch(connection_id))


@blueprint.get("/<int:connection_id>/edit")
def edit(connection_id: int):
    connection = _fetch(connection_id)
    return _form(connection, _values(connection))


@blueprint.post("/<int:connection_id>/edit")
def change(connection_id: int):
    """Of this installation's own server, only what becomes of the files: where it is, the installation says."""
    connection = _fetch(connection_id, for_update=True)
    stored = _values(connection)
    if request.form.get("shown") != stored["shown"]:
        return _form(connection, stored, is_stale=True), 422
    own = {field: getattr(connection, field) for field in PLACE} if connection.is_embedded else {}
    values, problems = _read({**request.form, **own})
    moved = [field for field in PLACE if field in values and values[field] != getattr(connection, field)]
    if moved:
        _ask_for_another_place(values, problems, connection)
    if request.form.get("private_key", "").strip() and not own:
        _set_key(connection, request.form["private_key"], problems)
    _ask_for_key_again(problems)
    if moved and (bound := pickup.bound(connection)):
        problems[moved[0]] = (
            f"{bound:,} of its files are still in hand or kept on the server as it was. "
            "Change this when none is, or add another connection."
        )
    if problems:
        db.session.rollback()
        return _form(connection, {**request.form, **own}, problems), 422
    changed = [field for field, value in values.items() if value != getattr(connection, field)]
    if request.form.get("private_key", "").strip() and not own:
        changed.append("private_key")
    told = None
    if {"host", "port"} & set(moved):
        connection.host_keys = []  # they were another server's
        pickup.pause(connection)
        told = "It is paused: this is another server. Fetch its host keys, compare and pin them, then start picking up."
    _fill(connection, values)
    facts = {"changed": sorted(changed), "runs_up_to": connection.runs_up_to, "paused": told is not None}
    return _committed(connection, Act.CONNECTION_CHANGED, told, rests=bool(moved), **facts)


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
    if connection.is_embedded:
        abort(403)
    try:
        for key in request.form.getlist("key"):
            sftp.fingerprint(key)
    except sftp.BadKey:
        abort(400)
    connection.host_keys = request.form.getlist("key")
    number = len(connection.host_keys)
    told = f"{plural(number, 'host key')} pinned." if number else "No host key is pinned."
    return _committed(connection, Act.CONNECTION_PINNED, told, keys=[*map(sftp.fingerprint, connection.host_keys)])


@blueprint.post("/<int:connection_id>/key")
def make_key(connection_id: int):
    """In the place of the one there is, which the server lets in until its owner takes it out."""
    connection = _fetch(connection_id)
    if connection.is_embedded:
        abort(403)
    pickup.set_private_key(connection, pickup.new_private_key())
    pickup.pause(connection)
    told = (
        "A new key was made, and picking up is paused: the server does not know the key yet. "
        "Have its public half, below, put there, test the connection, then start again."
    )
    facts = {"changed": ["private_key"], "runs_up_to": connection.runs_up_to, "paused": True}
    return _committed(connection, Act.CONNECTION_CHANGED, told, **facts)


@blueprint.post("/<int:connection_id>/pause")
def pause(connection_id: int):
    return _moved(connection_id, pickup.pause, Act.CONNECTION_PAUSED)


@blueprint.post("/<int:connection_id>/resume")
def resume(connection_id: int):
    return _moved(connection_id, pickup.resume, Act.CONNECTION_RESUMED)


@blueprint.post("/<int:connection_id>/look")
def look(connection_id: int):
    """Without waiting for the schedule."""
    return _moved(connection_id, pickup.look_soon, None, "The folder is looked into as soon as a worker is free.")


@blueprint.post("/<int:connection_id>/remove")
def remove(connection_id: int):
    told = "The connection was removed. What it brought stands among the batches."
    left = pickup.bound(_fetch(connection_id))  # unless none may be left, and it is not removed
    remove = partial(pickup.remove, leaving="leaving" in request.form, user_id=current_user.id)
    answer = _moved(connection_id, remove, Act.CONNECTION_REMOVED, told, rests=True, left=left)
    is_gone = db.session.get(SftpConnection, connection_id).removed_at
    return redirect(url_for("connections.every"), 303) if is_gone else answer


def _form(connection: SftpConnection | None, values: Mapping, problems=None, is_stale: bool = False) -> str:
    shown = {"values": values, "problems": problems or {}, "is_stale": is_stale}
    return render_template("connections/edit.html", connection=connection, **shown)


def _values(connection: SftpConnection) -> dict:
    """What the form shows, and its digest, which the save repeats: or it would set back what somebody else saved meanwhile."""
    values = {name: "" if (value := getattr(connection, name)) is None else value for name in DEFAULTS}
    return {**values, "shown": sha256(json.dumps(values).encode()).hexdigest()}


def _ask_for_key_again(problems: dict[str, str]) -> None:
    """A form that comes back lacks the key that was pasted, which no page shows; nothing else must take its place."""
    if request.form.get("had_key") and not request.form.get("private_key", "").strip():
        problems.setdefault("private_key", "Paste it again: the page that came back did not keep it.")


def _ask_for_another_place(values: dict, problems: dict[str, str], connection: SftpConnection | None = None) -> None:
    """Than another connection's: each would take what the other has seen, or has put into its processed/."""
    place = {field: values[field] for field in PLACE if field in values and field not in problems}
    if len(place) == len(PLACE) and (other := pickup.looking_into(place, connection)):
        problems["folder"] = (
            f"The connection “{other.name}” looks into this folder already, or into one around or within it."
        )


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
    theirs, before = DroppedFile.connection_id == connection.id, request.args.get("before", type=int)
    files = db.select(DroppedFile).where(theirs, *([DroppedFile.id < before] if before else []))
    page = files.options(joinedload(DroppedFile.batch)).order_by(DroppedFile.id.desc()).limit(PAGE + 1)
    found = db.session.scalars(page).all()
    keys = [(key, sftp.fingerprint(key)) for key in dict.fromkeys([*connection.host_keys, *(fetched or [])])]
    return render_template(
        "connections/show.html",
        connection=connection,
        worries=pickup.worries(connection),
        files=found[:PAGE],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        before=before,
        waiting=pickup.unanswered(connection),
        bound=pickup.bound(connection),
        rest=current_app.config["DROP_REST_SECONDS"],
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
        values[field] = text = form.get(field, "").strip() or (None if field in OPTIONAL else "")
        if text is not None and not (text and len(text) <= longest and text.isprintable()):
            problems[field] = f"Say the {words}, in at most {longest} characters."
    for field in ("username", "sender_username"):
        if (values[field] or "").startswith("-"):  # the commands of the instructions would take it for an option
            problems[field] = "A user’s name does not begin with a dash here."
    for field in ("host", "sender_host"):
        values[field] = values[field] and values[field].removeprefix("[").removesuffix("]")
        if values[field] and not _is_host(values[field]):
            problems[field] = "Say the host’s name or address, without anything around it."
    for field, (words, least, most) in NUMBERS.items():
        text = str(form.get(field, "")).strip()
        if not text and field in OPTIONAL:
            values[field] = None
        elif text.isascii() and text.isdigit() and least <= int(text) <= most:
            values[field] = int(text)
        else:
            problems[field] = f"The {words} is a whole number from {least:,} to {most:,}."
    return values, problems


def _is_host(text: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    with suppress(UnicodeError):
        return bool(re.fullmatch(rb"[A-Za-z0-9][A-Za-z0-9._-]*", text.encode("idna")))
    return False


def _set_key(connection: SftpConnection, text: str, problems: dict[str, str]) -> None:
    try:
        pickup.set_private_key(connection, text)
    except sftp.BadKey as bad:
        problems["private_key"] = str(bad)


def _fill(connection: SftpConnection, values: dict) -> None:
    for field, value in values.items():
        setattr(connection, field, value)


def _moved(connection_id: int, move, act: Act | None, done: str | None = None, rests=False, **facts) -> Response:
    connection = _fetch(connection_id)
    try:
        move(connection)
    except NotPossible as refusal:
        db.session.rollback()
        flash(str(refusal))
        return _shown(connection)
    return _committed(connection, act, done, rests, **facts)


def _committed(
    connection: SftpConnection, act: Act | None, done: str | None = None, rests: bool = False, **facts
) -> Response:
    """Saved, with its event; what must not happen under a look that is going on is refused while one is."""
    connection_id = connection.id
    if act:
        audit.record(act, current_user.id, sftp_connection=connection_id, name=connection.name, **facts)
    try:
        with pickup.at_rest(connection_id) if rests else nullcontext():
            db.session.commit()
    except NotPossible as refusal:
        db.session.rollback()
        done = str(refusal)
    if done:
        flash(done)
    return redirect(url_for("connections.show", connection_id=connection_id), 303)


def _shown(connection: SftpConnection) -> Response:
    return redirect(url_for("connections.show", connection_id=connection.id), 303)


def _fetch(connection_id: int, for_update: bool = False) -> SftpConnection:
    connection = db.session.get(SftpConnection, connection_id, with_for_update=for_update)
    return connection if connection and not connection.removed_at else abort(404)
