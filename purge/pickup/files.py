"""The files of a connection, one row each: whose turn it is, and what becomes of them."""

import unicodedata
from datetime import datetime, timedelta

from sqlalchemy import Row, case, exists, func, literal, or_, select, update
from sqlalchemy.orm import aliased

from purge import batches
from purge.batches import Batch, State
from purge.extensions import db, now, reading
from purge.intake.sftp import Entry, Trouble
from purge.pickup.model import DroppedFile, FileState, SftpConnection

FAILED_FOR = timedelta(days=30)
PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
PUT_OFF = timedelta(minutes=15)  # twice as long each time: the attempts to read a file take most of a day
DRY, ENDING, MASK = "dryrun", ".csv", "\N{HORIZONTAL ELLIPSIS}"
MOST_ATTEMPTS = 8  # to read a file
BATCH_ENDED = (State.FINISHED, State.REFUSED, State.DISCARDED)
IN_HAND = DroppedFile.state.in_([FileState.CLAIMED, FileState.TAKEN])
UNTAKEN = DroppedFile.state.in_([FileState.SEEN, FileState.CLAIMED])
OPEN = DroppedFile.state.in_([FileState.SEEN, FileState.CLAIMED, FileState.TAKEN])  # of ended ones there may be 100,000
IS_KEPT = DroppedFile.kept_until.is_not(None)
IN_TROUBLE = DroppedFile.trouble.is_not(None)


def turn(connection: Row, *conditions) -> list[Row]:
    """Whose turn it is, those tried least first, then the oldest; behind them those in trouble, first who waits longest."""
    wanted = DroppedFile.connection_id == connection.id, DroppedFile.next_try_at <= now(), *conditions
    tried = IN_TROUBLE, case((IN_TROUBLE, DroppedFile.next_try_at))
    order = *tried, DroppedFile.attempts, DroppedFile.changed, DroppedFile.name
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
    """Those that need no yes and whose turn it is; what counts now is `runs_up_to`."""
    return *_need_no_yes(runs_up_to), DroppedFile.next_try_at <= now()


def about_to_run(batch_id: int | None = None) -> int:
    """How many checked batches, or whether this one, run at a next look with nobody's yes; a paused connection has none until it
    is started again."""
    theirs = *_need_no_yes(SftpConnection.runs_up_to), SftpConnection.removed_at.is_(None)
    this = () if batch_id is None else (DroppedFile.batch_id == batch_id,)
    asked = select(func.count()).select_from(DroppedFile).join(DroppedFile.connection)
    return db.session.scalar(asked.where(*theirs, *this))


def is_paused(batch_id: int) -> bool:
    """Whether the connection by which this batch came is paused, so that what is about to run has no next look."""
    paused = DroppedFile.batch_id == batch_id, SftpConnection.paused_at.is_not(None)
    return db.session.scalar(select(exists().where(*paused, SftpConnection.id == DroppedFile.connection_id)))


def _need_no_yes(runs_up_to) -> tuple:
    """Files that wait for a yes and need none: neither when they were taken nor by `runs_up_to`."""
    small = Batch.caution.is_(None), Batch.planned <= DroppedFile.runs_up_to, Batch.planned <= runs_up_to
    return *waiting(), exists().where(Batch.id == DroppedFile.batch_id, *small).correlate_except(Batch)


def outlived() -> tuple:
    """Files that were kept for as long as they should be."""
    return DroppedFile.state == FileState.ENDED, DroppedFile.kept_until < now()


def is_dry(name: str) -> bool:
    """However it is spelled, and with the (1) that a desktop adds: a trial must not delete."""
    plain = unicodedata.normalize("NFKD", name).lower()
    return DRY in "".join(c for c in plain if c.isascii() and c.isalnum())


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


def note_trouble(file: Row, sentence: str, **values) -> None:
    """What kept us from going on with it, until we do."""
    _write(file.id, trouble=sentence[:500], **values)


def note_break(file: Row, sentence: str, is_ours: bool) -> None:
    """What ended the look at it. At a file that was well it says nothing of the file, and its attempt is given back. One in
    trouble came after all others, at which the look did not end: it is put off, and its attempt counts unless the fault is ours."""
    values = {"next_try_at": now() + PUT_OFF * 2 ** min(file.attempts, 4)} if file.trouble else {}
    if is_ours or not file.trouble:
        values["attempts"] = DroppedFile.attempts - 1
    note_trouble(file, sentence, **values)


