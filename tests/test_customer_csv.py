"""A CSV as people send it."""

import csv
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purge.intake import customer_csv
from purge.intake.customer_csv import Refused

LIMITS = {"max_bytes": 1_000_000, "max_rows": 1_000}


def inspect(content: bytes, **limits) -> customer_csv.Shape:
    return customer_csv.inspect(io.BytesIO(content), **(LIMITS | limits))


def rows(content: bytes) -> list[customer_csv.Row]:
    shape = inspect(content)
    return list(customer_csv.read_rows(io.BytesIO(content), shape.encoding, shape.delimiter))


def cells(content: bytes) -> list[list[str]]:
    return [row.cells for row in rows(content)]


def refusal(content: bytes, **limits) -> str:
    with pytest.raises(Refused) as refused:
        inspect(content, **limits)
    return str(refused.value)


TWO = [["ann@people.com", "Ann"], ["zoë@people.com", "Zoë"]]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"], ids=["CRLF", "LF", "CR"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_usual_way_to_write_the_same_file_reads_the_same(end, delimiter, encoding):
    text = "".join(delimiter.join(row) + end for row in [["Email", "Name"], *TWO])
    shape = inspect(text.encode(encoding))
    assert cells(text.encode(encoding)) == TWO
    assert (shape.delimiter, shape.rows, shape.header) == (delimiter, 2, ("Email", "Name"))
    assert (shape.encoding == customer_csv.NEEDS_AGREEMENT) == (encoding == "cp1252")


