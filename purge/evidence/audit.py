"""The audit trail: who did what, and what came of it, each event sealed onto the one before. It names no customer."""

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, Row, Select, String, Text, exists, insert, select
from sqlalchemy import event as happens
from sqlalchemy.orm import Mapped, Session, mapped_column

from purge.erasure.map import keep
from purge.evidence import ledger
from purge.evidence.keys import key_for
from purge.extensions import db, now, one_at_a_time

EVENT = keep("what was done, by whom of those who sign in, and how many; no customer stands in it")
COMMAND_LINE = "the command line"
_TURN = b"audit trail"
_acting: ContextVar[str | None] = ContextVar("acting", default=None)


class Act(StrEnum):
    """What an event tells of."""

    BEGUN = "begun"
    OPENED = "opened"
    MAPPED = "mapped"
    CHECKED = "checked"
    REFUSED = "refused"
    CONFIRMED = "confirmed"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"
    CHUNK = "chunk"
    FINISHED = "finished"
    CONNECTION_ADDED = "connection_added"
    CONNECTION_CHANGED = "connection_changed"
    CONNECTION_PINNED = "connection_pinned"
    CONNECTION_PAUSED = "connection_paused"
    CONNECTION_RESUMED = "connection_resumed"
    CONNECTION_REMOVED = "connection_removed"
    USER_ADDED = "user_added"
    USER_CHANGED = "user_changed"


class AuditEvent(db.Model):
    """One event: `told` is all of it, as the very text that is sealed; `seal` the HMAC-SHA-256 of the seal before and of that."""

    __tablename__ = "audit_event"
    __table_args__ = {"info": EVENT}

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, info=EVENT)  # from 1, without a gap
    act: Mapped[str] = mapped_column(String(20), index=True, info=EVENT)  # an Act, or one of a newer version
    batch_id: Mapped[int | None] = mapped_column(index=True, info=EVENT)
    told: Mapped[str] = mapped_column(Text, info=EVENT)
    seal: Mapped[bytes] = mapped_column(LargeBinary(32), info=EVENT)


_PLACE = AuditEvent.__table__.c.number, AuditEvent.__table__.c.seal


@dataclass(frozen=True)
class Event:
    """An event as it was written; one that was changed has only its number and its seal.

    `by` is the number of an account, or who else it was; None is the app itself. `is_sealed` is None where nobody can say:
    of what was written under another key.
    """

    number: int
    seal: bytes
    is_sealed: bool | None
    act: str | None = None
    at: datetime | None = None
    by: int | str | None = None
    batch_id: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def at_the_command_line():
    """What is done inside is told to have been done there, where it was nobody who is signed in."""
    token = _acting.set(COMMAND_LINE)
    try:
        yield
    finally:
        _acting.reset(token)


def record(act: Act, by: int | None = None, batch_id: int | None = None, **facts) -> None:
    """Add an event with what the session's transaction commits, as the last thing it does; gone with a rollback."""
    session = db.session()
    begun = session.get_transaction()
    if begun is None:
        raise RuntimeError("nothing is being done that the event could tell of")
    of, recorded = session.info.get("audit", (None, []))
    recorded = recorded if of is begun else []
    session.info["audit"] = begun, [*recorded, {"act": act, "by": by, "batch_id": batch_id, **facts}]


@happens.listens_for(db.session, "before_commit")
def _append_recorded(session: Session) -> None:
    of, recorded = session.info.pop("audit", (None, []))
    if recorded and of is session.get_transaction():
        session.flush()  # nothing may wait for anybody after the first of them
        for told in recorded:
            append(session.connection(), **told)


def append(
    connection: Connection, act: Act, by: int | str | None = None, batch_id: int | None = None, **facts
) -> AuditEvent:
    """Add an event, as the last thing a transaction does: until it ends, nobody else adds one. Raises ledger.OtherKey."""
    one_at_a_time(connection, _TURN)
    if ledger.has_other_key(connection):
        raise ledger.OtherKey
    number, before = connection.execute(select(*_PLACE).order_by(_PLACE[0].desc()).limit(1)).first() or (0, b"")
    line = {"act": act, "at": now().isoformat(), "by": by or _acting.get(), "batch_id": batch_id, "facts": facts}
    told = json.dumps({"number": number + 1, **line}, sort_keys=True, separators=(",", ":"))
    row = {"number": number + 1, "act": act, "batch_id": batch_id, "told": told}
    row["seal"] = _seal(key_for("audit trail"), before, told)
    connection.execute(insert(AuditEvent).values(row))
    return AuditEvent(**row)


def begin(connection: Connection, last_batch: int) -> None:
    """The trail begins, or begins anew, with the ledger as it is now, and after this batch; what was changed in it until now
    is accepted, and told."""
    one_at_a_time(connection, _TURN)  # or a chunk that ends meanwhile would be in neither
    told = {"ledger": ledger.as_text(ledger.digest_of_all(connection)), "last_batch": last_batch}
    append(connection, Act.BEGUN, changed=_read_whole(connection)[0], **told)


