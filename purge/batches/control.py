"""What an admin may do to a batch after the check: confirm, pause, resume, cancel the rest, discard."""

from sqlalchemy import delete, func, update

from purge.batches import upload
from purge.batches.model import FORGOTTEN_AFTER, Batch, Chunk, ChunkState, Door, NotPossible, PurgeRequest, State
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.extensions import db, now

TYPED_ABOVE = 10  # more customers than this: their number must be typed
LONGEST_NUMBER = 18  # digits; of more Python makes no number
UNCONFIRMED = (State.UPLOADED, State.CHECKING, State.READY)


def confirm(batch: Batch, shown: str, typed: str = "", user_id: int | None = None) -> None:
    """Let the batch run, if `shown` is the digest of its plan and the number typed is the plan's; raises NotPossible."""
    if batch.planned and batch.planned > TYPED_ABOVE and _number(typed) != batch.planned:
        raise NotPossible(f"Type the number of customers to delete: {batch.planned:,}.")
    sentence = "This is not the plan you were shown, or it has been confirmed already. Look again before you decide."
    allowed = Batch.plan_digest == shown, ~Batch.is_dry
    _move(batch, (State.READY,), State.RUNNING, sentence, *allowed, confirmed_by_id=user_id, confirmed_at=now())
    audit.record(Act.CONFIRMED, user_id, batch.id, planned=batch.planned, plan=shown)


def pause(batch: Batch, user_id: int | None = None) -> None:
    """Chunks in hand are finished; no other is begun. One customer is gone in a moment: there is nothing to pause."""
    sentence = "Only a running batch of more than one customer can be paused."
    _move(batch, (State.RUNNING,), State.PAUSED, sentence, Batch.door != Door.FORM)
    audit.record(Act.PAUSED, user_id, batch.id)


def resume(batch: Batch, user_id: int | None = None) -> None:
    """Go on where it stood still."""
    _move(batch, (State.PAUSED,), State.RUNNING, "Only a paused batch can be resumed.", cleared_at=None)
    audit.record(Act.RESUMED, user_id, batch.id)


def cancel(batch: Batch, user_id: int | None = None) -> None:
    """Leave alone whoever is still there; who is gone stays gone."""
    sentence = "Only a running or paused batch can be cancelled."
    _move(batch, (State.RUNNING, State.PAUSED), State.CANCELLING, sentence, stopped_by_id=user_id, cleared_at=None)
    audit.record(Act.CANCELLED, user_id, batch.id)


def discard(batch: Batch, user_id: int | None = None) -> None:
    """Throw an unconfirmed batch away, its file and its rows with it."""
    sentence = "Only a batch that nobody confirmed can be discarded."
    if audit.tells(db.session.connection(), batch.id, Act.CONFIRMED, Act.FINISHED):  # whatever the batch says of itself
        raise NotPossible(sentence)
    _move(batch, UNCONFIRMED, State.DISCARDED, sentence, finished_at=now(), stopped_by_id=user_id)
    upload.destroy(db.session.connection(), batch.id)
    db.session.execute(delete(PurgeRequest).where(PurgeRequest.batch_id == batch.id))
    db.session.execute(delete(Chunk).where(Chunk.batch_id == batch.id, Chunk.state == ChunkState.WAITING))
    audit.record(Act.DISCARDED, user_id, batch.id)


def forgotten() -> list[Batch]:
    """What was uploaded a week ago and never confirmed, to be discarded; a dry run that was checked is, when it is answered."""
    is_answerable = Batch.is_dry & (Batch.state == State.READY)
    old = Batch.state.in_(UNCONFIRMED), Batch.created_at < now() - FORGOTTEN_AFTER, ~is_answerable
    return list(db.session.scalars(db.select(Batch).where(*old)))


def end_all_waiting() -> int:
    """Cancel and discard what was checked and not carried out, and check anew what is being checked: under another LEDGER_KEY none
    of their addresses is known again. How many were ended."""
    db.session.execute(update(Batch).where(Batch.state == State.CHECKING).values(check_token=""))
    waiting = db.session.scalars(db.select(Batch).where(Batch.state.in_([State.READY, State.RUNNING, State.PAUSED])))
    ended = [discard(batch) if batch.state is State.READY else cancel(batch) for batch in waiting.all()]
    return len(ended)


def waiting_for_yes() -> int:
    """How many checked batches nobody has confirmed or discarded."""
    waiting = Batch.state == State.READY, ~Batch.is_dry
    return db.session.scalar(db.select(func.count()).select_from(Batch).where(*waiting))


def _move(batch: Batch, came_from: tuple[State, ...], to: State, otherwise: str, *conditions, **values) -> None:
    """From one state to another by compare-and-set, so that of two clicks one wins."""
    allowed = Batch.id == batch.id, Batch.state.in_(came_from), *conditions
    if not db.session.execute(update(Batch).where(*allowed).values(state=to, moved_at=now(), **values)).rowcount:
        raise NotPossible(otherwise)


def _number(typed: str) -> int | None:
    digits = "".join(c for c in typed if c not in " ,.'\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}")
    return int(digits) if digits.isdecimal() and len(digits) <= LONGEST_NUMBER else None
