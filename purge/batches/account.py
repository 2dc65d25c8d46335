"""What came of a batch: its progress, its outcomes, its results, counted and not remembered."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, cast, exists, func, literal, select

from purge import email_address
from purge.batches.model import Batch, Chunk, ChunkState, Door, Outcome, PurgeRequest, Reason, State
from purge.erasure.map import Action, read_map
from purge.evidence.ledger import LedgerEntry
from purge.extensions import db, now

RATE_CHUNKS = 10
RATE_SECONDS = 60
STILL = timedelta(seconds=30)
RESULTS_BLOCK, RESULTS_ROWS = 65_536, 5_000  # characters; at a time
_SUMS = [cast(func.sum(getattr(Chunk, outcome)), BigInteger) for outcome in Outcome]  # PostgreSQL would say a decimal
_WAITS = exists().where(Chunk.batch_id == Batch.id, Chunk.state == ChunkState.WAITING)
_REASONS = {reason.value: reason for reason in (*Reason, *email_address.Problem)}


@dataclass(frozen=True)
class Progress:
    """How far a batch is; `rate` in rows a second and `seconds_left` are None while nobody can know them."""

    rows: int
    done: int
    outcomes: dict[Outcome, int]
    rate: float | None
    moved_at: datetime

    @property
    def left(self) -> int:
        return self.rows - self.done

    @property
    def stands_still(self) -> bool:
        """For so long that somebody who looks on should know."""
        return now() - self.moved_at > STILL

    @property
    def seconds_left(self) -> float | None:
        return self.left / self.rate if self.rate else None


@dataclass(frozen=True)
class Fall:
    """Rows that fall with the customers, and what becomes of them, in words."""

    rows: int
    words: str
    stays: bool
    is_replaced: bool = False  # a value in rows that stay


def progress(batch: Batch) -> Progress:
    """A fixed number of queries, whatever the size; while the check runs, what it has read."""
    if batch.state in (State.UPLOADED, State.CHECKING):
        return Progress(batch.rows, batch.checked_rows, {}, None, batch.moved_at)
    counted = outcomes([batch.id])[batch.id]
    last = db.session.scalar(select(func.max(Chunk.finished_at)).where(Chunk.batch_id == batch.id))
    rate = _rate(batch) if batch.state in (State.RUNNING, State.CANCELLING) else None
    return Progress(batch.rows, sum(counted.values()), counted, rate, max(last or batch.moved_at, batch.moved_at))


def outcomes(batch_ids: list[int]) -> dict[int, dict[Outcome, int]]:
    """Rows by outcome for each of these batches, in one query."""
    counted = dict.fromkeys(batch_ids, dict.fromkeys(Outcome, 0))
    asked = select(Chunk.batch_id, *_SUMS).where(Chunk.batch_id.in_(batch_ids)).group_by(Chunk.batch_id)
    for batch_id, *rows in db.session.execute(asked):
        counted[batch_id] = dict(zip(Outcome, rows, strict=True))
    return counted


def total_outcomes() -> dict[Outcome, int]:
    """Rows by outcome, of all batches together, from the chunks' own totals."""
    return {outcome: rows or 0 for outcome, rows in zip(Outcome, db.session.execute(select(*_SUMS)).one(), strict=True)}


def unrecorded() -> int | None:
    """The first batch that has purged more or fewer than the ledger says of it; a chunk writes both or neither."""
    purged = select(Chunk.batch_id, Chunk.purged.label("people")).where(Chunk.purged > 0)
    both = purged.union_all(select(LedgerEntry.batch_id, literal(-1))).subquery()
    asked = select(both.c.batch_id).group_by(both.c.batch_id).having(func.sum(both.c.people) != 0)
    return db.session.scalar(asked.order_by(both.c.batch_id).limit(1))


def last_moved() -> tuple[int, timedelta] | None:
    """The batch with the latest sign of life, and how long ago that was; None when none is checked or has waiting chunks.

    Where both files and single customers have work, of those who are silent for longer: each have workers of their own.
    """
    moved = filter(None, (_last_moved(Batch.door == Door.FORM), _last_moved(Batch.door != Door.FORM)))
    last = min(moved, key=lambda one: one[1], default=None)
    return last and (last[0], now() - last[1])


def _last_moved(of_these: ColumnElement[bool]) -> tuple[int, datetime] | None:
    last = select(func.max(Chunk.finished_at)).where(Chunk.batch_id == Batch.id).scalar_subquery()
    running = Batch.state.in_([State.RUNNING, State.CANCELLING]) & _WAITS
    at_work = select(Batch.id, Batch.moved_at, last).where(of_these, (Batch.state == State.CHECKING) | running)
    moved = {id: max(filter(None, signs)) for id, *signs in db.session.execute(at_work)}
    if not moved:
        return None
    ended = select(Batch.id, Batch.finished_at).where(of_these, Batch.state == State.FINISHED)
    # Only when it ends others have their turn.
    moved |= {id: at for id, at in db.session.execute(ended.order_by(Batch.finished_at.desc()).limit(1))}
    return max(moved.items(), key=lambda one: one[1])


