"""After the last chunk: what the deletions left in the database's own files goes too, and later what the CSV was called."""

import logging
from datetime import timedelta

from sqlalchemy import ColumnElement, exists, func, select, update

from purge.batches.model import Batch, Chunk, State
from purge.customers import search_index
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
    if busy or not stood_still:
        return True
    if now() - max(stood_still.values()) < quiet and now() - min(stood_still.values()) < LONGEST_WAIT:
        return True
    if not clear_files():
        return False
    with db.engine.begin() as connection:
        for id, since in stood_still.items():  # one that was resumed meanwhile has purged others
            this = update(Batch).where(Batch.id == id, _stands_since() == since, *unsettled)
            connection.execute(this.values(cleared_at=now()))
    return True


def _stands_since() -> ColumnElement:
    return func.coalesce(Batch.finished_at, Batch.moved_at)


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
