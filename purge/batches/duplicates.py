"""Which rows of a file repeat another, and are duplicates of it."""

from array import array
from collections.abc import Iterator

from sqlalchemy import Column, ColumnElement, Select, func, select

from purge.batches.block import SIZE, Block
from purge.batches.model import PurgeRequest
from purge.erasure import engine as erasure
from purge.extensions import db

SHARES = 64  # of all valid rows; one is in memory as Python's own numbers
COMPARED_ROWS = 500_000  # that look repeated, at a time


class Seen:
    """The valid rows by the beginnings of their fingerprints, eight bytes a row; repeated rows have the same, and hardly any others do."""

    def __init__(self):
        self.shares = [(array("I"), array("I")) for _ in range(SHARES)]

    def add(self, block: Block) -> None:
        words = array("I", block.fingerprints)
        for number, beginning in zip(block.numbers, words[:: SIZE // words.itemsize], strict=True):
            numbers, beginnings = self.shares[beginning % SHARES]
            numbers.append(number)
            beginnings.append(beginning)

    def alike(self) -> Iterator[list[int]]:
        """The numbers of all rows that begin as another does, in order; as a rule at once, else in lists that share no beginning."""
        found = []
        for numbers, beginnings in self.shares:
            once, again = set(), set()
            for beginning in beginnings:
                (again if beginning in once else once).add(beginning)
            if again:
                found += [number for number, one in zip(numbers, beginnings, strict=True) if one in again]
            if len(found) >= COMPARED_ROWS:
                yield sorted(found)
                found = []
        if found:
            yield sorted(found)


def one_address(batch_id: int, alike: list[int]) -> Select:
    """Of the rows with one address all but the first, among these."""
    rows = PurgeRequest.__table__
    return _repeated(rows.c.fingerprint, rows.c.batch_id == batch_id, numbered(alike))


def one_customer(batch_id: int) -> Select:
    """The same of those with one customer, whose address changed while the check ran; as a rule none, as the index tells."""
    rows = PurgeRequest.__table__
    theirs = rows.c.batch_id == batch_id, rows.c.customer_id.is_not(None)
    several = select(rows.c.customer_id).where(*theirs).group_by(rows.c.customer_id).having(func.count() > 1)
    return _repeated(rows.c.customer_id, *theirs, rows.c.customer_id.in_(several))


def numbered(numbers: list[int]) -> ColumnElement[bool]:
    """The rows with these numbers, in order. And between the first and the last, or PostgreSQL, which may know nothing of them
    yet, takes twice as long."""
    number = PurgeRequest.__table__.c.row_number
    return erasure.among(number, numbers, db.engine) & number.between(numbers[0], numbers[-1])


def _repeated(same: Column, *where: ColumnElement[bool]) -> Select:
    rows = same.table
    nth = func.row_number().over(partition_by=same, order_by=rows.c.row_number).label("nth")
    numbered = select(rows.c.row_number, nth).where(*where).subquery()
    return select(numbered.c.row_number).where(numbered.c.nth > 1).order_by(numbered.c.row_number)
