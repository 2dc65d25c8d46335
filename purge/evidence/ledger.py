"""The ledger: who was purged, known again by their address and kept by nobody."""

from collections.abc import Callable, Iterable
from datetime import datetime

from flask import current_app
from sqlalchemy import Connection, LargeBinary, Row, Select, delete, insert, literal, select
from sqlalchemy.orm import Mapped, mapped_column

from purge import email_address
from purge.email_address import Problem
from purge.erasure.map import keep
from purge.evidence.keys import hmac_sha256, key_for
from purge.extensions import db

DIGESTS = 2**256
KEYED = keep("says whose it is only to one who asks with the address; the key is not in the database")


class LedgerEntry(db.Model):
    """One purge of one person. It outlives the batch, so it holds the batch's number and no foreign key."""

    __tablename__ = "ledger_entry"
    __table_args__ = {"sqlite_with_rowid": False, "info": KEYED}

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True, info=KEYED)
    batch_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, info=KEYED)
    purged_at: Mapped[datetime] = mapped_column(info=KEYED)


class LedgerKey(db.Model):
    """By what the key of the ledger is known again: a process that has another one would write what nobody can find."""

    __tablename__ = "ledger_key"
    __table_args__ = {"sqlite_with_rowid": False, "info": KEYED}

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True, info=KEYED)  # of no address


class OtherKey(Exception):
    """The ledger was begun with another LEDGER_KEY: nobody would find what we write."""


def has_other_key(connection: Connection) -> bool:
    """Whether the ledger was begun with another key than ours, or does not say with which."""
    known = connection.scalar(select(LedgerKey.fingerprint))
    return known != fingerprinter()("") if known else is_written(connection)


def adopt_key(connection: Connection, even_if_written: bool = False) -> bool:
    """From now on the ledger has our key, and had another or none; where people stand in it already, only if we are told to."""
    known, ours = connection.scalar(select(LedgerKey.fingerprint)), fingerprinter()("")
    if known == ours or (not even_if_written and is_written(connection)):
        return False
    connection.execute(delete(LedgerKey))
    connection.execute(insert(LedgerKey).values(fingerprint=ours))
    return True


def is_written(connection: Connection) -> bool:
    """Whether anybody stands in the ledger."""
    return connection.execute(select(LedgerEntry.batch_id).limit(1)).first() is not None


def fingerprinter() -> Callable[[str], bytes]:
    """What turns a normal form (purge.email_address) into its fingerprint: HMAC-SHA-256, 32 bytes."""
    hmac = hmac_sha256(current_app.config["LEDGER_KEY"])
    return lambda email_key: hmac(email_key.encode())


def enter(connection: Connection, purged: Select, moment: datetime) -> None:
    """Enter the (fingerprint, batch_id) pairs that `purged` selects, in the transaction that deletes the people."""
    columns = ["fingerprint", "batch_id", "purged_at"]
    purged_at = literal(moment, LedgerEntry.purged_at.type).label("purged_at")
    connection.execute(insert(LedgerEntry.__table__).from_select(columns, purged.add_columns(purged_at)))


def as_text(digest: int) -> str:
    """A digest or a sum of some, as 64 hexadecimal digits."""
    return f"{digest % DIGESTS:064x}"


def digest(entries: Iterable[Row | tuple[bytes, int, datetime]]) -> int:
    """What entries (fingerprint, batch, moment) add up to, in whatever order and whatever parts: their HMACs' sum.

    (Bellare and Micciancio, “A New Paradigm for Collision-Free Hashing”, 1997, with a key.)
    """
    hmac, total, whose, start = hmac_sha256(key_for("ledger digest")), 0, None, b""
    for fingerprint, *of in entries:
        if of != whose:  # a chunk's are the same
            whose, start = of, f"{of[0]} {of[1].isoformat()} ".encode()
        total += int.from_bytes(hmac(start + fingerprint))
    return total


def digest_of_all(connection: Connection) -> int:
    """The same of the whole ledger, which is read from its first entry to its last."""
    everybody = select(LedgerEntry.fingerprint, LedgerEntry.batch_id, LedgerEntry.purged_at)
    return digest(connection.execute(everybody.execution_options(yield_per=5_000)))


def keys(typed: str) -> tuple[set[str], Problem | None]:
    """What a customer with this address may be known by; and what keeps the text from being an address.

    A customer may have had an address that is none; then the text itself is all there is to go by.
    """
    bare = email_address.bare(typed)
    key, problem = email_address.read(bare)
    return {key} if key else {bare, bare.lower()}, problem


def entries(typed: str) -> tuple[list[LedgerEntry], Problem | None]:
    """When the person with this address was purged, the last time first; and what keeps the text from being an address."""
    known_by, problem = keys(typed)
    prints = [fingerprinter()(key) for key in known_by]
    theirs = select(LedgerEntry).where(LedgerEntry.fingerprint.in_(prints)).order_by(LedgerEntry.purged_at.desc())
    return list(db.session.scalars(theirs)), problem
