"""The files of a connection, one row each: whose turn it is, and what becomes of them."""

import re
from datetime import datetime, timedelta

from sqlalchemy import Row, exists, func, literal, or_, select, update

from purge import batches
from purge.batches import Batch, State
from purge.extensions import db, now, reading
from purge.intake.sftp import Entry, Trouble
from purge.pickup.model import DroppedFile, FileState

FAILED_FOR = timedelta(days=30)
PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
DRY, ENDING = "dryrun", ".csv"
MOST_ATTEMPTS = 8  # to read a file
BATCH_ENDED = (State.FINISHED, State.REFUSED, State.DISCARDED)
IN_HAND = DroppedFile.state.in_([FileState.CLAIMED, FileState.TAKEN])


def turn(connection: Row, *conditions) -> list[Row]:
    """Whose turn it is, those tried least first, then the oldest."""
    wanted = DroppedFile.connection_id == connection.id, DroppedFile.next_try_at <= now(), *conditions
    order = DroppedFile.attempts, DroppedFile.changed, DroppedFile.name
    with reading(), db.engine.connect() as reader:
        return list(reader.execute(select(DroppedFile.__table__).where(*wanted).order_by(*order)))


def answerable() -> tuple:
    """Files whose batch has come to its end, or that were refused."""
    ended = exists().where(
        Batch.id == DroppedFile.batch_id,
        or_(Batch.state.in_(BATCH_ENDED), Batch.is_dry & (Batch.state == State.READY)),
    )
    decided = DroppedFile.state == FileState.TAKEN, DroppedFile.next_try_at <= now()
    return *decided, or_(DroppedFile.refusal.is_not(None), ended)


def waiting() -> tuple:
    """Files whose batch waits for a yes, whoever's."""
    ready = exists().where(Batch.id == DroppedFile.batch_id, Batch.state == State.READY, ~Batch.is_dry)
    return DroppedFile.state == FileState.TAKEN, DroppedFile.refusal.is_(None), ready.correlate_except(Batch)


def runnable(runs_up_to) -> tuple:
    """Files that wait for a yes and need none: neither when they were taken nor by `runs_up_to`, which is what counts now."""
    small = Batch.caution.is_(None), Batch.planned <= DroppedFile.runs_up_to, Batch.planned <= runs_up_to
    enough = exists().where(Batch.id == DroppedFile.batch_id, *small).correlate_except(Batch)
    return *waiting(), DroppedFile.next_try_at <= now(), enough


def is_dry(name: str) -> bool:
    """However it is spelled, and with the (1) that a desktop adds: a trial must not delete."""
    return DRY in re.sub(r"[\W_]", "", name).lower()


def has_changed(file: Row, entry: Entry) -> bool:
    """On the server it is not what was noted."""
    return (entry.size, entry.changed) != (file.size, file.changed)


def try_again_later(file: Row, **values) -> None:
    """Counted before it is tried, so that what kills us is counted too; raises Trouble when somebody else has gone on with it."""
    pause = min(PAUSE * 2**file.attempts, LONGEST_PAUSE) if file.attempts < 20 else LONGEST_PAUSE
    unchanged = DroppedFile.id == file.id, DroppedFile.state == file.state, DroppedFile.attempts == file.attempts
    counted = {"attempts": file.attempts + 1, "next_try_at": now() + pause, **values}
    with db.engine.begin() as writer:
        if not writer.execute(update(DroppedFile).where(*unchanged).values(counted)).rowcount:
            raise Trouble("Another look had the file first.")


def note_trouble(file: Row, sentence: str, is_its_own: bool = True) -> None:
    """What kept us from going on with it, until we do; what was no fault of the file's never uses its attempts up."""
    fewer = {} if is_its_own else {"attempts": min(file.attempts + 1, MOST_ATTEMPTS - 1)}
    _write(file.id, trouble=sentence[:500], **fewer)


def begin_attempts(file: Row) -> None:
    """Those so far were at something else."""
    _write(file.id, attempts=1, trouble=None)


def went_well(writer, file: Row) -> None:
    """Its next step is a new one, to be tried at once."""
    this = update(DroppedFile).where(DroppedFile.id == file.id)
    writer.execute(this.values(attempts=0, next_try_at=now(), trouble=None))


