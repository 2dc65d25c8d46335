"""Batches: the list, and each from its check to its summary."""

import time

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    stream_with_context,
    url_for,
)
from flask_login import current_user
from sqlalchemy.orm import joinedload

from jobs.bell import RINGS, ring
from purge import batches, pickup
from purge.batches import TYPED_ABOVE, Batch, NotPossible, State
from purge.extensions import db
from purge.views.stages import STAGES, fetch, moved_on, stage_url

blueprint = Blueprint("batches", __name__, url_prefix="/batches")

PAGE = 50
GOING_ON = (State.RUNNING, State.PAUSED, State.CANCELLING)
ENDED = (State.FINISHED, State.REFUSED, State.DISCARDED)
LOOK_SECONDS = 0.5  # nobody reads faster
STOPS_POLLING = 286  # htmx's own status


@blueprint.get("")
def every():
    """The newest first; `before` is the number where the page before ended."""
    before = request.args.get("before", type=int)
    page = db.select(Batch).options(joinedload(Batch.created_by)).order_by(Batch.id.desc()).limit(PAGE + 1)
    found = db.session.scalars(page.where(Batch.id < before) if before else page).all()
    older = found[PAGE - 1].id if len(found) > PAGE else None
    counted = batches.outcomes([batch.id for batch in found[:PAGE]])
    shown = [(batch, counted[batch.id], stage_url(batch)) for batch in found[:PAGE]]
    return render_template("batches/every.html", shown=shown, older=older, before=before)


@blueprint.get("/<int:batch_id>")
def show(batch_id: int):
    return redirect(stage_url(fetch(batch_id)), 303)


@blueprint.get("/<int:batch_id>/checking")
def checking(batch_id: int):
    batch = fetch(batch_id)
    return moved_on(batch, State.CHECKING) or _stage("checking", batch)


@blueprint.get("/<int:batch_id>/review")
def review(batch_id: int):
    batch = fetch(batch_id)
    return moved_on(batch, State.READY) or _review(batch)


@blueprint.get("/<int:batch_id>/progress")
def progress(batch_id: int):
    batch = fetch(batch_id)
    return moved_on(batch, *GOING_ON) or _stage("progress", batch)


@blueprint.get("/<int:batch_id>/live")
def live(batch_id: int):
    """What the check's and the run's pages poll; `stage` is the page that asks, and `state` what its buttons are for. The
    database is asked once in a while, however many look on; so they may hear of the end half a second late."""
    this = batch_id, request.args.get("stage"), request.args.get("state")
    told = current_app.extensions.setdefault("batches_told", {})
    for one, (at, _) in list(told.items()):
        if time.monotonic() - at > LOOK_SECONDS:
            told.pop(one, None)
    found = told.get(this)
    if found is None:
        batch = fetch(batch_id)
        here = f"batches.{this[1]}", this[2]
        if batch.state not in (State.CHECKING, *GOING_ON) or here != (STAGES[batch.state], batch.state):
            return "", STOPS_POLLING, {"HX-Redirect": stage_url(batch)}
        shown = render_template("batches/live.html", batch=batch, progress=batches.progress(batch))
        found = told[this] = time.monotonic(), shown  # from now: a slow answer is as good to those who waited for it
    return found[1]


@blueprint.get("/<int:batch_id>/summary")
def summary(batch_id: int):
    batch = fetch(batch_id)
    if redirected := moved_on(batch, *ENDED):
        return redirected
    told = {"fell": batches.what_fell(batch), "falls": batches.what_falls(batch), "failures": batches.failures(batch)}
    has_no_trace = batch.cleared_at and db.engine.dialect.name == "sqlite"  # of PostgreSQL's files nothing is promised
    return _stage("summary", batch, has_receipt=batches.has_receipt(batch), has_no_trace=has_no_trace, **told)


@blueprint.get("/<int:batch_id>/results.csv")
def results(batch_id: int):
    batch = fetch(batch_id)
    headers = {"Content-Disposition": f"attachment; filename=batch-{batch.id}-results.csv"}
    return Response(stream_with_context(batches.results_csv(batch)), mimetype="text/csv", headers=headers)


@blueprint.post("/<int:batch_id>/confirmation")
def confirmation(batch_id: int):
    batch = fetch(batch_id)
    if batch.state in (*GOING_ON, State.FINISHED):  # the second click of two
        return redirect(stage_url(batch), 303)
    try:
        batches.confirm(batch, request.form.get("plan", ""), request.form.get("typed", ""), current_user.id)
    except NotPossible as refusal:
        db.session.rollback()
        if batch.state is State.READY:
            return _review(batch, str(refusal)), 422
        return redirect(stage_url(batch), 303)
    db.session.commit()
    ring(batch)
    return redirect(url_for("batches.progress", batch_id=batch.id), 303)


@blueprint.post("/<int:batch_id>/pause")
def pause(batch_id: int):
    return _control(batch_id, batches.pause, State.PAUSED)


@blueprint.post("/<int:batch_id>/resume")
def resume(batch_id: int):
    return _control(batch_id, batches.resume, State.RUNNING)


@blueprint.post("/<int:batch_id>/cancellation")
def cancel(batch_id: int):
    return _control(batch_id, batches.cancel, State.CANCELLING)


@blueprint.post("/<int:batch_id>/discard")
def discard(batch_id: int):
    return _control(batch_id, batches.discard, State.DISCARDED)


def _control(batch_id: int, act, wanted: State) -> Response:
    """Do it if the batch still allows it, and say so if not; either way show where the batch is now."""
    batch = fetch(batch_id)
    try:
        act(batch, current_user.id)
        db.session.commit()
    except NotPossible as refusal:
        db.session.rollback()
        was_cancelled = wanted is State.CANCELLING and batch.stopped_by_id
        if batch.state is not wanted and not was_cancelled:  # or it was the second click of two
            flash(str(refusal))
    if batch.state in RINGS:
        ring(batch)
    return redirect(stage_url(batch), 303)


def _review(batch: Batch, refusal: str | None = None) -> str:
    planned = {"left_out": batches.failures(batch), "falls": batches.what_falls(batch)}
    typed, is_paused = (batch.planned or 0) > TYPED_ABOVE, pickup.is_paused(batch.id)
    return _stage("review", batch, **planned, typed=typed, is_paused=is_paused, refusal=refusal)


def _stage(stage: str, batch: Batch, **shown) -> str:
    return render_template(f"batches/{stage}.html", batch=batch, stage=stage, progress=batches.progress(batch), **shown)
