"""A receipt: what a batch did, told by its events in the audit trail and by nothing else, and signed for whoever asks."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, exists, func, select

from purge.batches.account import outcomes
from purge.batches.model import Batch, Door, PurgeRequest, State
from purge.evidence import audit, ledger, receipts
from purge.evidence.audit import Act, AuditEvent, Event
from purge.extensions import db

log = logging.getLogger(__name__)

FORMAT = "purge receipt 1"
CAME_IN = ("door", "rows", "file_bytes", "file_digest", "ground", "asked_for_on")
BLOCK = 1_000  # batches looked at together


@dataclass(frozen=True)
class Receipt:
    """What a batch did; nothing, and signed for nobody, where one of its events is not what was written."""

    told: dict[str, Any]

    @property
    def is_whole(self) -> bool:
        return bool(self.told)

    @property
    def signed(self) -> dict[str, Any]:
        return receipts.sign(self.told)


def tell_end(connection: Connection, batch_id: int) -> AuditEvent | None:
    """Enter in the audit trail that the batch has ended, as the last thing of the transaction in which it does; once."""
    if audit.tells(connection, batch_id, Act.FINISHED):
        return None
    told = _told(audit.of_batch(connection, batch_id))
    facts = {"outcomes": told["outcomes"]} if _is_whole(told) else {}
    return audit.append(connection, Act.FINISHED, batch_id=batch_id, **facts)


def log_end(event: AuditEvent | None) -> None:
    """Say where the trail is then, where nobody who changes the database can reach it."""
    if event:
        log.info("a batch has ended", extra={"fields": {"audit_event": event.number, "seal": event.seal.hex()}})


def has_receipt(batch: Batch) -> bool:
    """Whether it has ended, and is in the audit trail from its beginning."""
    first = Act.CONFIRMED if batch.door is Door.FORM else Act.OPENED
    return all(audit.tells(db.session.connection(), batch.id, act) for act in (first, Act.FINISHED))


def receipt(batch: Batch) -> Receipt | None:
    """The batch's; None while there is none."""
    if not has_receipt(batch):
        return None
    events = audit.of_batch(db.session.connection(), batch.id)
    told = _told(events)
    if told == {}:  # sealed under another key, which nobody has any more
        return None
    return Receipt({"format": FORMAT, "batch": batch.id, **told} if _is_whole(told) else {})


def contradicted() -> int | None:
    """A batch that says of its end something else than the audit trail does, or that has ended since the trail began, and the
    trail does not know it."""
    connection = db.session.connection()
    ends = audit.of_act(connection, Act.FINISHED)
    while block := list(islice(ends, BLOCK)):
        told = {end.batch_id: Counter(end.facts["outcomes"]) for end in block if "outcomes" in end.facts}
        by_requests, by_chunks = _by_requests(connection, told), outcomes([*told])
        for batch_id, ended_so in told.items():
            if not (by_requests[batch_id] == ended_so == Counter(by_chunks[batch_id])):
                return batch_id
    begun = audit.begun(connection)
    known = exists().where(AuditEvent.batch_id == Batch.id, AuditEvent.act == Act.FINISHED)
    ended = Batch.state == State.FINISHED, Batch.id > (begun.facts["last_batch"] if begun else 0), ~known
    return connection.scalar(select(Batch.id).where(*ended).order_by(Batch.id).limit(1))


def _by_requests(connection: Connection, ids: Iterable[int]) -> dict[int, Counter[str]]:
    counted = select(PurgeRequest.batch_id, PurgeRequest.outcome, func.count()).where(PurgeRequest.batch_id.in_(ids))
    found = defaultdict(Counter)
    for batch_id, outcome, rows in connection.execute(counted.group_by(PurgeRequest.batch_id, PurgeRequest.outcome)):
        found[batch_id][outcome] = rows
    return found


def _is_whole(told: dict[str, Any] | None) -> bool:
    return bool(told) and sum(told["outcomes"].values()) == told.get("rows")


def _told(events: Iterable[Event]) -> dict[str, Any] | None:
    """What a batch's events tell up to its end, added up; None when one of them is not what was written, nothing when nobody can
    say."""
    told = dict.fromkeys(("came_in_at", "came_in_by", "confirmed_at", "confirmed_by", "cancelled_by"))
    came_of_it, erased, entered = Counter(), Counter(), 0
    for event in events:
        if not event.is_sealed:
            return None if event.is_sealed is False else {}
        facts, at = event.facts, event.at.isoformat()
        if "rows" in facts:  # it came in, or one customer was confirmed at once
            told |= {"came_in_at": at, "came_in_by": event.by} | {key: facts[key] for key in CAME_IN if key in facts}
        if event.act in (Act.CHECKED, Act.CHUNK):
            came_of_it.update(facts["outcomes"])
        match event.act:
            case Act.CONFIRMED:
                told |= {"confirmed_at": at, "confirmed_by": event.by}
                told |= {"plan": facts["plan"]} if "plan" in facts else {}
            case Act.CANCELLED:
                told["cancelled_by"] = event.by
            case Act.CHUNK:
                erased.update(facts["erased"])
                entered += int(facts["ledger"], 16)
            case Act.FINISHED:
                told |= {"ended_at": at, "audit_event": {"number": event.number, "seal": event.seal.hex()}}
                break
    return told | {"outcomes": dict(came_of_it), "erased": dict(erased), "entered_in_ledger": ledger.as_text(entered)}
