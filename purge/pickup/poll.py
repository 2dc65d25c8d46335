"""One look at a connection's folder: what has ended is answered, what is new is noted, what is ripe is taken.

Between two steps anything may die. What is decided stands in the database before it is done on the server, and every
step can be done twice: a claim is a rename that one can win, a batch and its file's state are written in one
transaction, and an answer replaces the same answer.
"""

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from flask import current_app
from sqlalchemy import Row, exists, func, or_, select, update

from purge.batches import Batch, NotPossible
from purge.extensions import alone, db, now, reading
from purge.intake import sftp
from purge.intake.sftp import Drop, OurOwn, Trouble, Unreachable
from purge.pickup import files
from purge.pickup.answer import answer, throw_away
from purge.pickup.connections import address
from purge.pickup.model import DroppedFile, SftpConnection
from purge.pickup.note import note
from purge.pickup.take import let_run, take

log = logging.getLogger(__name__)

POLL_SECONDS = 60  # then the next look goes on
A_MOMENT = timedelta(seconds=1)
SETTINGS = (
    *("host", "port", "username", "folder", "host_keys", "private_key", "removed_at"),
    *("email_column", "runs_up_to", "keep_days"),
)


@dataclass
class Looked:
    """What a look met: what ended it early, if anything did, and the trouble it had with single files."""

    broke: str | None = None
    troubles: list[str] = field(default_factory=list)
    ran_out: bool = False


def due() -> list[int]:
    """Connections to be looked at now, by their ids; they stay due until a look has ended, whoever loses the bell."""
    theirs = DroppedFile.connection_id == SftpConnection.id
    has_work = [
        exists().where(theirs, *work) for work in (files.answerable(), files.runnable(SftpConnection.runs_up_to))
    ]
    wanted = (
        SftpConnection.removed_at.is_(None),
        SftpConnection.paused_at.is_(None),
        or_(SftpConnection.next_look_at <= now(), (SftpConnection.failures == 0) & or_(*has_work)),
    )
    with reading(), db.engine.connect() as connection:
        return list(connection.scalars(select(SftpConnection.id).where(*wanted).order_by(SftpConnection.next_look_at)))


def poll(connection_id: int, opened: Callable[[Batch], None], keep_going: Callable[[], bool] = lambda: True) -> None:
    """Look once, unless somebody else is looking; `opened` hears of each batch that has work, once that is committed."""
    with alone(db.engine, f"poll-{connection_id}") as is_ours:
        connection = _fetch(connection_id) if is_ours else None
        if connection is None or connection.paused_at or connection.removed_at:
            return
        looked = Looked()
        try:
            if not connection.host_keys:
                raise sftp.HostKeyUnknown("No host key is pinned, so nothing is sent to this server.")
            with sftp.connect(address(connection), connection.folder) as drop:
                _look(connection, drop, opened, keep_going, looked)
        except Trouble as trouble:
            looked.broke = str(trouble)
        except Exception as error:  # whatever it is, the connection must say so, and must not be asked again at once
            db.session.rollback()
            looked.broke = _unexpected(connection, error)
        _came_to_an_end(connection, looked)


@contextmanager
def at_rest(connection_id: int):
    """Nobody looks at it for as long as the block lasts; raises NotPossible while somebody does."""
    with alone(db.engine, f"poll-{connection_id}") as is_ours:
        if not is_ours:
            raise NotPossible("It is being looked into at this moment. Try again in a minute.")
        yield


def _look(connection: Row, drop: Drop, opened, keep_going, looked: Looked) -> None:
    """First the files that are well, then those in trouble: one at which the server hangs each time has no other behind it."""
    until = time.monotonic() + POLL_SECONDS

    def each(conditions: Callable[[], tuple], act: Callable[[Row], None], *besides) -> None:
        """One file's trouble is no other's, unless the connection is gone; what an admin changes counts from the next file on."""
        for file in files.turn(connection, *conditions(), *besides):
            if not keep_going() or time.monotonic() > until or not _is_as_it_was(connection):
                looked.ran_out = True
                return
            try:
                act(file)
            except (Unreachable, OurOwn) as broke:
                db.session.rollback()
                files.note_break(file, str(broke), is_ours=isinstance(broke, OurOwn))
                raise
            except Exception as error:
                db.session.rollback()
                sentence = str(error) if isinstance(error, Trouble) else _unexpected(connection, error)
                files.note_trouble(file, sentence)
                looked.troubles.append(sentence)
            finally:
                db.session.rollback()  # nothing of one file's is left to the next

    old = now() - _age()  # before this look, at the latest
    answers = files.answerable, lambda file: answer(connection, drop, file)
    runs = partial(files.runnable, connection.runs_up_to), lambda file: let_run(drop, file, opened)
    takes = lambda: (files.UNTAKEN, DroppedFile.seen_at < old), lambda file: take(connection, drop, file, opened)
    throws = files.outlived, lambda file: throw_away(drop, file)
    for step in (answers, runs):
        each(*step, ~files.IN_TROUBLE)
    if looked.ran_out or not _is_as_it_was(connection):
        looked.ran_out = True
        return
    note(connection, drop)
    for step in (takes, answers, throws):
        each(*step, ~files.IN_TROUBLE)
    try:
        for step in (runs, takes, answers, throws):
            each(*step)
    except (Unreachable, OurOwn) as broke:  # as the file's own trouble: with all others the look has gone well
        looked.troubles.append(str(broke))


