"""A receipt: what a batch did, told once when it ends, sealed in the audit trail, and signed for whoever asks."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from purge.batches.account import SUMS, erased
from purge.batches.model import Batch, Chunk, Outcome, State
from purge.evidence import audit, ledger, receipts
from purge.evidence.audit import Act, AuditEvent
from purge.extensions import db

FORMAT = "purge receipt 1"


@dataclass(frozen=True)
class Receipt:
    """What a batch did, as it stands in the audit trail; signed only where that is still as it was written."""

    told: dict[str, Any]
    is_sealed: bool

    @property
    def signed(self) -> dict[str, Any]:
        return receipts.sign(self.told)


def tell_end(connection: Connection, batch_id: int) -> Row:
    """Enter in the audit trail what the batch did, as the last thing of the transaction in which it ends."""
    batch = connection.execute(select(Batch.__table__).where(Batch.id == batch_id)).one()
    sums = connection.execute(select(*SUMS).where(Chunk.batch_id == batch_id)).one()
    told = {
        "door": batch.door,
        "rows": batch.rows,
        "outcomes": {outcome: rows for outcome, rows in zip(Outcome, sums, strict=True) if rows},
        "erased": dict(erased(connection, batch_id)),
        "entered_in_ledger": _entered(connection, batch_id),
        "came_in_at": batch.created_at.isoformat(),
        "came_in_by": batch.created_by_id,
        "confirmed_at": batch.confirmed_at and batch.confirmed_at.isoformat(),
        "confirmed_by": batch.confirmed_by_id,
        "cancelled_by": batch.stopped_by_id,
        "ended_at": batch.finished_at.isoformat(),
    }
    if batch.content_digest:
        told |= {"file_bytes": batch.file_bytes, "file_digest": batch.content_digest.hex(), "plan": batch.plan_digest}
    if batch.ground:
        told |= {"ground": batch.ground, "asked_for_on": batch.asked_on and batch.asked_on.isoformat()}
    return audit.append(connection, Act.FINISHED, batch_id=batch_id, **told)


def receipt(batch_id: int) -> Receipt | None:
    """The batch's; None while it has not ended, and of one that ended before the audit trail began."""
    theirs = AuditEvent.batch_id == batch_id, AuditEvent.act == Act.FINISHED
    event, is_sealed = next(iter(audit.events(*theirs, most=1)), (None, None))
    if is_sealed is None:
        return None
    place = {"number": event.number, "seal": event.seal.hex()}
    told = {"format": FORMAT, "batch": batch_id, **event.facts, "audit_event": place}
    return Receipt(told, is_sealed)


def without_receipt() -> int | None:
    """A batch that has ended since the audit trail began, of whose end the trail says nothing."""
    begun = select(AuditEvent.at).where(AuditEvent.act == Act.BEGUN).order_by(AuditEvent.number).limit(1)
    told = exists().where(AuditEvent.batch_id == Batch.id, AuditEvent.act == Act.FINISHED)
    ended = Batch.state == State.FINISHED, Batch.finished_at > begun.scalar_subquery(), ~told
    return db.session.scalar(select(Batch.id).where(*ended).order_by(Batch.id).limit(1))


def _entered(connection: Connection, batch_id: int) -> str:
    """What the batch's chunks entered in the ledger, added up (purge.evidence.ledger)."""
    theirs = AuditEvent.batch_id == batch_id, AuditEvent.act == Act.CHUNK
    facts = connection.scalars(select(AuditEvent.facts).where(*theirs))
    return ledger.as_text(sum(int(one["ledger"], 16) for one in facts if "ledger" in one))
