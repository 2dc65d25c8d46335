"""Copies of the ledger in a folder elsewhere: after a restore from a backup they say who had been purged since."""

import hmac
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Select, or_, select

from purge.batches.model import Batch, Outcome, PurgeRequest
from purge.evidence import audit
from purge.evidence.keys import key_for
from purge.evidence.ledger import LedgerEntry, fingerprinter
from purge.extensions import now

BEGIN, END = "purge-ledger", "end"
NAMES = "ledger-*.csv"
BLOCK_ENTRIES = 5_000
# Between the moment that a chunk enters and its commit, and between two machines' clocks.
LEEWAY = timedelta(minutes=10)


class Unreadable(Exception):
    """A copy of the ledger that nobody can go by; str() is one sentence for a person."""


class Entry(NamedTuple):
    """One purge: the customer by their id, see `persons`; the rest is the ledger's own."""

    person: bytes
    fingerprint: bytes
    batch_id: int
    purged_at: datetime


class Span(NamedTuple):
    """What a copy knows: every purge from `since`, or from the first one, until `until`; `event` and `seal` are the end of the
    audit trail at its time."""

    since: datetime | None
    until: datetime
    event: int
    seal: bytes


class Gap(NamedTuple):
    """From when, None being the first purge of all, and until when not every purge is known."""

    since: datetime | None
    until: datetime


class Copies(NamedTuple):
    """What the copies in a folder say together."""

    purged: dict[bytes, tuple[bytes, datetime]]  # person to fingerprint and last purge
    until: datetime
    gaps: list[Gap]


def persons() -> Callable[[int], bytes]:
    """What turns a customer's id into that by which the copies know them: HMAC-SHA-256, 32 bytes."""
    keyed = _keyed()

    def person(id: int) -> bytes:
        begun = keyed.copy()
        begun.update(f"customer {id}".encode())
        return begun.digest()

    return person


def write(connection: Connection, folder: Path) -> tuple[Path, int]:
    """Write what the folder's copies do not have yet, whole or not at all: the new copy, and how many entries it has."""
    moment, newest = now(), next(_whole(folder), None)
    place = folder / f"ledger-{moment:%Y%m%dT%H%M%S.%fZ}.csv"
    part = place.with_suffix(".part")
    try:
        with open(part, "x", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            lines = 0
            for line in _sealed(_lines(connection, newest, moment - LEEWAY)):
                file.write(line)
                lines += 1
            file.flush()
            os.fsync(file.fileno())
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
    return place, lines - 2


def read(folder: Path) -> Copies:
    """What the copies in the folder know. Raises Unreadable. Memory: some 300 bytes for everybody in them."""
    purged, spans = {}, []

    def remember(entry: Entry) -> None:
        if entry.person not in purged or purged[entry.person][1] < entry.purged_at:
            purged[entry.person] = entry.fingerprint, entry.purged_at

    for path in sorted(folder.glob(NAMES)):
        spans.append(_read(path, remember))
    if not spans:
        raise Unreadable(f"There is no copy of a ledger in {folder}.")
    gaps, covered = [], None
    for span in sorted(spans, key=lambda span: (span.since is not None, span)):
        if span.since and (covered is None or span.since > covered):
            gaps.append(Gap(covered, span.since))
        covered = span.until if covered is None else max(covered, span.until)
    return Copies(purged, covered, gaps)


def _whole(folder: Path) -> Iterator[Span]:
    """Of the copies that are whole and ours, the newest first."""
    for path in sorted(folder.glob(NAMES), reverse=True):
        try:
            yield _read(path)
        except Unreadable:
            continue


def _lines(connection: Connection, newest: Span | None, until: datetime) -> Iterator[str]:
    """The ledger from where the newest copy ends, or from its beginning. A database that does not have the event with which that
    copy ends was put back to an earlier day since: what it has forgotten no later copy can know."""
    person, since, (event, seal) = persons(), newest and min(newest.until, until), audit.last(connection) or (0, b"")
    known_from = since if newest is None or audit.has(connection, newest.event, newest.seal) else until
    first = BEGIN, _key(), known_from.isoformat() if known_from else "", until.isoformat(), event, seal.hex()
    yield ",".join(map(str, first)) + "\n"
    for id, *entry in connection.execute(_entries(since), execution_options={"yield_per": BLOCK_ENTRIES}):
        fingerprint, batch_id, purged_at = entry
        yield f"{person(id).hex()},{fingerprint.hex()},{batch_id},{purged_at.isoformat()}\n"


def _entries(since: datetime | None) -> Select:
    """The ledger's, with the ids that the purge requests keep."""
    theirs = (PurgeRequest.batch_id == LedgerEntry.batch_id) & (PurgeRequest.fingerprint == LedgerEntry.fingerprint)
    asked = select(PurgeRequest.customer_id, LedgerEntry.fingerprint, LedgerEntry.batch_id, LedgerEntry.purged_at)
    asked = asked.join(LedgerEntry, theirs).where(PurgeRequest.outcome == Outcome.PURGED)
    if since is None:
        return asked
    not_long_ended = or_(Batch.finished_at.is_(None), Batch.finished_at >= since - LEEWAY)
    lately = PurgeRequest.batch_id.in_(select(Batch.id).where(not_long_ended))
    return asked.where(lately, LedgerEntry.purged_at >= since)


def _sealed(lines: Iterator[str]) -> Iterator[str]:
    """The same, and a last line by which it is known whether any was changed, added or left out."""
    seal = _keyed()
    for line in lines:
        seal.update(line.encode())
        yield line
    yield f"{END},{seal.hexdigest()}\n"


def _read(path: Path, take: Callable[[Entry], None] = lambda entry: None) -> Span:
    """Hand the entries of one copy on; that it is whole is known only in the end. Raises Unreadable."""
    seal = _keyed()
    try:
        with path.open("rb") as file:
            first = file.readline().strip()
            if not first.startswith(BEGIN.encode()):
                raise Unreadable(f"{path.name} is no copy of a ledger.")
            _, key, since, until, event, trail = first.decode("ascii").split(",")
            if key != _key():
                raise Unreadable(
                    f"{path.name} is the copy of a ledger under another LEDGER_KEY: nobody in it can be known again here."
                )
            since, until = since and datetime.fromisoformat(since), datetime.fromisoformat(until)
            span = Span(since or None, until, int(event), bytes.fromhex(trail))
            seal.update(first + b"\n")
            for line in map(bytes.strip, file):
                if line == f"{END},{seal.hexdigest()}".encode():
                    return span
                seal.update(line + b"\n")
                person, fingerprint, batch_id, purged_at = line.decode("ascii").split(",")
                moment = datetime.fromisoformat(purged_at)
                take(Entry(bytes.fromhex(person), bytes.fromhex(fingerprint), int(batch_id), moment))
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read: {error.strerror}.") from None
    except ValueError:
        pass
    raise Unreadable(
        f"{path.name} is not whole, or is not what was written. Take it out of the folder; what is missing then will be said."
    )


def _keyed() -> hmac.HMAC:
    return hmac.new(key_for("ledger copy"), digestmod="sha256")


def _key() -> str:
    """By what the ledger's key is known again."""
    return fingerprinter()("").hex()