def oldest_pending() -> tuple[int, timedelta] | None:
    """Of the running batches with waiting chunks, the one confirmed first, and how long ago."""
    running = select(Batch.id, Batch.confirmed_at).where(Batch.state == State.RUNNING, _WAITS)
    first = db.session.execute(running.order_by(Batch.confirmed_at).limit(1)).first()
    return first and (first.id, now() - first.confirmed_at)


def waiting_chunks(batch: Batch) -> int:
    """Chunks nobody has finished."""
    waiting = Chunk.batch_id == batch.id, Chunk.state == ChunkState.WAITING
    return db.session.scalar(select(func.count()).select_from(Chunk).where(*waiting))


def what_falls(batch: Batch) -> list[Fall]:
    """What the review announces beside the customers themselves."""
    return in_words(batch.falls or {})


def what_fell(batch: Batch) -> list[Fall]:
    """What the finished chunks erased beside the customers, and the customers themselves."""
    fell = Counter()
    for erased in db.session.scalars(select(Chunk.erased).where(Chunk.batch_id == batch.id, Chunk.erased.is_not(None))):
        fell.update(erased or {})
    return in_words(fell)


def results_csv(batch: Batch, pending: str = "pending") -> Iterator[str]:
    """An answer for every row of the file; nothing in it comes from the file, so a spreadsheet runs nothing."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["Row", "Outcome", "Reason"])
    for number, outcome, reason in results(batch):
        writer.writerow([number, outcome.words if outcome else pending, reason])
        if text.tell() > RESULTS_BLOCK:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def results(batch: Batch) -> Iterator[tuple[int, Outcome | None, str]]:
    """Every row of the file: its number, its outcome (None: pending) and the reason in words. Ends the session's transaction."""
    rows = select(PurgeRequest.row_number, PurgeRequest.outcome, PurgeRequest.reason)
    asked = rows.where(PurgeRequest.batch_id == batch.id).order_by(PurgeRequest.row_number).limit(RESULTS_ROWS)
    last = 0
    while some := db.session.execute(asked.where(PurgeRequest.row_number > last)).all():
        db.session.rollback()  # while somebody downloads slowly, SQLite's log could not be emptied
        for last, outcome, reason in some:
            yield last, outcome, reason_words(reason)


def failures(batch: Batch) -> dict[Outcome, dict[str, int]]:
    """Rows that led to no deletion: by outcome, then by reason in words, the most first; of a discarded batch without reasons."""
    asked = (
        select(PurgeRequest.outcome, PurgeRequest.reason, func.count())
        .where(PurgeRequest.batch_id == batch.id, PurgeRequest.outcome != Outcome.PURGED)
        .group_by(PurgeRequest.outcome, PurgeRequest.reason)
        .order_by(func.count().desc())
    )
    found: dict[Outcome, dict[str, int]] = {}
    for outcome, reason, rows in db.session.execute(asked):
        found.setdefault(outcome, {})[reason_words(reason)] = rows
    if batch.state is State.DISCARDED:  # its rows are gone
        found = {outcome: {"": rows} for outcome, rows in outcomes([batch.id])[batch.id].items() if rows}
    return dict(sorted(found.items(), key=lambda one: -sum(one[1].values())))


def reason_words(reason: str | None) -> str:
    """A stored reason as a person reads it."""
    return "" if reason is None else _REASONS[reason].words


def _rate(batch: Batch) -> float | None:
    """Since it was confirmed or resumed: a pause is no slowness."""
    since = Chunk.batch_id == batch.id, Chunk.started_at >= batch.moved_at
    latest = (
        select(Chunk.started_at, Chunk.finished_at, Chunk.requests)
        .where(Chunk.state == ChunkState.DONE, *since)
        .order_by(Chunk.finished_at.desc())
        .limit(RATE_CHUNKS)
    )
    chunks = [
        chunk for chunk in db.session.execute(latest) if (now() - chunk.started_at).total_seconds() < RATE_SECONDS
    ]
    if not chunks:
        return None
    seconds = (now() - min(chunk.started_at for chunk in chunks)).total_seconds()
    return sum(chunk.requests for chunk in chunks) / seconds if seconds > 0 else None


def in_words(rows: dict[str, int]) -> list[Fall]:
    """What stays first, the most rows first."""
    told = []
    for part in read_map(db.metadata).tables:
        name, stays = part.table.name, part.rule.action is Action.ANONYMISE
        told.append((rows.get(name, 0), part.rule.told, stays, False))
        for column in part.replaced:
            told.append((rows.get(str(column), 0), column.info["erasure"].told, stays, True))
    falls = [Fall(number, words[number != 1], *kind) for number, words, *kind in told if number and words]
    return sorted(falls, key=lambda fall: (not fall.stays, -fall.rows))
