"""A CSV as people send it: bytes in, rows and errors out."""

import csv
import io
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import BinaryIO, NamedTuple

from purge import email_address

NEEDS_AGREEMENT = "windows-1252"  # any bytes read as something in it, so a person must say whether they read right
MAX_COLUMNS = 1_000
MAX_CELL = 32_767  # characters; what a spreadsheet itself can hold
MAX_LINE = 1_000_000  # characters
MAX_BLANK_ROWS = 2_000_000  # a spreadsheet has room for half of them
DELIMITERS = ",;\t|"
SAMPLE_BYTES = 65_536
SAMPLE_ROWS = 100

_CODECS = {"utf-8": "utf-8-sig", "utf-16": "utf-16", NEEDS_AGREEMENT: "cp1252"}
_EMAIL_HEADERS = {"email", "emails", "mail", "emailaddress", "mailaddress", "emailid", "customeremailaddress"}
_FIELD_HEADER = "customeremail"
_FOREIGN = (
    (b"PK\x03\x04", "a spreadsheet or a zip file"),
    (b"PK\x05\x06", "a zip file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel spreadsheet"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"{\\rtf", "a text document"),
    (b"<", "a web page"),
)

csv.field_size_limit(MAX_CELL)


class Refused(Exception):
    """The file cannot be used; str() is one sentence for the admin, without anything personal."""


@dataclass(frozen=True)
class Shape:
    """What a file is made of; `rows` counts data rows, without the blank ones."""

    encoding: str
    delimiter: str
    header: tuple[str, ...]
    rows: int
    blank_rows: int


class Row(NamedTuple):
    """A data row, numbered as a spreadsheet shows it; `ragged` says in words that its cells do not fit the header."""

    number: int
    cells: list[str]
    ragged: str | None


def inspect(stream: BinaryIO, *, max_bytes: int, max_rows: int) -> Shape:
    """Look through the whole file, once, from where the stream stands at its beginning; raises Refused."""
    head = stream.read(SAMPLE_BYTES)
    _refuse_foreign(head)
    marked = head.startswith(
        (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
    )  # a mark says what it is; nothing else is tried
    plain = "utf-16" if marked and not head.startswith(b"\xef") else "utf-8"
    for encoding in (plain,) if marked else (plain, NEEDS_AGREEMENT):
        stream.seek(0)
        try:
            return _inspect_as(encoding, _delimiter(head, encoding), stream, max_bytes, max_rows)
        except UnicodeDecodeError:
            continue
    line = _line_of_bad_bytes(stream, encoding)
    expected = "neither UTF-8 nor windows-1252" if encoding == NEEDS_AGREEMENT else f"not {encoding.upper()}"
    raise Refused(f"Line {line:,} holds bytes that are {expected}. Save the file as CSV UTF-8.")


def read_header(stream: BinaryIO, encoding: str, delimiter: str) -> tuple[str, ...]:
    """The names of the columns."""
    return _header(_records(stream, encoding, delimiter))[1]


def read_rows(stream: BinaryIO, encoding: str, delimiter: str) -> Iterator[Row]:
    """Every data row but the blank ones."""
    records = _records(stream, encoding, delimiter)
    header_number, header = _header(records)
    width = len(header)
    for number, cells in enumerate(records, header_number + 1):
        if len(cells) != width:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) < width or any(map(str.strip, cells[width:])):
                yield Row(number, cells, f"{_cells(len(cells))}, but the header has {width}")
                continue
            cells = cells[:width]
        elif not cells[0].strip() and not any(map(str.strip, cells)):
            continue
        yield Row(number, cells, None)


def affected_rows(stream: BinaryIO, delimiter: str, limit: int = 20) -> list[Row]:
    """The first rows that would read otherwise in another encoding than windows-1252."""
    rows = read_rows(stream, NEEDS_AGREEMENT, delimiter)
    return list(islice((row for row in rows if not all(map(str.isascii, row.cells))), limit))


def plain_name(name: str) -> str:
    """A column's name, however it is spaced or written."""
    return re.sub(r"[\W_]", "", name).lower()


def match_email_column(header: tuple[str, ...]) -> int | None:
    """The column that is plainly the e-mail address; None when none is, or two are."""
    plain = [plain_name(name) for name in header]
    for wanted in ({_FIELD_HEADER}, _EMAIL_HEADERS):
        found = [index for index, name in enumerate(plain) if name in wanted]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _inspect_as(encoding: str, delimiter: str, stream: BinaryIO, max_bytes: int, max_rows: int) -> Shape:
    records = _records(io.BufferedReader(_Borrowed(stream, max_bytes), SAMPLE_BYTES), encoding, delimiter)
    _, header = _header(records)
    rows = blank = 0
    trailing = 0  # blank rows at the end of a file are nobody's concern
    for cells in records:
        if any(map(str.strip, cells)):
            rows += 1
            blank, trailing = blank + trailing, 0
            if rows > max_rows:
                raise Refused(f"The file has more than {max_rows:,} rows. Send it in parts.")
        else:
            trailing += 1
            if blank + trailing > MAX_BLANK_ROWS:
                raise Refused(f"The file has more than {MAX_BLANK_ROWS:,} blank rows. Remove them.")
    if not rows:
        raise Refused("The file has a header but no data rows.")
    return Shape(encoding, delimiter, header, rows, blank)