def begun(connection: Connection) -> Event | None:
    """Where the trail last began under this key."""
    return next(reversed(_beginnings(connection)), None)


def events(*conditions: ColumnElement[bool], most: int) -> list[Event]:
    """So many of them, the newest first."""
    asked = _with_before(*conditions).order_by(AuditEvent.number.desc()).limit(most)
    return list(_read(db.session.connection(), asked))


def of_batch(connection: Connection, batch_id: int) -> Iterator[Event]:
    """Everything that is told of a batch, in order."""
    return _read(connection, _with_before(AuditEvent.batch_id == batch_id).order_by(AuditEvent.number))


def of_act(connection: Connection, act: Act) -> Iterator[Event]:
    """Everything of one kind that is as it was written, in order."""
    found = _read(connection, _with_before(AuditEvent.act == act).order_by(AuditEvent.number))
    return (event for event in found if event.is_sealed)


def tells(connection: Connection, batch_id: int, *acts: Act) -> bool:
    """Whether there is an event of one of these acts."""
    return connection.scalar(select(exists().where(AuditEvent.batch_id == batch_id, AuditEvent.act.in_(acts))))


def last(connection: Connection) -> Row | None:
    """The newest event: whoever keeps its number and seal elsewhere can tell later whether the trail was cut off before it."""
    return connection.execute(select(*_PLACE).order_by(_PLACE[0].desc()).limit(1)).first()


def has(connection: Connection, number: int, seal: bytes) -> bool:
    """Whether the trail still has what `last` once said."""
    this = AuditEvent.number == number, AuditEvent.seal == seal
    return connection.scalar(select(exists().where(*this)))


def flaw(connection: Connection) -> str | None:
    """What somebody changed in the trail or in the ledger, in a sentence; reads both whole.

    Both are read as they were at one moment, so begin a transaction with this.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    changed, newest, entered = _read_whole(connection)
    if newest is None:
        return "There is no beginning of the audit trail under this LEDGER_KEY."
    if since := [number for number in changed if number not in newest.facts["changed"]]:
        return f"Of the audit trail, event {since[0]} is not what was written, or is missing."
    if ledger.as_text(entered) != ledger.as_text(ledger.digest_of_all(connection)):
        return "The ledger is not what the audit trail says was entered."
    return None


def _read_whole(connection: Connection) -> tuple[list[int], Event | None, int]:
    """The numbers of events that are not what was written, or that are missing; where the trail last began under this key; and
    what it says of the ledger since, added up."""
    changed, expected, newest, entered = [], 1, None, 0
    for event in _read(connection, _with_before().order_by(AuditEvent.number)):
        if event.number > expected:
            changed.append(expected)  # and whatever is missing after it
        expected = max(expected, event.number + 1)
        if event.is_sealed is False:
            changed.append(event.number)
        elif event.act == Act.BEGUN:
            newest, entered = event, int(event.facts["ledger"], 16)
        elif event.act == Act.CHUNK:
            entered += int(event.facts["ledger"], 16)
    return changed, newest, entered


def _beginnings(connection: Connection) -> list[Event]:
    """Where the trail began under this key, the first time first."""
    key, asked = key_for("audit trail"), _with_before(AuditEvent.act == Act.BEGUN).order_by(AuditEvent.number)
    return [event for row in connection.execute(asked) if (event := _as_written(key, row))]


def _with_before(*conditions: ColumnElement[bool]) -> Select:
    before = AuditEvent.__table__.alias("before")
    asked = select(AuditEvent.__table__, before.c.seal.label("before"))
    return asked.outerjoin(before, before.c.number == AuditEvent.number - 1).where(*conditions)


def _read(connection: Connection, asked: Select) -> Iterator[Event]:
    key, first = key_for("audit trail"), next(iter(_beginnings(connection)), None)
    for row in connection.execute(asked.execution_options(yield_per=1_000)):
        is_ours = first is not None and (row.number >= first.number or row.number < 1)
        yield _as_written(key, row) or Event(row.number, row.seal, is_sealed=False if is_ours else None)


def _as_written(key: bytes, row: Row) -> Event | None:
    """None when it is not what was written, or does not follow from the one before."""
    if not (isinstance(row.seal, bytes) and isinstance(row.told, str) and isinstance(row.before, bytes | None)):
        return None  # SQLite keeps anything in any column
    if not hmac.compare_digest(row.seal, _seal(key, row.before or b"", row.told)):
        return None
    told = json.loads(row.told)
    if (told["number"], told["act"], told["batch_id"]) != (row.number, row.act, row.batch_id):
        return None
    return Event(seal=row.seal, is_sealed=True, **told | {"at": datetime.fromisoformat(told["at"])})


def _seal(key: bytes, before: bytes, told: str) -> bytes:
    return hmac.digest(key, before + told.encode(), "sha256")
