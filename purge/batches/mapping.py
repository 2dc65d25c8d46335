"""Which column holds the address, and whether a row's type counts: the first rows under a mapping, and the mapping itself."""

from dataclasses import dataclass
from itertools import islice

from sqlalchemy import update

from purge import email_address
from purge.batches import upload
from purge.batches.model import Batch, NotPossible, Reason, State
from purge.evidence import audit
from purge.evidence.audit import Act
from purge.extensions import db, now
from purge.intake import customer_csv

PREVIEW_ROWS = 100
SHOWN_COLUMNS = 30
SAMPLES = 3
TYPE, PURGE_TYPE = "type", "purge"
WHATEVER_TYPE = "Every row counts, whatever its type: so it was said when the fields were mapped."


@dataclass(frozen=True)
class PreviewRow:
    """A row as the spreadsheet numbers it; `problem` says in words what is wrong, with `problem_column` where it is one cell."""

    number: int
    cells: list[str]
    problem: str | None = None
    problem_column: int | None = None


@dataclass(frozen=True)
class Preview:
    """The first rows of a file under a mapping, and a few values of each column."""

    header: tuple[str, ...]
    samples: list[list[str]]
    column: int | None
    types: list[int]  # the columns called `type`, which say what a row is for
    type_column: int | None  # the first of them, where it counts
    shown: list[int]  # the columns whose cells are shown, the chosen one and these among them
    rows: list[PreviewRow]

    @property
    def invalid(self) -> int:
        return sum(row.problem is not None for row in self.rows)

    @property
    def of_another_type(self) -> int:
        return sum(row.problem_column in self.types and row.problem_column != self.column for row in self.rows)

    @property
    def valid(self) -> int:
        return len(self.rows) - self.invalid if self.column is not None else 0


def preview(batch: Batch, column: int | None, any_type: bool = False) -> Preview:
    """The first 100 rows, each with its verdict under this mapping; a column that is not there counts as none."""
    with upload.open_upload(batch, db.session.scalar) as file:
        header = customer_csv.read_header(file, batch.encoding, batch.delimiter)
    with upload.open_upload(batch, db.session.scalar) as file:
        rows = list(islice(customer_csv.read_rows(file, batch.encoding, batch.delimiter), PREVIEW_ROWS))
    column = column if column is not None and 0 <= column < len(header) else None
    types = [index for index, name in enumerate(header) if customer_csv.plain_name(name) == TYPE]
    type_column = None if any_type or not types else types[0]
    return Preview(
        header=header,
        samples=[_samples(rows, index) for index in range(len(header))],
        column=column,
        types=types,
        type_column=type_column,
        shown=[index for index in range(len(header)) if index < SHOWN_COLUMNS or index in (column, *types)],
        rows=[_judged(row, column, type_column) for row in rows],
    )


def affected_rows(batch: Batch) -> list[customer_csv.Row]:
    """The first rows that hang on the encoding which somebody must agree to."""
    with upload.open_upload(batch, db.session.scalar) as file:
        return [] if batch.encoding_agreed else customer_csv.affected_rows(file, batch.delimiter)


def map_fields(
    batch: Batch, column: int, encoding_agreed: bool, any_type: bool = False, user_id: int | None = None
) -> None:
    """Settle the mapping and hand the batch to the check; raises NotPossible.

    Where a column says what each row is for, a row for something else is invalid, unless somebody says that any type will do.
    """
    shown = preview(batch, column, any_type)
    if shown.column is None:
        raise NotPossible("Choose the column that holds the customers' e-mail addresses.")
    if len(shown.types) > 1 and not any_type:
        raise NotPossible("The file has two columns called “type”. Rename or remove one of them.")
    if not (batch.encoding_agreed or encoding_agreed):
        raise NotPossible("Say first whether the rows with accents read right.")
    said, told = ({"caution": WHATEVER_TYPE}, {"any_type": True}) if any_type and shown.types else ({}, {})
    moved = db.session.execute(
        update(Batch)
        .where(Batch.id == batch.id, Batch.state == State.UPLOADED)
        .values(
            state=State.CHECKING,
            email_column=column,
            type_column=shown.type_column,
            encoding_agreed=True,
            moved_at=now(),
            **said,
        )
    )
    if not moved.rowcount:
        raise NotPossible("The fields of this batch have been mapped already.")
    audit.record(Act.MAPPED, user_id, batch.id, column=column + 1, **told)


def verdict(row: customer_csv.Row, column: int, type_column: int | None) -> tuple[str | None, str | None]:
    """The normal form of the address in a row, or the reason why there is none."""
    if row.ragged:
        return None, Reason.RAGGED
    if type_column is not None and row.cells[type_column].strip().lower() != PURGE_TYPE:
        return None, Reason.OTHER_TYPE
    return email_address.read(row.cells[column])


def _judged(row: customer_csv.Row, column: int | None, type_column: int | None) -> PreviewRow:
    if row.ragged:
        return PreviewRow(row.number, row.cells, row.ragged)
    problem = None if column is None else verdict(row, column, type_column)[1]
    if problem is None:
        return PreviewRow(row.number, row.cells)
    where = type_column if problem is Reason.OTHER_TYPE else column
    return PreviewRow(row.number, row.cells, problem.words, where)


def _samples(rows: list[customer_csv.Row], index: int) -> list[str]:
    cells = (row.cells[index].strip() for row in rows if not row.ragged)
    return list(dict.fromkeys(cell for cell in cells if cell))[:SAMPLES]
