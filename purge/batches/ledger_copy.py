"""Copies of the ledger in a folder elsewhere: after a restore from a backup they say who had been purged since."""

import hmac
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Select, or_, select

from purge.batches.model import Batch, Outcome, PurgeRequest
from purge.evidence.keys import key_for
from purge.evidence.ledger import LedgerEntry, fingerprinter
from purge.extensions import now

BEGIN, END = "purge-ledger", "end"
NAMES = "ledger-*.csv"
BLOCK_ENTRIES = 5_000  # each a value of one question, of which SQLite takes some thirty thousand
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
    """What a copy knows: every purge from `since`, or from the first one, until `until`."""

    since: datetime | None
    until: datetime


class Copies(NamedTuple):
    """What the copies in a folder say together."""

    purged: dict[bytes, tuple[bytes, datetime]]  # whom the ledger lacks: person to fingerprint and last purge
    until: datetime
    gaps: list[Span]


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
    moment = now()
    since = next(_ends(folder), None)
    place = folder / f"ledger-{moment:%Y%m%dT%H%M%S.%fZ}.csv"
    part = place.with_suffix(".part")
    try:
        with open(part, "x", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            lines = 0
            for line in _sealed(_lines(connection, since and min(since, moment - LEEWAY), moment)):
                file.write(line)
                lines += 1
            file.flush()
            os.fsync(file.fileno())
        part.rename(place)
    finally:
        part.unlink(missing_ok=True)
    return place, lines - 2


def read(connection: Connection, folder: Path) -> Copies:
    """Whom the copies in the folder know as purged, and the ledger does not. Raises Unreadable. Memory: some 300 bytes each."""
    purged, spans = {}, []

    def remember(block: list[Entry]) -> None:
        # Whose entry the backup had was gone from it as well.
        asked = select(LedgerEntry.fingerprint, LedgerEntry.batch_id, LedgerEntry.purged_at)
        theirs = asked.where(LedgerEntry.fingerprint.in_({entry.fingerprint for entry in block}))
        known = {tuple(row) for row in connection.execute(theirs)}
        for person, *entry in block:
            fingerprint, _, purged_at = entry
            if tuple(entry) not in known and (person not in purged or purged[person][1] < purged_at):
                purged[person] = fingerprint, purged_at

    for path in sorted(folder.glob(NAMES)):
        spans.append(_read(path, remember))
    if not spans:
        raise Unreadable(f"There is no copy of a ledger in {folder}.")
    gaps, covered = [], None
    for since, until in sorted(spans, key=lambda span: (span.since is not None, span)):
        if since and (covered is None or since > covered):
            gaps.append(Span(covered, since))
        covered = until if covered is None else max(covered, until)
    return Copies(purged, covered, gaps)


def _ends(folder: Path) -> Iterator[datetime]:
    """Until when the copies reach that are whole and ours, the newest first."""
    for path in sorted(folder.glob(NAMES), reverse=True):
        try:
            yield _read(path).until
        except Unreadable:
            continue


def _lines(connection: Connection, since: datetime | None, moment: datetime) -> Iterator[str]:
    person = persons()
    yield f"{BEGIN},{_key()},{since.isoformat() if since else ''},{(moment - LEEWAY).isoformat()}\n"
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


def _read(path: Path, take: Callable[[list[Entry]], None] = lambda block: None) -> Span:
    """Hand the entries of one copy on, block by block; that it is whole is known only in the end. Raises Unreadable."""
    spoilt = Unreadable(f"{path.name} is not whole, or is not what was written.")
    seal, block = _keyed(), []
    with path.open("rb") as file:
        first = file.readline().strip()
        begin, *told = first.decode("ascii", "replace").split(",")
        if begin != BEGIN:
            raise Unreadable(f"{path.name} is no copy of a ledger.")
        try:
            key, since, until = told
            if key != _key():
                raise Unreadable(
                    f"{path.name} is the copy of a ledger under another LEDGER_KEY: nobody in it can be known again here."
                )
            span = Span(datetime.fromisoformat(since) if since else None, datetime.fromisoformat(until))
            seal.update(first + b"\n")
            for line in map(bytes.strip, file):
                if line == f"{END},{seal.hexdigest()}".encode():
                    take(block)
                    return span
                seal.update(line + b"\n")
                person, fingerprint, batch_id, purged_at = line.decode("ascii").split(",")
                moment = datetime.fromisoformat(purged_at)
                block.append(Entry(bytes.fromhex(person), bytes.fromhex(fingerprint), int(batch_id), moment))
                if len(block) == BLOCK_ENTRIES:
                    take(block)
                    block = []
        except ValueError:
            raise spoilt from None
    raise spoilt


def _keyed() -> hmac.HMAC:
    return hmac.new(key_for("ledger copy"), digestmod="sha256")


def _key() -> str:
    """By what the ledger's key is known again."""
    return fingerprinter()("").hex()