def keep_until(file: Row, until: datetime) -> None:
    """It stands here before the file stands there."""
    _write(file.id, kept_until=until)


def begin_anew(writer, file_id: int, entry: Entry) -> None:
    """It is another file than the one noted, so its time begins again."""
    this = update(DroppedFile).where(DroppedFile.id == file_id)
    noted = {"size": entry.size, "changed": entry.changed, "seen_at": now()}
    writer.execute(this.values(**noted, attempts=0, next_try_at=now(), trouble=None))


def discard_batch(file: Row) -> None:
    """Nobody has been deleted by it, and nobody will be."""
    with db.session.begin():
        batches.discard(db.session.get(Batch, file.batch_id))


def read_again(file: Row, entry: Entry) -> None:
    """It changed after it was read and before anybody was deleted: its batch is thrown away, and it is read as it is then."""
    with db.session.begin():
        batches.discard(db.session.get(Batch, file.batch_id))
        begin_anew(db.session, file.id, entry)
        this = update(DroppedFile).where(DroppedFile.id == file.id)
        db.session.execute(this.values(state=FileState.CLAIMED, batch_id=None))


def refuse(file: Row, sentence: str) -> None:
    """It goes to failed/, with this sentence, for whoever sent it to mend it."""
    with db.engine.begin() as writer:
        decide(writer, file, refusal=sentence, kept_until=now() + FAILED_FOR)


def refuse_late(file: Row, sentence: str) -> datetime:
    """As `refuse`, after it was taken; until when it is kept, which must stand here before the file does there."""
    kept_until = now() + FAILED_FOR
    _write(file.id, refusal=sentence, kept_until=kept_until)
    return kept_until


def decide(writer, file: Row, **values) -> None:
    """What becomes of a claimed file, once and for all; from here on its name holds nothing personal, and its answer's is its own."""
    masked = _masked(file.name)
    there = (DroppedFile.state != FileState.ENDED) | DroppedFile.kept_until.is_not(None)
    theirs = DroppedFile.connection_id == file.connection_id, DroppedFile.name != file.name, there
    alike = exists().where(*theirs, func.lower(DroppedFile.name) == func.lower(literal(file.name)))  # a.csv, a.CSV
    if masked != file.name or writer.scalar(select(alike)):
        masked = f"{masked[: -len(ENDING)]}-{file.id}{ENDING}"
    this = update(DroppedFile).where(DroppedFile.id == file.id, DroppedFile.state == FileState.CLAIMED)
    decided = {"state": FileState.TAKEN, "name": masked, "attempts": 0, "next_try_at": now(), "trouble": None}
    if not writer.execute(this.values(**decided, **values)).rowcount:
        raise Trouble("Another look had the file first.")


def take_back(file: Row) -> None:
    """Neither its name nor our claim is on the server: its sender took it back, or the folder shows another disk for a moment."""
    _write(file.id, state=FileState.ENDED, name=_masked(file.name), ended_at=now(), trouble=None)


def is_here_again(file: Row) -> None:
    """What had ended stands in the folder under our claim all the same: its answer went elsewhere, or it was never read."""
    state = FileState.TAKEN if file.batch_id or file.refusal else FileState.CLAIMED
    _write(file.id, state=state, ended_at=None, attempts=0, next_try_at=now())


def forget_names() -> None:
    """Of files that are on no server any more."""
    batches.forget_names(DroppedFile.name, DroppedFile.ended_at, DroppedFile.kept_until.is_(None))


def thrown_away(file: Row) -> None:
    """It is kept on the server no longer."""
    _write(file.id, kept_until=None, trouble=None)


def _masked(name: str) -> str:
    """Without what looks like an address, and still a dry run's where it was one."""
    masked = batches.masked(name)
    return masked if is_dry(masked) or not is_dry(name) else f"{masked[: -len(ENDING)]}.{DRY}{ENDING}"


def _write(file_id: int, **values) -> None:
    with db.engine.begin() as writer:
        writer.execute(update(DroppedFile).where(DroppedFile.id == file_id).values(**values))
