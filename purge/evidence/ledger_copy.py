"""A copy of the ledger for another place: after a restore from a backup it says who had been purged since."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, select

from purge.evidence.ledger import LedgerEntry, fingerprinter

BEGIN, END = "purge-ledger", "end"
BLOCK_LINES = 5_000  # each a value of one question, of which SQLite takes some thirty thousand


class Unreadable(Exception):
    """A copy of the ledger that nobody can go by; the text says to a person why."""


def lines(connection: Connection, since: datetime | None) -> Iterator[str]:
    """The ledger's entries, or those of purges since then, between a first line that knows the key again and a last with their number."""
    asked = select(LedgerEntry.fingerprint, LedgerEntry.batch_id, LedgerEntry.purged_at)
    if since:
        asked = asked.where(LedgerEntry.purged_at >= since)
    entries = 0
    yield _first_line()
    for entry in connection.execute(asked.execution_options(yield_per=BLOCK_LINES)):
        entries += 1
        yield f"{entry.fingerprint.hex()},{entry.batch_id},{entry.purged_at.isoformat()}"
    yield f"{END},{entries}"


def purged_since(connection: Connection, copied: Iterable[str]) -> dict[bytes, datetime]:
    """Whom a copy, or several one after the other, has and the ledger has not: fingerprint, and the moment of their last purge.

    Raises Unreadable. Memory: some 250 bytes for each.
    """
    purged, entries = {}, _entries(copied)
    while block := list(islice(entries, BLOCK_LINES)):
        asked = select(LedgerEntry.fingerprint, LedgerEntry.batch_id)
        known = {
            tuple(row) for row in connection.execute(asked.where(LedgerEntry.fingerprint.in_({e[0] for e in block})))
        }
        for fingerprint, batch_id, purged_at in block:
            if (fingerprint, batch_id) not in known:
                purged[fingerprint] = max(purged_at, purged.get(fingerprint, purged_at))
    return purged


def _entries(copied: Iterable[str]) -> Iterator[tuple[bytes, int, datetime]]:
    """A copy that was cut off would leave somebody out, and one under another key knows nobody here."""
    first, entries = _first_line().split(","), None  # of the copy that is being read; None between two
    for number, line in enumerate(copied, start=1):
        values = line.strip().split(",")
        if entries is None:
            if values[0] != BEGIN:
                raise Unreadable(f"Line {number} is not the beginning of a copy of the ledger.")
            if values != first:
                raise Unreadable(
                    "This is the copy of a ledger under another LEDGER_KEY: nobody in it could be known again."
                )
            entries = 0
        elif values[0] == END:
            if values[1:] != [str(entries)]:
                raise Unreadable(
                    f"A copy of the ledger is not whole: line {number} does not count {entries:,} entries."
                )
            entries = None
        else:
            try:
                fingerprint, batch_id, purged_at = values
                entry = bytes.fromhex(fingerprint), int(batch_id), datetime.fromisoformat(purged_at)
                if len(entry[0]) != 32 or entry[2].tzinfo is None:
                    raise ValueError
            except ValueError:
                raise Unreadable(f"Line {number} is no entry of a ledger.") from None
            entries += 1
            yield entry
    if entries is not None:
        raise Unreadable("A copy of the ledger is not whole: its end is missing.")


def _first_line() -> str:
    """By it the key is known again."""
    return f"{BEGIN},{fingerprinter()('').hex()}"