def test_utf_16_big_endian_is_known_by_its_mark():
    assert cells(b"\xfe\xff" + "Email\nzoë@people.com\n".encode("utf-16-be")) == [["zoë@people.com"]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_one_column_needs_no_delimiter(delimiter):
    assert cells(b"Customer Email\nann@people.com\nben@mm.com") == [["ann@people.com"], ["ben@mm.com"]]


def test_a_comma_inside_a_name_does_not_make_a_semicolon_file_a_comma_file():
    content = b"Surname, first name;Email\nSmith, Ann;ann@people.com\nJones, Ben;ben@people.com\n"
    assert cells(content)[0] == ["Smith, Ann", "ann@people.com"]


def test_numbers_are_the_spreadsheets_own():
    content = b'\nName,Email\n"Ann\r\nMarie",ann@people.com\n\n , \nBen,ben@people.com\n\n\n'
    assert [(row.number, row.cells[1]) for row in rows(content)] == [(3, "ann@people.com"), (6, "ben@people.com")]
    assert inspect(content).blank_rows == 2


def test_trailing_separators_are_nothing():
    content = b"Email,Name,,\nann@people.com,Ann,,\nben@people.com,Ben\ncid@people.com,Cid,,,,\n"
    assert inspect(content).header == ("Email", "Name") and not any(row.ragged for row in rows(content))


def test_a_ragged_row_is_an_error_of_that_row():
    content = b"Email,Name\nann@people.com\nben@people.com,Ben,more\ncid@people.com,Cid\n"
    assert [row.ragged for row in rows(content)] == [
        "1 cell, but the header has 2",
        "3 cells, but the header has 2",
        None,
    ]


def test_a_column_without_a_name_gets_one():
    assert inspect(b"Email,,Name\na@b.com,x,y\n").header == ("Email", "Column 2", "Name")


def test_unusual_line_separators_inside_a_cell_end_no_line():
    assert cells("Name,Email\nA\u2028B\x85C,a@b.com\n".encode()) == [["A\u2028B\x85C", "a@b.com"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n\n,,\n", "empty"),
        (b"Email\n\n \n", "no data rows"),
        (b"Email\n", "no data rows"),
        (b'Email,Name\na@b.com,"Ann\nc@d.com,Ben\ne@f.com,Cid\n', "opened in line 2 is never closed"),
        (b'Email,Name\na@b.com,"Ann\nc@d.com,"Ben"\n', "opened in line 2 is never closed"),
        (b'Email,Name\na@b.com,"Ann" x\n', "line 2, text follows a closing quotation mark"),
        (b'Email,Name\na@b.com,"Ann\n' + b"c@d.com,Ben\n" * 5_000, "opened in line 2 is never closed"),
        (b"Email,email\na@b.com,c@d.com\n", "Columns 1 and 2 have the same name"),
        (b"Email, EMAIL \na@b.com,c@d.com\n", "Columns 1 and 2 have the same name"),
        (b"Email\na@b\0.com\n", "Line 2 holds NUL bytes"),
        ("Email\na@b.com\n".encode("utf-16-le"), "NUL bytes"),
        (b"PK\x03\x04rest", "a spreadsheet or a zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"%PDF-1.7", "a PDF, not a CSV. Save the list"),
        (b"\x89PNG\r\n\x1a\n\0", "a picture"),
        (b"sep=;\nEmail;Name\na@b.com;Ann\n", "The first line"),
        (b"sep=,\nEmail,Name\na@b.com,Ann\n", "The first line"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "a web page"),
        (b"Email\n" + b"a" * 40_000 + b"@b.com\n", "more than 32,767 characters"),
        (b"Email\n" + b"a,b" * 400_000, "Line 2 is longer than 1,000,000"),
        (b"Email\n" + b"\n" * 3 + b"a@b.com\xff\x81\n", "Line 5 holds bytes that are neither"),
        (b"\xef\xbb\xbfEmail\nzo\xeb@b.com\n", "Line 2 holds bytes that are not UTF-8"),
        (b"\xff\xfeE\0m\0a\0\n\0\x00\xd8a\0", "not UTF-16"),
        (b"Email\na@b.com\n" + b"\n" * 2_000_001 + b"b@b.com\n", "more than 2,000,000 blank rows"),
        (b"\n" * 2_000_001 + b"Email\na@b.com\n", "empty"),
        (b"ann@people.com\nben@people.com\n", "first row holds an e-mail address"),
        (",".join(f"c{n}" for n in range(1_001)).encode() + b"\na\n", "1,000 columns"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(content, words):
    sentence = refusal(content, max_bytes=10_000_000)
    assert words in sentence and "@" not in sentence


def test_too_many_bytes_are_refused_by_what_arrives():
    stream = io.BytesIO(b"Email\n" + b"ann@people.com\n" * 200_000)
    with pytest.raises(Refused, match="larger than 1 MB"):
        customer_csv.inspect(stream, **(LIMITS | {"max_rows": 10**9}))
    assert stream.tell() < 1_200_000


def test_too_many_rows_are_refused_and_exactly_enough_are_not():
    assert inspect(b"Email\n" + b"a@b.com\n" * 1_000).rows == 1_000
    assert "more than 1,000 rows" in refusal(b"Email\n" + b"a@b.com\n" * 1_001)


def test_an_unclosed_quote_costs_no_memory():
    content = b'Email\n"ann@people.com\n' + b"ben@people.com\n" * 600_000
    tracemalloc.start()
    refusal(content, max_bytes=10**9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000


def test_windows_1252_shows_the_rows_that_hang_on_it():
    content = "Email,Name\nann@people.com,Ann\nzoe@people.com,Zoë\n".encode("cp1252")
    affected = customer_csv.affected_rows(io.BytesIO(content), ",")
    assert [(row.number, row.cells[1]) for row in affected] == [(3, "Zoë")]


@pytest.mark.parametrize(
    ("header", "index"),
    [
        (("Customer Email",), 0),
        (("Name", "CustomerEmail"), 1),
        (("id", "customer_email"), 1),
        (("id", "E-mail address"), 1),
        (("E-Mail",), 0),
        (("EMAIL ADDRESS", "Name"), 0),
        (("email", "mail"), None),
        (("email", "Customer Email"), 1),
        (("Work email", "Home email"), None),
        (("Name", "Phone"), None),
        (("email sent at", "Name"), None),
    ],
)
def test_the_email_column_is_found_where_it_is_plain_and_never_guessed(header, index):
    assert customer_csv.match_email_column(header) == index


plain_cell = st.text(st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from("\n,;|\"'"), max_size=12)


@given(
    st.lists(st.lists(plain_cell, min_size=2, max_size=2), max_size=20),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_rows_in_are_rows_out(data, delimiter, end, encoding):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["E-mail", "Name"], ["a", "b"], *data])
    content = out.getvalue().encode(encoding)
    read = list(customer_csv.read_rows(io.BytesIO(content), encoding.removesuffix("-sig"), delimiter))
    expected = [(n, row) for n, row in enumerate([["a", "b"], *data], 2) if any(cell.strip() for cell in row)]
    assert [(row.number, row.cells) for row in read] == expected
    assert not any(row.ragged for row in read)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content):
    try:
        shape = inspect(content)
    except Refused as refused:
        assert str(refused).endswith(".")
    else:
        assert len(list(customer_csv.read_rows(io.BytesIO(content), shape.encoding, shape.delimiter))) == shape.rows
