"""After the last chunk: what the deletions left in the database's own files goes too, and later what the CSV was called."""

import logging
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, exists, func, select, update

from purge.batches.model import Batch, Chunk, ChunkState, State
from purge.customers import search_index
from purge.erasure.engine import among
from purge.erasure.map import read_map
from purge.erasure.residue import draw_samples_anew, empty_log, lacks_memory, write_anew
from purge.extensions import db, now, reading

log = logging.getLogger(__name__)

BUSY = (State.CHECKING, State.RUNNING, State.CANCELLING)
LONGEST_WAIT = timedelta(minutes=10)
NO_TIME = timedelta()
NAMED_FOR, NAMELESS = timedelta(days=30), "a CSV"


def clear_files() -> bool:
    """Write the search index and the database's file anew, and empty its log; of PostgreSQL's files only the statistics can be
    queried, and they are drawn anew. False when that was not possible now."""
    if db.engine.dialect.name != "sqlite":
        erasure = read_map(db.metadata)
        tables = [erasure.customer, *(part.table for part in erasure.tables)]
        return draw_samples_anew(db.engine, [*(table.name for table in tables), search_index.NAME])
    if not empty_log(db.engine):  # somebody reads for long, and all would have to be written anew once more
        return False
    lack = lacks_memory(db.engine)
    if lack:
        log.warning("%s", lack)
    else:
        search_index.clear_residue(db.engine)
    is_new = not lack and write_anew(db.engine)
    return empty_log(db.engine) and is_new


def settle(quiet: timedelta = NO_TIME) -> bool:
    """Once nothing has run for so long, clear what finished and paused batches left behind, and say when; False when that was not
    possible.

    Clearing holds up whoever writes, and somebody who purges one customer after the other should not wait for it.
    """
    unsettled = Batch.state.in_([State.FINISHED, State.PAUSED]), Batch.cleared_at.is_(None)
    with reading(), db.engine.connect() as connection:
        stood_still = dict(connection.execute(select(Batch.id, _stands_since()).where(*unsettled)).all())
        busy = connection.scalar(db.select(exists().where(Batch.state.in_(BUSY), _moves())))
        if busy or not stood_still or _is_in_hand(connection, list(stood_still)):
            return True
    first, last = min(stood_still.values()), max(stood_still.values())
    if now() - last < quiet and now() - first < LONGEST_WAIT:
        return True
    if not clear_files():
        return False
    with db.engine.begin() as connection:
        theirs = among(Batch.id, list(stood_still), connection)
        # One that was resumed and paused meanwhile has purged others.
        cleared = update(Batch).where(theirs, *unsettled, _stands_since() <= last)
        connection.execute(cleared.values(cleared_at=now()))
    return True


def _stands_since() -> ColumnElement:
    return func.coalesce(Batch.finished_at, Batch.moved_at)


def _is_in_hand(connection: Connection, ids: list[int]) -> bool:
    """Whether somebody still has a chunk of one of these batches: what was paused finishes it first. On SQLite the pause waits."""
    waiting = select(Chunk.id).where(among(Chunk.batch_id, ids, connection), Chunk.state == ChunkState.WAITING)
    there = len(connection.execute(waiting).all())
    return len(connection.execute(waiting.with_for_update(skip_locked=True)).all()) < there


def _moves() -> ColumnElement[bool]:
    """Whether a batch gave a sign of life lately: nobody's traces wait for one that stands still."""
    lately = now() - LONGEST_WAIT
    return (Batch.moved_at > lately) | exists().where(Chunk.batch_id == Batch.id, Chunk.finished_at > lately)


def forget_names(name=Batch.file_name, ended_at=Batch.finished_at, *conditions: ColumnElement[bool]) -> None:
    """Of files that have ended long ago: somebody may have called one like the person in it."""
    old = name != NAMELESS, ended_at < now() - NAMED_FOR, *conditions
    with reading(), db.engine.connect() as connection:
        if not connection.scalar(select(exists().where(*old))):
            return
    with db.engine.begin() as connection:
        connection.execute(update(name.class_).where(*old).values({name: NAMELESS}))
