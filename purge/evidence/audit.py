"""The audit trail: who did what, and what came of it, each event sealed onto the one before. It names no customer."""

import hmac
import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, ForeignKey, LargeBinary, Row, func, insert, select
from sqlalchemy import event as happens
from sqlalchemy.orm import Mapped, Session, mapped_column

from purge.erasure.map import keep
from purge.evidence import ledger
from purge.evidence.keys import key_for
from purge.extensions import db, now, one_at_a_time

EVENT = keep("what was done, by whom of those who sign in, and how many; no customer stands in it")
_TURN = b"audit trail"


class Act(StrEnum):
    """What an event tells of."""

    BEGUN = "begun"
    OPENED = "opened"
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
    """One event. `seal` is the HMAC-SHA-256 of the seal before it and of everything else in it."""

    __tablename__ = "audit_event"
    __table_args__ = {"info": EVENT}

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, info=EVENT)  # from 1, without a gap
    at: Mapped[datetime] = mapped_column(info=EVENT)
    act: Mapped[Act] = mapped_column(info=EVENT)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"), index=True, info=EVENT)  # None: the app itself
    batch_id: Mapped[int | None] = mapped_column(index=True, info=EVENT)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, info=EVENT)
    seal: Mapped[bytes] = mapped_column(LargeBinary(32), info=EVENT)


_EVENT = AuditEvent.__table__
_BEFORE = _EVENT.alias("before")
_BEGUN = select(func.max(_EVENT.c.number)).where(_EVENT.c.act == Act.BEGUN).scalar_subquery()  # for the last time


def record(act: Act, user_id: int | None = None, batch_id: int | None = None, **facts) -> None:
    """Add an event with what the session's transaction commits, as the last thing it does; gone with a rollback."""
    db.session().info.setdefault("audit", []).append({"act": act, "user_id": user_id, "batch_id": batch_id, **facts})


@happens.listens_for(db.session, "before_commit")
def _append_recorded(session: Session) -> None:
    if recorded := session.info.pop("audit", []):
        session.flush()  # nothing may wait for anybody after the first of them
        for told in recorded:
            append(session.connection(), **told)


@happens.listens_for(db.session, "after_soft_rollback")
def _forget_recorded(session: Session, _transaction) -> None:
    session.info.pop("audit", None)


def append(connection: Connection, act: Act, user_id: int | None = None, batch_id: int | None = None, **facts) -> Row:
    """Add an event, as the last thing a transaction does: until it ends, nobody else adds one."""
    one_at_a_time(connection, _TURN)
    last = connection.execute(select(_EVENT.c.number, _EVENT.c.seal).order_by(_EVENT.c.number.desc()).limit(1)).first()
    number, before = last or (0, b"")
    event = {"number": number + 1, "at": now(), "act": act, "user_id": user_id, "batch_id": batch_id, "facts": facts}
    seal = _seal(key_for("audit trail"), before, **event)
    return connection.execute(insert(_EVENT).values(**event, seal=seal).returning(_EVENT)).one()


def begin(connection: Connection) -> None:
    """The trail begins, or begins anew, with the ledger as it is now."""
    one_at_a_time(connection, _TURN)  # or a chunk that ends meanwhile would be in neither
    append(connection, Act.BEGUN, ledger=ledger.as_text(ledger.digest_of_all(connection)))


def has_begun(connection: Connection) -> bool:
    """Whether there is a trail."""
    return connection.execute(select(_EVENT.c.number).limit(1)).first() is not None


def events(*conditions: ColumnElement[bool], most: int) -> list[tuple[AuditEvent, bool | None]]:
    """The newest first, each with whether it is as it was written and follows from the one before; None where nobody can say,
    because the trail has begun anew since."""
    with_before = select(AuditEvent, _BEFORE.c.seal).outerjoin(_BEFORE, _BEFORE.c.number == AuditEvent.number - 1)
    asked = with_before.where(*conditions).order_by(AuditEvent.number.desc()).limit(most)
    key, begun = key_for("audit trail"), db.session.scalar(select(_BEGUN)) or 0
    found = []
    for event, before in db.session.execute(asked):
        told = {column.name: getattr(event, column.name) for column in _EVENT.c if column.name != "seal"}
        found.append((event, _holds(key, event.seal, before, told) or (False if event.number >= begun else None)))
    return found


def flaw(connection: Connection) -> str | None:
    """What somebody changed in the trail or in the ledger since it began under this key, in a sentence; reads both whole.

    Both are read as they were at one moment, so begin a transaction with this.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    key, people, expected = key_for("audit trail"), 0, None
    for event, before in _since_begun(connection):
        if expected not in (None, event["number"]):
            return f"Of the audit trail, event {expected} is missing."
        if not _holds(key, event.pop("seal"), before, event):
            return f"Of the audit trail, event {event['number']} is not what was written."
        expected = event["number"] + 1
        people += int(event["facts"].get("ledger", "0"), 16)
    if expected is None:
        return "There is no audit trail: run `flask init-db`."
    if connection.scalar(select(func.count()).select_from(_EVENT)) != expected - 1:
        return "Events are missing from the audit trail."
    if ledger.as_text(people) != ledger.as_text(ledger.digest_of_all(connection)):
        return "The ledger is not what the audit trail says was entered."
    return None


def last(connection: Connection) -> Row | None:
    """The newest event: whoever keeps its number and seal elsewhere can tell later whether the trail was cut off before it."""
    return connection.execute(select(_EVENT).order_by(_EVENT.c.number.desc()).limit(1)).first()


def _since_begun(connection: Connection) -> Iterator[tuple[dict, bytes | None]]:
    """Each event as a dictionary, with the seal before it, from where the trail last began."""
    before = connection.scalar(select(_EVENT.c.seal).where(_EVENT.c.number == _BEGUN - 1))
    asked = select(_EVENT).where(_EVENT.c.number >= _BEGUN).order_by(_EVENT.c.number)
    for row in connection.execute(asked.execution_options(yield_per=1_000)):
        yield dict(row._mapping), before
        before = row.seal


def _holds(key: bytes, seal: bytes, before: bytes | None, told: dict) -> bool:
    return hmac.compare_digest(seal, _seal(key, before or b"", **told))


def _seal(key: bytes, before: bytes, *, at: datetime, **told) -> bytes:
    line = json.dumps({"at": at.isoformat(), **told}, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, before + line.encode(), "sha256")