def begin_attempts(file: Row) -> None:
    """Those so far were at something else."""
    _write(file.id, attempts=1, trouble=None)


def went_well(writer, file: Row) -> None:
    """Its next step is a new one, to be tried at once."""
    this = update(DroppedFile).where(DroppedFile.id == file.id)
    writer.execute(this.values(attempts=0, next_try_at=now(), trouble=None))


def keep_until(file: Row, until: datetime, kept_as: str) -> None:
    """It stands here before the file stands there."""
    _write(file.id, kept_until=until, kept_as=kept_as)


def is_kept(connection_id: int, kept_as: str) -> bool:
    """Whether a file of this connection is kept there."""
    with reading(), db.engine.connect() as reader:
        there = exists().where(DroppedFile.connection_id == connection_id, IS_KEPT, DroppedFile.kept_as == kept_as)
        return reader.scalar(select(there))


def begin_anew(writer, file_id: int, entry: Entry) -> None:
    """It is another file than the one noted, so its time begins again."""
    this = update(DroppedFile).where(DroppedFile.id == file_id)
    noted = {"size": entry.size, "changed": entry.changed, "seen_at": now()}
    writer.execute(this.values(**noted, attempts=0, next_try_at=now(), trouble=None))


def overtaken() -> tuple:
    """Files that wait for a yes because the very same one came before, which has ended since: they may delete nobody any more."""
    waits, earlier = aliased(Batch), aliased(Batch)
    same = earlier.content_digest == waits.content_digest, earlier.id < waits.id, earlier.finished_at > waits.created_at
    return *waiting(), exists().where(waits.id == DroppedFile.batch_id, waits.caution.is_not(None), *same)


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
        decide(writer, file, refusal=sentence)


def refuse_late(file: Row, sentence: str, **kept) -> None:
    """As `refuse`, after it was taken."""
    _write(file.id, refusal=sentence, kept_until=now() + FAILED_FOR, **kept)


def decide(writer, file: Row, **values) -> None:
    """What becomes of a claimed file, once and for all; from here on its name holds nothing personal, and its answer's is its own."""
    masked = batches.masked(file.name)
    same = func.lower(DroppedFile.name) == func.lower(literal(file.name))  # a.csv, a.CSV
    alike = DroppedFile.connection_id == file.connection_id, DroppedFile.name != file.name, same
    there = or_(*(exists().where(*alike, still) for still in (OPEN, IS_KEPT)))
    if masked != file.name or MASK in masked or writer.scalar(select(there)):
        masked = f"{masked[: -len(ENDING)]}-{file.id}{ENDING}"
    this = update(DroppedFile).where(DroppedFile.id == file.id, DroppedFile.state == FileState.CLAIMED)
    decided = {"state": FileState.TAKEN, "name": masked, "attempts": 0, "next_try_at": now(), "trouble": None}
    if not writer.execute(this.values(**decided, **values)).rowcount:
        raise Trouble("Another look had the file first.")


def take_back(file: Row) -> None:
    """Neither its name nor our claim is on the server: its sender took it back, or the folder shows another disk for a moment."""
    _write(file.id, state=FileState.ENDED, name=batches.masked(file.name), ended_at=now(), trouble=None)


def is_here_again(file: Row, is_read: bool) -> None:
    """What had ended stands in the folder under our claim all the same: its answer went elsewhere, or it was not read, or in
    vain."""
    unread = {"state": FileState.CLAIMED, "batch_id": None, "refusal": None}
    state = {"state": FileState.TAKEN} if is_read else unread
    _write(file.id, **state, ended_at=None, kept_until=None, kept_as=None, attempts=0, next_try_at=now())


def forget_names() -> None:
    """Of files that are on no server any more."""
    batches.forget_names(DroppedFile.name, DroppedFile.ended_at, DroppedFile.kept_until.is_(None))


def thrown_away(file: Row) -> None:
    """It is kept on the server no longer."""
    _write(file.id, kept_until=None, kept_as=None, trouble=None)


def _write(file_id: int, **values) -> None:
    with db.engine.begin() as writer:
        writer.execute(update(DroppedFile).where(DroppedFile.id == file_id).values(**values))
