"""Map fields: which column holds the address, with the first rows validated there and then."""

from flask import Blueprint, redirect, render_template, request, url_for
from flask_login import current_user

from jobs.bell import ring
from purge import batches
from purge.batches import Lost, NotPossible, State
from purge.extensions import db
from purge.views.stages import fetch, moved_on

blueprint = Blueprint("mapping", __name__, url_prefix="/batches/<int:batch_id>/mapping")


@blueprint.get("")
def show(batch_id: int):
    batch = fetch(batch_id)
    return moved_on(batch, State.UPLOADED) or _page(batch, request.args.get("column", batch.email_column, type=int))


@blueprint.get("/rows")
def rows(batch_id: int):
    """The part of the page that hangs on the mapping, and in a line beside it what a screen reader says."""
    batch = fetch(batch_id)
    column, said = request.args.get("column", type=int), _said(request.args)
    if redirected := moved_on(batch, State.UPLOADED):
        return redirected
    preview = batches.preview(batch, column, said["any_type"])
    shown = render_template("mapping/rows.html", batch=batch, preview=preview, **said)
    as_it_is = url_for("mapping.show", batch_id=batch_id, column=column)  # to be loaded anew
    return shown, {"HX-Replace-Url": as_it_is}


@blueprint.post("")
def settle(batch_id: int):
    batch = fetch(batch_id)
    column, said = request.form.get("column", -1, type=int), _said(request.form)
    if redirected := moved_on(batch, State.UPLOADED):
        return redirected
    if "show" in request.form:  # without JavaScript: the same page under another mapping
        return _page(batch, column, **said)
    try:
        batches.map_fields(batch, column, **said, user_id=current_user.id)
    except NotPossible as refusal:
        db.session.rollback()
        return _page(batch, column, **said, refusal=str(refusal)), 422
    db.session.commit()
    ring(batch)
    return redirect(url_for("batches.checking", batch_id=batch.id), 303)


@blueprint.errorhandler(Lost)
def destroyed(lost: Lost):
    """Somebody discarded the batch, or its check has ended, while we read its file."""
    db.session.rollback()
    if redirected := moved_on(fetch(request.view_args["batch_id"]), State.UPLOADED):
        return redirected
    raise lost


def _said(form) -> dict[str, bool]:
    """What somebody has ticked."""
    return {name: name in form for name in ("encoding_agreed", "any_type")}


def _page(
    batch, column: int | None, encoding_agreed: bool = False, any_type: bool = False, refusal: str | None = None
) -> str:
    return render_template(
        "mapping/show.html",
        batch=batch,
        preview=batches.preview(batch, column, any_type),
        affected=batches.affected_rows(batch),
        encoding_agreed=encoding_agreed,
        any_type=any_type,
        refusal=refusal,
        before=batches.seen_before(batch),
        stage="mapping",
    )
