"""The check: every row of the file gets an outcome or a customer's frozen id; then the file is destroyed."""

import json
import logging
import time
import uuid
from array import array
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any

from flask import current_app
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, ProgrammingError

from purge.batches import upload
from purge.batches.block import Block, Incomplete
from purge.batches.duplicates import Seen, numbered, one_address, one_customer
from purge.batches.model import Batch, Chunk, ChunkState, Outcome, PurgeRequest, State
from purge.batches.receipt import log_end, tell_end
from purge.erasure import engine as erasure
from purge.erasure.map import read_map
from purge.evidence import audit
from purge.evidence.audit import Act, AuditEvent
from purge.extensions import alone, db, giving_way, now, reading
from purge.intake import customer_csv
from purge.models import Customer
from purge.pace import at_once

log = logging.getLogger(__name__)

# In a large block more rows fall on each of SQLite's pages, which is written once for all of them; but its one writer is
# busy with a block for a tenth of a second or two. Of a small file a quarter, so that it is read and written at once as well.
BLOCK_ROWS, LEAST_BLOCK_ROWS = 20_000, 2_500
WRITERS = {"sqlite": 1, "postgresql": 2}
QUESTIONS, FROM_ROWS = 2, 2_000  # at a time; for fewer rows two threads would be more work than the questions
TELL_SECONDS, LOCK_NOT_AVAILABLE = 60, "55P03"
FEW_ROWS = 200  # may be read again and again; to tell PostgreSQL of them takes longer
COUNTED = 100_000  # customers, however few rows the file has
MOST_ATTEMPTS = 5
SIGN_SECONDS = 10  # between two signs of life, where nothing is written
LOCKS = 64  # on SQLite each is a file; two batches that share one are checked one after the other


class Stopped(Exception):
    """We were told to stop."""


class Overtaken(Exception):
    """Somebody discarded the batch; or our lock was lost with its connection, and another check has begun."""


def check(batch_id: int, keep_going: Callable[[], bool] = lambda: True) -> None:
    """Check a batch from its first row, whatever an earlier attempt left; told to stop, it leaves the batch to the next one.

    An attempt counts that ends without a word, as one does that takes too much memory. That the database is in trouble is no
    fault of the file's.
    """
    place = batch_id % LOCKS if db.engine.dialect.name == "sqlite" else batch_id
    with alone(db.engine, f"check-{place}") as is_alone:
        if not is_alone:  # a bell rung twice; and if not that, it will be rung again
            return
        token = uuid.uuid4().hex
        batch = _begin(batch_id, token)
        try:
            if batch and (seen := _stage(batch, token, keep_going)):
                for alike in seen.alike():
                    _mark_duplicates(batch_id, token, one_address(batch_id, alike))
                sign = _SignOfLife(batch_id, token)
                _tell_of_new_rows(batch.rows)
                sign.give()
                _mark_duplicates(batch_id, token, one_customer(batch_id))
                _plan(batch, token, sign)
        except Overtaken:
            return
        except (OperationalError, ProgrammingError, InternalError):
            with suppress(DBAPIError, Overtaken):  # away altogether; then it does count
                _leave(batch, token, moved_at=batch.moved_at)  # nor is it progress
            raise


def _leave(batch: Row, token: str, **values) -> None:
    """To the next check, as if this one had not been begun."""
    with db.engine.begin() as connection:
        _move(connection, batch.id, token, check_attempts=batch.check_attempts, **values)


def _begin(batch_id: int, token: str) -> Row | None:
    """The batch, ours to check and with nothing staged; None when it waits for no check or was tried too often."""
    waiting = select(Batch.__table__).where(Batch.id == batch_id, Batch.state == State.CHECKING)
    this = update(Batch).where(Batch.id == batch_id)
    with db.engine.begin() as connection:
        batch = connection.execute(waiting.with_for_update()).one_or_none()
        if batch is None:
            return None
        connection.execute(delete(PurgeRequest).where(PurgeRequest.batch_id == batch_id))
        if batch.check_attempts < MOST_ATTEMPTS:
            attempts = batch.check_attempts + 1
            connection.execute(this.values(check_token=token, check_attempts=attempts, checked_rows=0, moved_at=now()))
            return batch
        upload.destroy(connection, batch_id)
        sentence = "The check of this file was begun several times and never came to its end, so nothing was deleted."
        connection.execute(this.values(state=State.REFUSED, refusal=sentence, finished_at=now()))
        audit.append(connection, Act.REFUSED, batch_id=batch_id)
        return None


