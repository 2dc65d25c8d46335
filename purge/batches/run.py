"""The run: chunk by chunk, claim > erase > verify > record, each in one transaction."""

import logging
from collections.abc import Callable
from contextlib import nullcontext

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, insert, select, update
from sqlalchemy.exc import DBAPIError, OperationalError

from purge.batches.model import Batch, Chunk, ChunkState, Door, Outcome, PurgeRequest, Reason, State
from purge.customers import search_index
from purge.erasure.engine import NotErased, among, erase
from purge.erasure.map import read_map
from purge.evidence.ledger import enter, fingerprinter
from purge.extensions import db, giving_way, now, reading
from purge.models import Customer

log = logging.getLogger(__name__)


class ChunkRefused(Exception):
    """The database would not have this chunk; all of it was rolled back."""

    def __init__(self, chunk: Row):
        self.chunk = chunk


def run(batch_id: int, keep_going: Callable[[], bool] = lambda: True) -> None:
    """Carry out the batch's waiting chunks until none is left to us or we are told to stop.

    The transaction is the claim: whoever dies in the middle has done nothing, and the chunk waits as before.
    """
    with reading(), db.engine.connect() as connection:
        is_single = connection.scalar(select(Batch.door).where(Batch.id == batch_id)) is Door.FORM
    while keep_going():
        try:
            with nullcontext() if is_single else giving_way(db.engine):
                has_run = _run_next_chunk(batch_id)
            if not has_run:
                return _finish(batch_id)
        except ChunkRefused as refused:
            _halve(refused.chunk)


def _run_next_chunk(batch_id: int) -> bool:
    started_at = now()
    with db.engine.begin() as connection:
        chunk = _claim(connection, batch_id)
        if chunk is None:
            return False
        try:
            done = _cancel(connection, chunk) if chunk.batch_state is State.CANCELLING else _purge(connection, chunk)
        except OperationalError:
            raise  # the database is in trouble, not this chunk: it waits for its next turn
        except (DBAPIError, NotErased) as error:
            log.warning("batch %s: a chunk of %s was rolled back: %s", batch_id, chunk.requests, type(error).__name__)
            raise ChunkRefused(chunk) from None  # the error's text may quote a person
        _record(connection, chunk, started_at=started_at, **done)
    return True


def _claim(connection: Connection, batch_id: int) -> Row | None:
    """The next waiting chunk, ours until the transaction ends; None when there is none or the batch stands still."""
    next_chunk = (
        select(Chunk.__table__, Batch.state.label("batch_state"))
        .join(Batch, Batch.id == Chunk.batch_id)
        .where(Chunk.batch_id == batch_id, Chunk.state == ChunkState.WAITING)
        .where(Batch.state.in_([State.RUNNING, State.CANCELLING]))
        .order_by(Chunk.first_customer_id)
        .limit(1)
        .with_for_update(of=Chunk, skip_locked=True)
    )
    return connection.execute(next_chunk).one_or_none()


def _purge(connection: Connection, chunk: Row) -> dict:
    """Erase the customers whose id and address still agree."""
    fingerprint = fingerprinter()
    requests = connection.execute(
        select(PurgeRequest.row_number, PurgeRequest.customer_id, PurgeRequest.fingerprint).where(_pending(chunk))
    ).all()
    ids = [request.customer_id for request in requests]
    there = select(Customer.id, Customer.email_key).where(among(Customer.id, ids, connection)).with_for_update()
    keys = dict(connection.execute(there).all())
    gone = [request for request in requests if request.customer_id not in keys]
    changed = [
        request
        for request in requests
        if request.customer_id in keys and fingerprint(keys[request.customer_id]) != request.fingerprint
    ]
    spared = {request.customer_id for request in (*gone, *changed)}
    going = [id for id in ids if id not in spared]
    with search_index.erasing():
        erased = erase(connection, read_map(db.metadata), going) if going else {}
    _end(connection, chunk, Outcome.ALREADY_PURGED, Reason.GONE, gone)
    _end(connection, chunk, Outcome.CHANGED, Reason.ADDRESS_CHANGED, changed)
    _end(connection, chunk, Outcome.PURGED)
    purged = select(PurgeRequest.fingerprint, PurgeRequest.batch_id)
    enter(connection, purged.where(*_requests(chunk), PurgeRequest.outcome == Outcome.PURGED))
    outcomes = {Outcome.PURGED: len(going), Outcome.ALREADY_PURGED: len(gone), Outcome.CHANGED: len(changed)}
    return {"outcomes": outcomes, "erased": erased}