def _came_to_an_end(connection: Row, looked: Looked) -> None:
    """A server out of reach is left alone for longer each time; trouble with single files is theirs alone."""
    at = now()
    if looked.broke:
        pause = min(
            timedelta(seconds=connection.every_seconds) * 2 ** min(connection.failures, 12), files.LONGEST_PAUSE
        )
        values = {"failing_since": connection.failing_since or at, "failures": connection.failures + 1}
        next_look_at = at + pause
    else:
        next_look_at, is_stuck = _afterwards(connection, at)
        failing_since = (connection.failing_since or at) if is_stuck else None
        values = {"seen_at": at, "failures": 0, "failing_since": failing_since}
        next_look_at = at if looked.ran_out else next_look_at
    told = looked.broke or (looked.troubles or [None])[-1]
    if told:
        values |= {"last_error": told[:500], "last_error_at": at}
        log.warning("connection %s: %s", connection.id, told)
    this = update(SftpConnection).where(SftpConnection.id == connection.id)
    with db.engine.begin() as writer:
        writer.execute(this.values(**values))
        # Unless somebody asked for a look meanwhile.
        writer.execute(
            this.where(SftpConnection.next_look_at == connection.next_look_at).values(next_look_at=next_look_at)
        )


def _afterwards(connection: Row, at: datetime) -> tuple[datetime, bool]:
    """When to look next: on the schedule, or sooner when a file comes of age, has its next try or was kept for long enough; and
    whether one is in trouble."""
    theirs = DroppedFile.connection_id == connection.id
    tried = files.IN_TROUBLE | (DroppedFile.attempts > 0)
    troubled = theirs, files.OPEN, files.IN_TROUBLE
    outlived = theirs, DroppedFile.kept_until < at

    def soonest(column, *conditions) -> datetime:
        found = reader.scalar(select(func.min(column)).where(theirs, *conditions))
        return found or datetime.max.replace(tzinfo=at.tzinfo) - _age() - A_MOMENT

    with reading(), db.engine.connect() as reader:
        due = (
            soonest(DroppedFile.seen_at, files.UNTAKEN, ~tried) + _age() + A_MOMENT,
            soonest(DroppedFile.next_try_at, files.UNTAKEN, tried),
            soonest(DroppedFile.kept_until, DroppedFile.kept_until >= at) + A_MOMENT,
            soonest(DroppedFile.next_try_at, DroppedFile.kept_until < at),
        )
        is_stuck = reader.scalar(select(exists().where(*troubled) | exists().where(*outlived)))
    return min(at + timedelta(seconds=connection.every_seconds), max(min(due), at + A_MOMENT)), is_stuck


def _is_as_it_was(connection: Row) -> bool:
    """Neither paused nor removed, the same server and folder under the same keys, and files are read as we were told."""
    current = _fetch(connection.id)
    return all(getattr(current, name) == getattr(connection, name) for name in SETTINGS) and not current.paused_at


def _unexpected(connection: Row, error: Exception) -> str:
    """Into the log it goes without its values; what is told to the admin."""
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[::-1])
    log.error("connection %s: %s in %s", connection.id, type(error).__name__, where)
    return f"Something unexpected happened ({type(error).__name__}); the worker's log says where."


def _age() -> timedelta:
    return timedelta(seconds=current_app.config["DROP_AGE_SECONDS"])


def _fetch(connection_id: int) -> Row | None:
    """As it is now, read in a transaction that has ended: none may stand while we wait for a server."""
    with reading(), db.engine.connect() as reader:
        this = select(SftpConnection.__table__).where(SftpConnection.id == connection_id)
        return reader.execute(this).one_or_none()
