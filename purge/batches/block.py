"""A block: some rows of the file, read and validated, matched and written as purge requests by one statement."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    LargeBinary,
    Row,
    String,
    Subquery,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.types import NullType

from purge.batches.mapping import verdict
from purge.batches.model import Outcome, PurgeRequest, Reason
from purge.evidence.ledger import LedgerEntry, fingerprinter
from purge.extensions import insert_rows
from purge.intake import customer_csv
from purge.models import Customer

SIZE = 32  # bytes of a fingerprint
SEVERAL = 0  # instead of the id of one customer
COLUMNS = ("batch_id", "row_number", "fingerprint", "customer_id", "outcome", "reason")


class Incomplete(Exception):
    """Not every row of the file was read, or has its request."""


@dataclass
class Block:
    """Some rows of the file, by column, so that they are thousands of texts and not thousands of tuples for Python to look after."""

    numbers: array = field(default_factory=lambda: array("I"))  # of the valid rows
    keys: list[str] = field(default_factory=list)  # the normal forms of their addresses
    fingerprints: bytearray = field(default_factory=bytearray)  # theirs, one after the other
    invalid: list[tuple[int, str]] = field(default_factory=list)  # the other rows' numbers, and what is wrong

    @property
    def rows(self) -> int:
        return len(self.keys) + len(self.invalid)

    @classmethod
    def read(cls, rows: Iterable[customer_csv.Row], batch: Row) -> Self:
        """The block of these rows, which may be none."""
        block, fingerprint = cls(), fingerprinter()
        email_column, type_column = batch.email_column, batch.type_column
        for row in rows:
            key, problem = verdict(row, email_column, type_column)
            if key:
                block.numbers.append(row.number)
                block.keys.append(key)
                block.fingerprints += fingerprint(key)
            else:
                block.invalid.append((row.number, problem))
        return block

    def request(self, connection: Connection, batch_id: int) -> None:
        """Write its purge requests: one customer's id is frozen; none or two are never deleted."""
        invalid = ((batch_id, number, None, None, Outcome.INVALID, problem) for number, problem in self.invalid)
        insert_rows(connection, PurgeRequest.__tablename__, COLUMNS, invalid)
        if not self.keys:
            return
        row, there = as_table(connection).c, func.count()
        one = case((there > 1, SEVERAL), else_=func.min(Customer.id))
        found = select(one).where(Customer.email_key == row.email_key).scalar_subquery()
        read = select(row.row_number, row.fingerprint, found.label("found")).cte().prefix_with("MATERIALIZED").c
        # As a value, each looked up in the index: of EXISTS PostgreSQL makes one table of the whole ledger, for every block.
        entry = select(LedgerEntry.batch_id).where(LedgerEntry.fingerprint == read.fingerprint).limit(1)
        purged_before = entry.scalar_subquery().is_not(None)
        outcome, reason = (
            case(
                (read.found == SEVERAL, shared), (read.found.is_not(None), None), (purged_before, before), else_=unknown
            )
            for shared, before, unknown in (
                (Outcome.HELD, Outcome.ALREADY_PURGED, Outcome.NOT_FOUND),
                (Reason.SHARED_ADDRESS, Reason.PURGED_BEFORE, None),
            )
        )
        frozen = func.nullif(read.found, SEVERAL)
        requests = select(literal(batch_id), read.row_number, read.fingerprint, frozen, outcome, reason)
        ask = insert(PurgeRequest.__table__).from_select(COLUMNS, requests).execution_options(preserve_rowcount=True)
        asked = connection.execute(ask, self.values(connection))
        if asked.rowcount != len(self.keys):  # an address was taken for two, and each after it for another row's
            raise Incomplete

    def values(self, connection: Connection) -> dict[str, str | bytes]:
        """Two or three for all of them: to send and to store each row by itself takes longer than to find its customer."""
        values = {"fingerprints": bytes(self.fingerprints)}
        if connection.dialect.name == "sqlite":
            told = _quoted([f"{number} {key}" for number, key in zip(self.numbers, self.keys, strict=True)])
            return values | {"numbered_keys": f"[{told}]"}
        return values | {"numbers": f"{{{','.join(map(str, self.numbers))}}}", "keys": f"{{{_quoted(self.keys)}}}"}


def as_table(connection: Connection) -> Subquery:
    """A block's valid rows (row_number, email_key, fingerprint), out of its values."""
    fingerprints = bindparam("fingerprints", type_=LargeBinary)
    if connection.dialect.name == "sqlite":
        each = func.json_each(bindparam("numbered_keys")).table_valued("key", "value").c
        number, email_key = cast(each.value, Integer), func.substr(each.value, func.instr(each.value, " ") + 1)
        fingerprint = func.substr(fingerprints, each.key * SIZE + 1, SIZE)
    else:
        arrays = [
            cast(bindparam(name, type_=NullType()), ARRAY(kind))
            for name, kind in (("numbers", Integer), ("keys", String))
        ]
        each = func.unnest(*arrays).table_valued("row_number", "email_key", with_ordinality="nth").render_derived().c
        number, email_key = each.row_number, each.email_key
        fingerprint = func.substring(fingerprints, cast((each.nth - 1) * SIZE + 1, Integer), SIZE)
    columns = number.label("row_number"), email_key.label("email_key"), fingerprint.label("fingerprint")
    return select(*columns).subquery()


def _quoted(texts: Iterable[str]) -> str:
    """As JSON and PostgreSQL's arrays quote them, all at once; no valid address has a line's end in it."""
    quoted = "\n".join(texts).replace("\\", r"\\").replace('"', r"\"").replace("\n", '","')
    return f'"{quoted}"'
