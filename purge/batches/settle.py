"""After the last chunk: what the deletions left in the database's own files goes too."""

from sqlalchemy import exists, update

from purge.batches.model import Batch, State
from purge.erasure.residue import clear_residue
from purge.extensions import db, now, reading

BUSY = (State.CHECKING, State.RUNNING, State.CANCELLING)


def settle() -> None:
    """Once nothing runs, clear what finished batches left behind, and say when."""
    unsettled = Batch.state == State.FINISHED, Batch.cleared_at.is_(None)
    with reading(), db.engine.connect() as connection:
        finished = list(connection.scalars(db.select(Batch.id).where(*unsettled)))
        busy = connection.scalar(db.select(exists().where(Batch.state.in_(BUSY))))
    if finished and not busy and clear_residue(db.engine):
        with db.engine.begin() as connection:
            connection.execute(update(Batch).where(Batch.id.in_(finished)).values(cleared_at=now()))
