"""How the installation is: what `/readyz`, `/metrics` and `flask doctor` say. No finding names a person."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import redis
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError

from jobs import queue as queues
from purge import batches, schema
from purge.erasure import residue
from purge.evidence import audit
from purge.evidence.ledger import has_other_key
from purge.extensions import db, now, reading

SCHEDULER_KEY, SCHEDULER_SECONDS = "purge:scheduler", 30
LOOK_KEY = "purge:look"
STILL_SECONDS = 120  # a chunk takes about one


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is as it should be, in words, and as a number for the metrics."""

    name: str
    is_well: bool
    words: str
    value: float


def look(closely: bool = False) -> list[Finding]:
    """Everything an installation needs, one finding each; what cannot be reached is a finding too.

    Closely, the database's every index is looked at as well, which takes a moment, whether its file can be cleared, whether the
    ledger has everybody, and whether anything in it or in the audit trail was changed, for which both are read whole.
    """
    looked_at = _LOOKED_AT | (_LOOKED_AT_CLOSELY if closely else {})
    found = {}
    for name, finding in looked_at.items():
        asked = _ASKED.get(name)
        # That each of them waits in vain would take most of a minute.
        if asked and not found[asked].is_well:
            found[name] = Finding(name, False, f"not known while {asked} is not well", 0)
        else:
            found[name] = _found(name, finding)
    return list(found.values())


def scheduler_was_here() -> None:
    """The scheduler's sign of life, forgotten when it does not come back in time."""
    queues.connect().set(SCHEDULER_KEY, now().isoformat(), ex=SCHEDULER_SECONDS)


def _found(name: str, finding: Callable[[], tuple[bool, str, float]]) -> Finding:
    try:
        with reading():
            return Finding(name, *finding())
    except (SQLAlchemyError, redis.RedisError) as error:
        return Finding(name, False, f"out of reach ({type(error).__name__})", 0)
    except Exception as error:  # what somebody wrote into the database may be anything
        return Finding(name, False, f"holds what cannot be read ({type(error).__name__})", 0)
    finally:
        db.session.remove()


def _database() -> tuple[bool, str, float]:
    kind = db.engine.dialect.name
    if kind == "postgresql" and db.session.scalar(text("SHOW transaction_read_only")) == "on":
        return False, "takes no changes: another server may be the one that does now", 0
    db.session.execute(select(1))
    return True, f"answers ({kind})", 1


def _schema(lacks: Callable[[Connection], list[str]] = schema.misfits) -> tuple[bool, str, float]:
    missing = lacks(db.session.connection())
    return not missing, " ".join(missing) or "as this version needs it", not missing


def _files() -> tuple[bool, str, float]:
    if db.engine.dialect.name != "sqlite":
        return True, "PostgreSQL's own affair: docs/production.md says what they hold until when", 1
    lack = residue.lacks_memory(db.engine)
    return not lack, lack or "can be cleared of what deletions left", not lack


def _ledger() -> tuple[bool, str, float]:
    batch_id = batches.unrecorded()
    if batch_id is None:
        return True, "has an entry for everybody whom the batches have purged, and for nobody else", 1
    return False, f"does not say of batch {batch_id} what the batch says itself: somebody has changed one of them", 0


def _audit() -> tuple[bool, str, float]:
    connection = db.session.connection()
    flaw = audit.flaw(connection)
    if has_other_key(connection):
        return False, "not known under another LEDGER_KEY than it was begun with", 0
    if flaw:
        return False, f"{flaw} Somebody has changed the database: keep it as it is, and compare it with a backup", 0
    if batch_id := batches.contradicted():
        return False, f"batch {batch_id} says of its end what the trail does not: somebody has changed one of them", 0
    newest = audit.last(connection)
    return True, f"unbroken, and the ledger is what it says; event {newest.number} has the seal {newest.seal.hex()}", 1


def _redis() -> tuple[bool, str, float]:
    queues.connect().set(LOOK_KEY, 1, ex=SCHEDULER_SECONDS)  # one whose memory is full would answer a ping
    return True, "answers", 1


def _workers() -> tuple[bool, str, float]:
    connection = queues.connect()
    listening = {
        name: queues.workers(queues.queue(connection, name)) for name in (queues.SINGLE, queues.BULK, queues.PICK_UP)
    }
    words = f"{listening[queues.BULK]} for files, {listening[queues.SINGLE]} for one customer, {listening[queues.PICK_UP]} for SFTP"
    return all(listening.values()), words, min(listening.values())


def _scheduler() -> tuple[bool, str, float]:
    seen = queues.connect().exists(SCHEDULER_KEY)
    return bool(seen), "runs" if seen else f"not seen for {SCHEDULER_SECONDS} seconds: start `flask schedule`", seen


def _progress() -> tuple[bool, str, float]:
    """Seconds since any batch has finished a chunk, or a block of its check, while one has work; who waits its turn is well. Files and
    single customers are looked at by themselves, and the longer silence counts."""
    last = batches.last_moved()
    if last is None:
        return True, "no batch waits", 0
    batch_id, seconds = last[0], last[1].total_seconds()
    return seconds < STILL_SECONDS, f"the last batch to move was batch {batch_id}, {seconds:.0f} seconds ago", seconds


def _pending() -> tuple[bool, str, float]:
    """Seconds since the batch with the oldest waiting chunk was confirmed; large files and few workers are no fault."""
    oldest = batches.oldest_pending()
    if oldest is None:
        return True, "no chunk waits", 0
    batch_id, seconds = oldest[0], oldest[1].total_seconds()
    return True, f"batch {batch_id} was confirmed {seconds:.0f} seconds ago", seconds


_LOOKED_AT = {
    "database": _database,
    "schema": _schema,
    "redis": _redis,
    "workers": _workers,
    "scheduler": _scheduler,
    "progress": _progress,
    "pending": _pending,
}
_LOOKED_AT_CLOSELY = {"schema": partial(_schema, schema.missing), "files": _files, "ledger": _ledger, "audit": _audit}
# Of whom each of the others is asked.
_ASKED = {
    **dict.fromkeys(("workers", "scheduler"), "redis"),
    **dict.fromkeys(("schema", "progress", "pending", "files", "ledger", "audit"), "database"),
}