def _stage(batch: Row, token: str, keep_going: Callable[[], bool]) -> Seen | None:
    """Every row becomes a purge request, a block at a time; None when told to stop."""
    seen, size = Seen(), min(BLOCK_ROWS, max(LEAST_BLOCK_ROWS, batch.rows // 4))

    def blocks() -> Iterator[Block]:
        rows = customer_csv.read_rows(file, batch.encoding, batch.delimiter)
        while (block := Block.read(islice(rows, size), batch)).rows:
            if not keep_going():
                raise Stopped
            seen.add(block)
            yield block

    with upload.open_upload(batch, _scalar) as file:
        try:
            at_once(partial(_write, batch.id, token), blocks(), WRITERS[db.engine.dialect.name])
        except Stopped:
            _leave(batch, token)
            return None
        except upload.Lost:
            with db.engine.begin() as connection:  # who discards the batch destroys its file
                _move(connection, batch.id, token)
            raise
    return seen


def _write(batch_id: int, token: str, block: Block) -> None:
    # Until we end no other check begins, whose rows ours would meet; and the other writer of ours may move the batch on.
    still_ours = select(Batch.id).where(*_ours(batch_id, token)).with_for_update(read=True, key_share=True)
    with giving_way(db.engine), db.engine.begin() as connection:
        if not connection.scalar(still_ours):
            raise Overtaken
        block.request(connection, batch_id)
        # Last, because the other writer waits for it.
        _move(connection, batch_id, token, checked_rows=Batch.checked_rows + block.rows)


def _tell_of_new_rows(rows: int) -> None:
    """PostgreSQL would take them for few and read them all again and again, which lasted minutes. And until it knows that
    everybody may see them, each question about many looks every row up: three quarters of its time."""
    if db.engine.dialect.name == "postgresql" and rows > FEW_ROWS:
        # VACUUM may find what earlier batches left, in the indexes too. To give pages back to the disk, it would have to
        # keep everybody from the table.
        tell = "VACUUM (ANALYZE, TRUNCATE OFF)" if rows > BLOCK_ROWS else "ANALYZE"
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Another check may be telling it just now; but somebody's VACUUM or REINDEX has the table for hours.
            usual = connection.exec_driver_sql("SHOW lock_timeout").scalar()
            connection.exec_driver_sql(f"SET lock_timeout = '{TELL_SECONDS}s'")
            try:
                connection.exec_driver_sql(f"{tell} purge_request (batch_id, customer_id, outcome)")
            except DBAPIError as error:
                if error.orig.sqlstate != LOCK_NOT_AVAILABLE:
                    connection.invalidate()  # nobody else gets it with our setting
                    raise
                log.warning("somebody has the table of purge requests; a check goes on without statistics of its rows")
            connection.exec_driver_sql(f"SET lock_timeout = '{usual}'")


def _scalar(wanted: Select) -> bytes | None:
    return _ask(lambda connection: connection.scalar(wanted))


def _mark_duplicates(batch_id: int, token: str, repeated: Select) -> None:
    rows = PurgeRequest.__table__
    a_few_at_a_time = {"yield_per": BLOCK_ROWS}
    # Half of ten million rows may be repeated: their numbers as rows and a list took 150 bytes each, in an array they take 8.
    numbers = _ask(lambda connection: array("q", connection.scalars(repeated, execution_options=a_few_at_a_time)))
    for start in range(0, len(numbers), BLOCK_ROWS):
        with db.engine.begin() as connection:
            _move(connection, batch_id, token)
            some = numbers[start : start + BLOCK_ROWS].tolist()
            duplicate = {"outcome": Outcome.DUPLICATE, "customer_id": None, "reason": None}
            connection.execute(update(rows).where(rows.c.batch_id == batch_id, numbered(some)).values(duplicate))


class _SignOfLife:
    """Given now and then, however often: to tell PostgreSQL of ten million rows, or to count what falls with them, takes minutes."""

    def __init__(self, batch_id: int, token: str):
        self.place, self.given = (batch_id, token), time.monotonic()

    def give(self) -> None:
        if time.monotonic() - self.given > SIGN_SECONDS:
            # That somebody holds the batch is no reason to begin anew.
            with suppress(OperationalError), db.engine.begin() as connection:
                _move(connection, *self.place)
            self.given = time.monotonic()


def _plan(batch: Row, token: str, sign: _SignOfLife) -> None:
    def answer(question: Callable[[Connection], Any]) -> Any:
        answered = _ask(question)
        sign.give()
        return answered

    if batch.rows > FROM_ROWS:
        answers = at_once(answer, questions(batch.id, batch.rows), QUESTIONS)
    else:
        answers = _ask(lambda connection: [question(connection) for question in questions(batch.id, batch.rows)])
    with db.engine.begin() as connection:
        end = draw_up(connection, batch.id, batch.rows, token, answers)
    log_end(end)


def questions(batch_id: int, rows: int) -> list[Callable[[Connection], Any]]:
    """What must be known of a batch's requests for its plan."""
    theirs = PurgeRequest.batch_id == batch_id, PurgeRequest.customer_id.is_not(None)
    frozen = select(PurgeRequest.customer_id).where(*theirs)
    return [
        partial(_customers, rows=rows),  # the longest for a small file, so not the last
        partial(_settled, batch_id=batch_id),
        partial(_cut, frozen=frozen),
        *(partial(erasure.count_in, part=part, ids=frozen) for part in read_map(db.metadata).tables),
    ]


def draw_up(connection: Connection, batch_id: int, rows: int, token: str, answers: list) -> AuditEvent | None:
    """Write the plan that the answers to the questions make: the chunks, and what falls with the customers; destroy the file.
    The event, when the batch has ended with it."""
    customers, outcomes, chunks, *falls = answers
    falls = dict(ChainMap(*falls))
    planned = sum(chunk["requests"] for chunk in chunks)
    shown = json.dumps([batch_id, token, planned, customers, outcomes, falls], sort_keys=True)
    ready = {
        "state": State.READY if planned else State.FINISHED,
        "finished_at": None if planned else now(),
        "planned": planned,
        "customers": customers,
        "falls": falls,
        "plan_digest": sha256(shown.encode()).hexdigest(),
    }
    settled = {"batch_id": batch_id, "state": ChunkState.DONE, "requests": sum(outcomes.values()), **outcomes}
    _move(connection, batch_id, token, **ready)
    if connection.scalar(select(Batch.checked_rows).where(Batch.id == batch_id)) != rows:
        raise Incomplete
    upload.destroy(connection, batch_id)
    connection.execute(insert(Chunk).values(settled))
    for chunk in chunks:
        connection.execute(insert(Chunk).values(batch_id=batch_id, state=ChunkState.WAITING, **chunk))
    told = {"outcomes": outcomes, "planned": planned, "plan": ready["plan_digest"]}
    audit.append(connection, Act.CHECKED, batch_id=batch_id, **told)
    return None if planned else tell_end(connection, batch_id)


def _ask(question: Callable[[Connection], Any]) -> Any:
    with reading(), db.engine.connect() as connection:
        # What falls was counted by three processes in twice the time of one.
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
        return question(connection)


def _customers(connection: Connection, rows: int) -> int | None:
    """How many there are; None where they are many and more than twenty times the file's rows: to count them would be a fifth of
    its check."""
    enough = max(COUNTED, 20 * rows)
    # Where no id is that high there cannot be so many, and nobody is counted for nothing.
    may_be = select(func.max(Customer.id)).scalar_subquery() > enough
    if connection.execute(select(Customer.id).where(may_be).offset(enough).limit(1)).first():
        return None
    return connection.scalar(select(func.count()).select_from(Customer))


def _settled(connection: Connection, batch_id: int) -> dict[str, int]:
    """How many rows the check itself settled, by outcome."""
    rows = PurgeRequest.__table__
    counted = select(rows.c.outcome, func.count()).where(rows.c.batch_id == batch_id, rows.c.outcome.is_not(None))
    return {outcome.value: number for outcome, number in connection.execute(counted.group_by(rows.c.outcome))}


def _cut(connection: Connection, frozen: Select) -> list[dict]:
    """Chunks by customer id and not by row, so that a chunk's deletions fall close together on the disk."""
    id, size = frozen.selected_columns[0], current_app.config["CHUNK_SIZE"]
    nth = (func.row_number().over(order_by=id) - 1).label("nth")
    ranked, last = frozen.add_columns(nth).subquery(), frozen.with_only_columns(func.max(id)).scalar_subquery()
    # Its first and its last customer, and not a group of all: SQLite would sort them in memory, some 45 bytes each.
    within = ranked.c.nth % size
    is_end = within.in_([0, size - 1]) | (ranked.c.customer_id == last)
    ends = select(ranked.c.customer_id, within).where(is_end).order_by(ranked.c.nth)
    chunks = []
    for customer_id, before in connection.execute(ends):
        if before == 0:
            chunks.append({"first_customer_id": customer_id})
        chunks[-1] |= {"last_customer_id": customer_id, "requests": before + 1}
    return chunks


def _ours(batch_id: int, token: str) -> tuple[ColumnElement[bool], ...]:
    """The fence: nothing is written once another check has taken this batch over."""
    return Batch.id == batch_id, Batch.state == State.CHECKING, Batch.check_token == token


def _move(connection: Connection, batch_id: int, token: str, **values) -> None:
    """A sign of life, behind the fence."""
    if not connection.execute(
        update(Batch).where(*_ours(batch_id, token)).values({"moved_at": now()} | values)
    ).rowcount:
        raise Overtaken
