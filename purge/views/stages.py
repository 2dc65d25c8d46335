"""A batch's stages, each at an address of its own; whoever comes to another is sent to the one it is at."""

from flask import Response, abort, redirect, request, url_for

from purge.batches import Batch, State
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