def _header(records: Iterator[list[str]]) -> tuple[int, tuple[str, ...]]:
    """The first row that is not blank, and its number; blank cells at its end are trailing separators."""
    numbered = ((number, [cell.strip() for cell in cells]) for number, cells in enumerate(records, 1))
    number, names = next((one for one in islice(numbered, MAX_BLANK_ROWS) if any(one[1])), (0, []))
    while names and not names[-1]:
        names.pop()
    if not names:
        raise Refused("The file is empty.")
    if len(names) == 1 and names[0].lower().startswith("sep="):
        raise Refused("The first line, “sep=…”, is a word to Excel and no header. Remove it.")
    if len(names) > MAX_COLUMNS:
        raise Refused(f"The file has more than {MAX_COLUMNS:,} columns.")
    if any(email_address.read(name)[0] for name in names):
        raise Refused("The first row holds an e-mail address. Put a row with the columns' names above it.")
    seen = {}
    for index, name in enumerate(names, 1):
        if name and (first := seen.setdefault(name.lower(), index)) != index:  # not the name: it may be somebody's
            raise Refused(f"Columns {first} and {index} have the same name. Rename or remove one of them.")
    return number, tuple(name or f"Column {index}" for index, name in enumerate(names, 1))


def _records(stream: BinaryIO, encoding: str, delimiter: str) -> Iterator[list[str]]:
    """Every record of the file, blank ones too; what breaks the CSV is refused with its line. Closes the stream."""
    text = io.TextIOWrapper(stream, _CODECS[encoding], newline="")
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    begun = 1
    try:
        for record in reader:
            yield record
            begun = reader.line_num + 1
    except csv.Error as error:
        raise Refused(_broken(str(error), begun, reader.line_num)) from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, MAX_LINE), ""), 1):
        if len(line) == MAX_LINE:
            raise Refused(f"Line {number:,} is longer than {MAX_LINE:,} characters. This does not look like a CSV.")
        if "\0" in line:
            raise Refused(f"Line {number:,} holds NUL bytes. This is not a text file; save it as CSV UTF-8.")
        yield line


def _broken(error: str, begun: int, line: int) -> str:
    if "field larger" in error and line == begun:
        return f"Line {line:,} has a cell of more than {MAX_CELL:,} characters."
    if "expected after" in error and line == begun:
        return f"In line {line:,}, text follows a closing quotation mark. Double the quotation marks inside a cell."
    return f"A quotation mark opened in line {begun:,} is never closed."


def _delimiter(head: bytes, encoding: str) -> str:
    """Of the four, the one that cuts most of the first rows into as many cells as the header, best with a plain e-mail column."""
    lines = re.findall(r"[^\r\n]*(?:\r\n?|\n|\Z)", head.decode(_CODECS[encoding], errors="replace"))
    found = {}
    for delimiter in DELIMITERS:
        with suppress(csv.Error):
            sample = [row for row in islice(csv.reader(lines, delimiter=delimiter), SAMPLE_ROWS) if any(row)]
            widths = [len(row) for row in sample]
            if sample and widths[0] > 1:
                plain = match_email_column(tuple(sample[0])) is not None
                found[delimiter] = (widths.count(widths[0]) / len(widths), plain, widths[0])
    return max(found, key=found.get, default=",")


def _refuse_foreign(head: bytes) -> None:
    if not head:
        raise Refused("The file is empty.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for mark, name in _FOREIGN:
        if start.startswith(mark):
            advice = "Open it in a spreadsheet and save it" if "spreadsheet" in name else "Save the list of customers"
            raise Refused(f"This is {name}, not a CSV. {advice} as CSV UTF-8.")


def _line_of_bad_bytes(stream: BinaryIO, encoding: str) -> int:
    stream.seek(0)
    borrowed = io.BufferedReader(_Borrowed(stream))
    text = io.TextIOWrapper(borrowed, _CODECS[encoding], errors="replace", newline="")
    lines = enumerate(iter(partial(text.readline, MAX_LINE), ""), 1)
    return next((number for number, line in lines if "\N{REPLACEMENT CHARACTER}" in line), 1)


def _cells(number: int) -> str:
    return "1 cell" if number == 1 else f"{number} cells"


class _Borrowed(io.RawIOBase):
    """A stream that whoever reads it cannot close, and that is refused as soon as more comes out of it than is allowed."""

    def __init__(self, stream: BinaryIO, limit: float = math.inf):
        self.stream, self.limit, self.count = stream, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.stream.read(len(buffer))
        self.count += len(data)
        if self.count > self.limit:
            raise Refused(f"The file is larger than {self.limit / 1e6:,.0f} MB. Send it in parts.")
        buffer[: len(data)] = data
        return len(data)
