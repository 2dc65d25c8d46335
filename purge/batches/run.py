"""The run: chunk by chunk, claim > erase > verify > record > audit, each in one transaction."""

import logging
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import aliased

from purge import email_address
from purge.batches.model import Batch, Chunk, ChunkState, Door, Outcome, PurgeRequest, Reason, State
from purge.batches.receipt import log_end, tell_end
from purge.customers import search_index
from purge.erasure.engine import NotErased, among, erase
from purge.erasure.map import read_map
from purge.evidence import audit, ledger
from purge.evidence.audit import Act
from purge.evidence.ledger import enter, fingerprinter
from purge.extensions import db, giving_way, now, reading
from purge.models import Customer

log = logging.getLogger(__name__)


CHUNK_SECONDS = 1.0
# SQLite has one writer: there a purge of one customer waits for two chunks, to be written down and to be carried out.
ONE_WRITERS_CHUNK_SECONDS = 0.3
FIRST_SIZE = 1_000  # until it is known what they take
STATEMENT_SECONDS = 60
MOST_RETRIES = 5
GROWTH = 2
A_DAY = timedelta(days=1)  # by which no two clocks differ

# What PostgreSQL calls a transaction that another one got in the way of.
GOT_IN_THE_WAY = ("40001", "40P01")
# What a chunk may be spared when it is smaller, and nobody is failed for: a statement, a lock, and a transaction that took too long,
# temporary files that grew too large, and a page that is broken.
TOO_MUCH = ("57014", "55P03", "25P04", "53400", "XX001", "XX002")
# What it calls, by the first two characters, trouble of its own, or a database that is not as the app needs it. Anything else is about
# the rows: a trigger that refuses one may raise whatever its author has thought of.
TROUBLE = (
    *("08", "0A", "0B", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42", "53"),
    *("54", "55", "57", "58", "72", "F0", "HV", "XX"),
)


class Ran(NamedTuple):
    """How many requests a chunk had, and the seconds they took, committed."""

    requests: int
    seconds: float


class ChunkRefused(Exception):
    """The database would not have this chunk; all of it was rolled back."""

    def __init__(self, chunk: Row):
        self.chunk = chunk


def run(batch_id: int, keep_going: Callable[[], bool] = lambda: True) -> bool:
    """Carry out the batch's waiting chunks until none is left to us, or we are told to stop: then True.

    The transaction is the claim: whoever dies in the middle has done nothing, and the chunk waits as before.
    """
    with reading(), db.engine.connect() as connection:
        is_single = connection.scalar(select(Batch.door).where(Batch.id == batch_id)) is Door.FORM
        most, retries = _fitting(_last_done(connection, batch_id)), 0
    while keep_going():
        try:
            with nullcontext() if is_single else giving_way(db.engine):
                last = _run_next_chunk(batch_id, most)
            if last is None:
                _finish(batch_id)
                return False
            most, retries = _fitting(last), 0
        except ChunkRefused as refused:
            _halve(refused.chunk)
        except OperationalError as error:
            retries += 1
            if _sqlstate(error) not in GOT_IN_THE_WAY or retries > MOST_RETRIES:
                raise  # the database is in trouble, not this chunk: it waits for its next turn
            time.sleep(random.uniform(0, 0.1 * 2**retries))
    return True


def _run_next_chunk(batch_id: int, most: int) -> Ran | None:
    """What it took; None when no chunk is left to us."""
    is_theirs, chunk = False, None  # whether what breaks is about the chunk's rows
    try:
        with db.engine.begin() as connection:
            chunk = _claim(connection, batch_id, most)
            if chunk is None:
                return None
            is_theirs, started_at = True, now()
            done = _cancel(connection, chunk) if chunk.batch_state is State.CANCELLING else _purge(connection, chunk)
            is_theirs = False
            _record(connection, chunk, started_at=started_at, **done)
            is_theirs = True  # the commit looks at what was put off until then
    except (DBAPIError, NotErased) as error:
        if not (is_theirs and _is_refusal(error, chunk)):
            raise
        log.warning("batch %s: a chunk of %s was rolled back: %s", batch_id, chunk.requests, _told(error))
        raise ChunkRefused(chunk) from None  # the error's text may quote a person
    return Ran(chunk.requests, (now() - started_at).total_seconds())


def _is_refusal(error: DBAPIError | NotErased, chunk: Row) -> bool:
    """Whether it is about these rows; if not, the database is in trouble or not as we need it, and the chunk waits.

    Alone, somebody takes as long as it takes, and waits for whoever holds them.
    """
    if isinstance(error, NotErased | IntegrityError | DataError):
        return True
    state = _sqlstate(error)
    if state in TOO_MUCH:
        return chunk.requests > 1
    return state is not None and not (error.connection_invalidated or state.startswith(TROUBLE))


def _told(error: DBAPIError | NotErased) -> str:
    """Its kind and what of the schema it is about, without what stands in the rows."""
    about = getattr(getattr(error, "orig", None), "diag", None)
    names = about and (about.constraint_name or about.table_name)
    return f"{type(error).__name__} ({names})" if names else type(error).__name__


def _last_done(connection: Connection, batch_id: int) -> Ran | None:
    """The batch's last chunk, whoever carried it out."""
    done = Chunk.batch_id == batch_id, Chunk.state == ChunkState.DONE, Chunk.started_at.is_not(None)
    latest = select(Chunk.__table__).where(*done).order_by(Chunk.finished_at.desc()).limit(1)
    chunk = connection.execute(latest).first()
    return chunk and Ran(chunk.requests, (chunk.finished_at - chunk.started_at).total_seconds())


def _fitting(last: Ran | None) -> int:
    """How many customers fit into a chunk's seconds, by what the last ones took: one may have a hundred thousand rows."""
    if last is None:
        return FIRST_SIZE
    wanted = ONE_WRITERS_CHUNK_SECONDS if db.engine.dialect.name == "sqlite" else CHUNK_SECONDS
    return max(1, int(last.requests * min(GROWTH, wanted / max(last.seconds, 1e-6))))


def _claim(connection: Connection, batch_id: int, most: int) -> Row | None:
    """A waiting chunk, or the first `most` of its requests, ours until the transaction ends; None when there is
    none or the batch stands still."""
    columns = Chunk.__table__, Batch.state.label("batch_state"), Batch.door, Batch.created_at
    with_state = select(*columns).join(Batch, Batch.id == Chunk.batch_id)
    waiting = (
        with_state.where(Chunk.batch_id == batch_id, Chunk.state == ChunkState.WAITING)
        .where(Batch.state.in_([State.RUNNING, State.CANCELLING]))
        # What was halved is tried before another whole chunk is, or each would be too large anew; who stands alone may be held by
        # somebody, and comes last. By chance, because neighbours often share referrals, and two workers at them would wait.
        .order_by(Chunk.requests == 1, Chunk.requests, func.random())
        .limit(1)
        .with_for_update(of=Chunk, skip_locked=True)
    )
    chunk = connection.execute(waiting).one_or_none()
    if chunk and chunk.requests >= most * GROWTH:  # a small rest would cost more than it frees
        _split(connection, chunk, most)
        chunk = connection.execute(with_state.where(Chunk.id == chunk.id)).one()
    if chunk and chunk.requests > 1 and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
    return chunk


def _purge(connection: Connection, chunk: Row) -> dict:
    """Erase the customers whose id and address still agree, and whose address is still nobody else's."""
    fingerprint = fingerprinter()
    requests = connection.execute(
        select(PurgeRequest.row_number, PurgeRequest.customer_id, PurgeRequest.fingerprint).where(_pending(chunk))
    ).all()
    there = _there(connection, [request.customer_id for request in requests])
    gone, changed, shared, going = [], [], [], []
    for request in requests:
        customer = there.get(request.customer_id)
        if customer is None:
            gone.append(request)
        elif fingerprint(customer.email_key) != request.fingerprint or not (
            chunk.door is Door.FORM or _is_key_of(customer)  # on the profile somebody saw who it is
        ):
            changed.append(request)
        elif customer.is_shared and not chunk.door.means_one:
            shared.append(request)
        else:
            going.append(request)
    ids = [request.customer_id for request in going]
    with search_index.erasing(connection):
        erased = erase(connection, read_map(db.metadata), ids) if ids else {}
    if ids and search_index.has(connection, ids):  # whose triggers somebody has turned off
        raise NotErased("an entry of the search index is left")
    elsewhere = _purged_elsewhere(connection, chunk, gone)
    purged = [one for one in gone if one.customer_id in elsewhere]
    missing = [one for one in gone if one.customer_id not in elsewhere]
    _end(connection, chunk, Outcome.ALREADY_PURGED, Reason.GONE, purged)
    _end(connection, chunk, Outcome.NOT_FOUND, Reason.DELETED_ELSEWHERE, missing)
    _end(connection, chunk, Outcome.CHANGED, Reason.ADDRESS_CHANGED, changed)
    _end(connection, chunk, Outcome.HELD, Reason.SHARED_ADDRESS, shared)
    _end(connection, chunk, Outcome.PURGED)
    done, moment = select(PurgeRequest.fingerprint, PurgeRequest.batch_id), now()
    enter(connection, done.where(*_requests(chunk), PurgeRequest.outcome == Outcome.PURGED), moment)
    entered = ledger.digest((request.fingerprint, chunk.batch_id, moment) for request in going)
    spared = {
        Outcome.ALREADY_PURGED: purged,
        Outcome.NOT_FOUND: missing,
        Outcome.CHANGED: changed,
        Outcome.HELD: shared,
    }
    outcomes = {outcome: len(requests) for outcome, requests in spared.items()}
    return {"outcomes": {Outcome.PURGED: len(going), **outcomes}, "erased": erased, "entered": entered}


def _purged_elsewhere(connection: Connection, chunk: Row, gone: list[Row]) -> set[int]:
    """Of those who are there no more, whom another batch has purged since this one came in; somebody else deleted the others."""
    lately = or_(Batch.finished_at.is_(None), Batch.finished_at > chunk.created_at - A_DAY)
    theirs = among(PurgeRequest.customer_id, [one.customer_id for one in gone], connection)
    asked = select(PurgeRequest.customer_id).where(PurgeRequest.batch_id.in_(select(Batch.id).where(lately)), theirs)
    return set(connection.scalars(asked.where(PurgeRequest.outcome == Outcome.PURGED))) if gone else set()


def _is_key_of(customer: Row) -> bool:
    """Whether the address that everybody sees is the one by which they were found; what is no address has any other form."""
    # Nearly always, and at a fraction of the time.
    if customer.email.isascii() and customer.email.lower() == customer.email_key:
        return True
    key, _ = email_address.read(customer.email)
    return key == customer.email_key if key else email_address.read(customer.email_key)[1] is not None


def _there(connection: Connection, ids: list[int]) -> dict[int, Row]:
    """Those of these customers who are still there, locked; each with whether another has their address by now."""
    other = aliased(Customer)
    is_shared = exists().where(other.email_key == Customer.email_key, other.id != Customer.id).label("is_shared")
    asked = select(Customer.id, Customer.email, Customer.email_key, is_shared).where(
        among(Customer.id, ids, connection)
    )
    locked = asked.order_by(Customer.id).with_for_update()  # in order: no deadlock
    return {customer.id: customer for customer in connection.execute(locked).all()}  # one by one takes longer


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


def _record(
    connection: Connection,
    chunk: Row,
    *,
    outcomes: dict[Outcome, int],
    started_at: datetime,
    erased: dict[str, int] | None = None,
    entered: int = 0,
) -> None:
    """The chunk is done, and the audit trail says what came of it: no event, no deletion."""
    done = {"state": ChunkState.DONE, "started_at": started_at, "finished_at": now(), "erased": erased, **outcomes}
    this = Chunk.id == chunk.id, Chunk.state == ChunkState.WAITING
    assert connection.execute(update(Chunk).where(*this).values(done)).rowcount == 1  # we hold it
    came_of_it = {outcome: rows for outcome, rows in outcomes.items() if rows}
    told = {"outcomes": came_of_it, "erased": erased or {}, "ledger": ledger.as_text(entered)}
    audit.append(connection, Act.CHUNK, batch_id=chunk.batch_id, **told)


def _sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's name for what went wrong; None on SQLite, and where the connection is gone."""
    return getattr(error.orig, "sqlstate", None)


def _halve(chunk: Row) -> None:
    """Cut a refused chunk in two, so that in the end the one bad request stands alone; alone, it fails.

    Meanwhile another worker may have cut it; and what was tried may have been a part that was cut off and rolled back.
    """
    started_at, tried = now(), chunk.requests
    with db.engine.begin() as connection:
        still = select(Chunk.__table__).where(Chunk.id == chunk.id, Chunk.state == ChunkState.WAITING)
        chunk = connection.execute(still.with_for_update()).one_or_none()
        if chunk is None:
            return
        if chunk.requests > 1:
            _split(connection, chunk, max(1, min(tried, chunk.requests) // 2))
        elif tried == 1:
            _end(connection, chunk, Outcome.FAILED, Reason.DATABASE_REFUSED)
            _record(connection, chunk, started_at=started_at, outcomes={Outcome.FAILED: 1})


def _split(connection: Connection, chunk: Row, first: int) -> None:
    """Leave the chunk its first so many requests; a new one waits with the rest."""
    ordered = select(PurgeRequest.customer_id).where(_pending(chunk)).order_by(PurgeRequest.customer_id)
    last, following = connection.scalars(ordered.offset(first - 1).limit(2)).all()
    this = update(Chunk).where(Chunk.id == chunk.id)
    connection.execute(this.values(last_customer_id=last, requests=first))
    rest = {"first_customer_id": following, "last_customer_id": chunk.last_customer_id}
    rest["requests"] = chunk.requests - first
    connection.execute(insert(Chunk).values(batch_id=chunk.batch_id, state=ChunkState.WAITING, **rest))


def _finish(batch_id: int) -> None:
    """The batch has ended when no chunk waits, here or in another worker's hands."""
    waiting = exists().where(Chunk.batch_id == batch_id, Chunk.state == ChunkState.WAITING)
    open_states = Batch.state.in_([State.RUNNING, State.PAUSED, State.CANCELLING])
    with db.engine.begin() as connection:
        ended = update(Batch).where(Batch.id == batch_id, open_states, ~waiting)
        has_ended = connection.execute(ended.values(state=State.FINISHED, finished_at=now())).rowcount
        end = tell_end(connection, batch_id) if has_ended else None
    log_end(end)


def _pending(chunk: Row) -> ColumnElement[bool]:
    return and_(*_requests(chunk), PurgeRequest.outcome.is_(None))


def _requests(chunk: Row) -> tuple[ColumnElement[bool], ...]:
    ids = PurgeRequest.customer_id.between(chunk.first_customer_id, chunk.last_customer_id)
    return PurgeRequest.batch_id == chunk.batch_id, ids