def _cancel(connection: Connection, chunk: Row) -> dict:
    _end(connection, chunk, Outcome.CANCELLED)
    return {"outcomes": {Outcome.CANCELLED: chunk.requests}}


def _end(
    connection: Connection,
    chunk: Row,
    outcome: Outcome,
    reason: Reason | None = None,
    requests: list[Row] | None = None,
) -> None:
    """Give these pending requests of the chunk their outcome; without a list, all that are still pending."""
    if requests == []:
        return
    pending = _pending(chunk)
    if requests is not None:
        pending &= among(PurgeRequest.row_number, [request.row_number for request in requests], connection)
    connection.execute(update(PurgeRequest.__table__).where(pending).values(outcome=outcome, reason=reason))


def _record(connection: Connection, chunk: Row, *, outcomes: dict, started_at, erased: dict | None = None) -> None:
    done = {"state": ChunkState.DONE, "started_at": started_at, "finished_at": now(), "erased": erased, **outcomes}
    connection.execute(update(Chunk).where(Chunk.id == chunk.id, Chunk.state == ChunkState.WAITING).values(done))


def _halve(chunk: Row) -> None:
    """Cut a refused chunk in two, so that in the end the one bad request stands alone; alone, it fails."""
    started_at = now()
    with db.engine.begin() as connection:
        still = select(Chunk.id).where(Chunk.id == chunk.id, Chunk.state == ChunkState.WAITING).with_for_update()
        if connection.execute(still).one_or_none() is None:
            return
        if chunk.requests == 1:
            _end(connection, chunk, Outcome.FAILED, Reason.DATABASE_REFUSED)
            return _record(connection, chunk, started_at=started_at, outcomes={Outcome.FAILED: 1})
        ids = connection.scalars(
            select(PurgeRequest.customer_id).where(_pending(chunk)).order_by(PurgeRequest.customer_id)
        ).all()
        half = len(ids) // 2
        this = update(Chunk).where(Chunk.id == chunk.id)
        connection.execute(this.values(last_customer_id=ids[half - 1], requests=half))
        rest = {"first_customer_id": ids[half], "last_customer_id": ids[-1], "requests": len(ids) - half}
        connection.execute(insert(Chunk).values(batch_id=chunk.batch_id, state=ChunkState.WAITING, **rest))


def _finish(batch_id: int) -> None:
    """The batch has ended when no chunk waits, here or in another worker's hands."""
    waiting = exists().where(Chunk.batch_id == batch_id, Chunk.state == ChunkState.WAITING)
    open_states = Batch.state.in_([State.RUNNING, State.PAUSED, State.CANCELLING])
    with db.engine.begin() as connection:
        ended = update(Batch).where(Batch.id == batch_id, open_states, ~waiting)
        connection.execute(ended.values(state=State.FINISHED, finished_at=now()))


def _pending(chunk: Row) -> ColumnElement[bool]:
    return and_(*_requests(chunk), PurgeRequest.outcome.is_(None))


def _requests(chunk: Row) -> tuple[ColumnElement[bool], ...]:
    ids = PurgeRequest.customer_id.between(chunk.first_customer_id, chunk.last_customer_id)
    return PurgeRequest.batch_id == chunk.batch_id, ids
