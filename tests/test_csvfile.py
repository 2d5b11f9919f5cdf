"""The CSV reader, beside Python's csv module: any dialect, the same rows, each with its line as it came."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers import csvfile
from tests.conftest import ROOT

COLUMNS = ("id", "name", "note")
SPECTRUM = ROOT.parent / "shared" / "data" / "csv-spectrum" / "csvs"

texts = st.text(
    st.one_of(
        st.sampled_from(" ,;\t\"\n\r'é€😀"), st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
    ),
    max_size=12,
)
tables = st.lists(st.tuples(st.integers(1, 10**6).map(str), texts, texts), min_size=1, max_size=8)


def read(content: bytes, header: str = "auto", columns: tuple[str, ...] = COLUMNS) -> list[csvfile.Row]:
    return [*csvfile.rows(csvfile.Unpacked(io.BytesIO(content)), columns, header)]


def write(rows, delimiter: str, end: str, quoting: int) -> str:
    """The rows as Python's csv writes them."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return buffer.getvalue()


@given(
    table=tables,
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    header=st.sampled_from([None, str.lower, str.upper, str.title]),
    order=st.permutations(range(3)),
    last=st.sampled_from(["", "\n", "\r\n", "\n \n\t\n", "\r\n\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    pack=st.sampled_from([bytes, gzip.compress]),
)
@example([("1", "a", "b")], ",", "\n", str.upper, [2, 0, 1], "", "utf-8-sig", bytes)
@example([("1", ";", ";")], "\t", "\n", None, [0, 1, 2], "", "utf-8", bytes)
@example([("1", ";\n", ";")], "\t", "\n", None, [0, 1, 2], "", "utf-8", bytes)
def test_what_was_written_is_read(table, delimiter, end, header, order, last, encoding, pack):
    order = order if header else range(3)
    rows = [[row[place] for place in order] for row in table]
    names = [[header(COLUMNS[place]) for place in order]] if header else []
    text = write(names + rows, delimiter, end, csv.QUOTE_ALL).removesuffix(end) + last

    found = read(pack(text.encode(encoding)))

    assert [tuple(row.fields) for row in found] == table
    assert [row.unreadable for row in found] == [None] * len(table)


@given(table=tables, delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_each_row_knows_its_line_and_its_text(table, delimiter, end):
    written = [write([row], delimiter, end, csv.QUOTE_ALL) for row in table]
    text = "".join(written)

    found = read(text.encode())

    assert [row.raw for row in found] == [row.removesuffix(end) for row in written]
    before = ["".join(written[:place]) for place in range(len(written))]
    assert [row.line for row in found] == [
        1 + part.count("\n") + part.count("\r") - part.count("\r\n") for part in before
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_refused(content):
    try:
        read(content)
    except csvfile.Unreadable as error:
        assert str(error)


@pytest.mark.parametrize(
    "path", sorted(SPECTRUM.glob("*.csv")) or [None], ids=lambda path: path.stem if path else "absent"
)
def test_files_that_break_parsers_are_read(path):
    if path is None:
        pytest.skip("../shared/data/csv-spectrum is not here")
    names, *rows = [row for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")) if row]
    found = read(path.read_bytes(), "yes", tuple(name.casefold() for name in names))
    assert [row.fields for row in found] == rows
    meant = path.parent / "json" / f"{path.stem}.json"
    if meant.exists():
        assert [dict(zip(names, row.fields, strict=True)) for row in found] == json.loads(meant.read_text())


@pytest.mark.parametrize(
    "content, reason",
    [
        ("1,Café,x".encode("latin-1"), "not UTF-8"),
        (b"\xff\xfe1", "not UTF-8"),
        (gzip.compress(b"1,a,b\n" * 100, mtime=0)[:-9], "damaged gzip"),
        (b"\x1f\x8b" + b"x" * 100, "damaged gzip"),
        (b"1," + b"x" * (csvfile.FIELD_LIMIT + 1) + b",b", "field larger"),
        (b"1," + b"x," * (csvfile.ROW_LIMIT // 2), "row is longer"),
        (b'1,a,"' + b'x\n","' * (csvfile.ROW_LIMIT // 4), "row is longer"),
    ],
    ids=["Latin-1", "half a character", "gzip cut off", "no gzip", "a field", "a line", "a row of many lines"],
)
def test_a_file_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(csvfile.Unreadable, match=reason):
        read(content)


def test_a_bomb_is_stopped_while_it_unpacks(monkeypatch):
    monkeypatch.setattr(csvfile, "UNPACKED_LIMIT", 10**6)
    with pytest.raises(csvfile.TooLarge):
        read(gzip.compress(b"1,a,b\n" * 10**6, mtime=0))


def test_a_row_with_nul_is_a_row_that_cannot_be_stored():
    assert read(b"1,a\0,b\n2,c,d") == [
        csvfile.Row(1, "1,a␀,b", [], "The row holds NUL."),
        csvfile.Row(2, "2,c,d", ["2", "c", "d"], None),
    ]


def test_a_line_of_a_million_columns_is_a_row():
    assert [len(row.fields) for row in read(b"," * 999_999 + b"\n1,a,b\n")] == [1_000_000, 3]


def test_an_unclosed_quote_takes_the_rest_of_the_file():
    assert [row.fields for row in read(b'1,a,b\n2,"c,d\n3,e,f\n')] == [["1", "a", "b"], ["2", "c,d\n3,e,f\n"]]


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n\t\n", b"\xef\xbb\xbf", b"ID,Name,NOTE\n"])
def test_a_file_without_data_has_no_rows(content):
    assert read(content) == []


def test_a_header_is_taken_or_not_as_the_client_says():
    assert [row.fields[0] for row in read(b"number,who,what\n1,a,b\n", "yes")] == ["1"]
    assert [row.fields[0] for row in read(b"id,name,note\n1,a,b\n", "no")] == ["id", "1"]
    assert [row.line for row in read(b"\n\nid,name,note\n1,a,b\n")] == [4]
