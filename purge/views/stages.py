"""A batch's stages, each at an address of its own; whoever comes to another is sent to the one it is at."""

from flask import Response, abort, redirect, request, url_for

from purge import pickup
from purge.batches import Batch, Door, State, waiting_for_yes
from purge.extensions import db

STAGES = {
    State.UPLOADED: "mapping.show",
    State.CHECKING: "batches.checking",
    State.READY: "batches.review",
    State.RUNNING: "batches.progress",
    State.PAUSED: "batches.progress",
    State.CANCELLING: "batches.progress",
    State.FINISHED: "batches.summary",
    State.REFUSED: "batches.summary",
    State.DISCARDED: "batches.summary",
}


def fetch(batch_id: int) -> Batch:
    """The batch, or 404."""
    return db.session.get(Batch, batch_id) or abort(404)


def runs_by_itself(batch: Batch) -> bool:
    """Whether it is about to run with nobody's yes: a dropped file that its connection allows to."""
    return batch.state is State.READY and batch.door is Door.SFTP and bool(pickup.about_to_run(batch.id))


def in_words(batch: Batch) -> str:
    """Its state; what runs by itself waits for nobody."""
    return "about to run" if runs_by_itself(batch) else batch.state.words


def need_a_yes() -> int:
    """How many checked batches go on only when somebody says so."""
    checked = waiting_for_yes()
    return max(checked - pickup.about_to_run(), 0) if checked else 0


def stage_url(batch: Batch) -> str:
    """Where the batch is now."""
    return url_for(STAGES[batch.state], batch_id=batch.id)


def moved_on(batch: Batch, *here: State) -> Response | None:
    """A redirect of the whole page when the batch is at none of these stages."""
    if batch.state in here:
        return None
    if "HX-Request" in request.headers:  # or the other page would come into the place of a part of this one
        return Response(headers={"HX-Redirect": stage_url(batch)})
    return redirect(stage_url(batch), 303)
