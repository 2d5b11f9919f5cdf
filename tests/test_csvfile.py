"""The CSV reader, beside Python's csv module: any dialect, the same rows, each with its line as it came."""

import csv
import gzip
import io
import json
import re
import time
from contextlib import suppress
from itertools import combinations, pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.bulk import csv_delimiter, csv_header, csv_reader, csv_rows, errors, loading
from tests.conftest import ROOT, first

COLUMNS = ("id", "name", "note")
SPECTRUM = ROOT.parent / "shared" / "data" / "csv-spectrum" / "csvs"

texts = st.text(
    st.one_of(
        st.sampled_from(" ,;\t\"\n\r'é€😀"), st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
    ),
    max_size=12,
)
tables = st.lists(st.tuples(st.integers(1, 10**6).map(str), texts, texts), min_size=1, max_size=8)


def read(content: bytes, header: str = "auto", columns: tuple[str, ...] = COLUMNS) -> list[csv_reader.Row]:
    return [*csv_reader.rows(csv_reader.Unpacked(io.BytesIO(content)), columns, header)]


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
    except errors.Unreadable as error:
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
        (b"1," + b"x" * (csv_rows.FIELD_LIMIT + 1) + b",b", "field larger"),
        (b"1" + (b"," + b"x" * csv_rows.FIELD_LIMIT) * 8, "row is longer"),
        (b"1" + (b',"' + b"x\n" * (csv_rows.FIELD_LIMIT // 2) + b'"') * 8, "row is longer"),
        (b"1," + b"," * (csv_rows.FIELDS_LIMIT + 1), "row has more than"),
        (b'1,a,"' + b'x\n","' * (csv_rows.FIELDS_LIMIT + 2**17), "row has more than"),
    ],
    ids=[
        "Latin-1",
        "half a character",
        "gzip cut off",
        "no gzip",
        "a field",
        "a line",
        "a row of many lines",
        "fields",
        "fields of many lines",
    ],
)
def test_a_file_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(errors.Unreadable, match=reason):
        read(content)


def test_a_bomb_is_stopped_while_it_unpacks(monkeypatch):
    monkeypatch.setattr(csv_reader, "UNPACKED_LIMIT", 10**6)
    with pytest.raises(errors.TooLarge):
        read(gzip.compress(b"1,a,b\n" * 10**6, mtime=0))


def test_a_row_with_nul_is_a_row_that_cannot_be_stored():
    assert read(b"1,a\0,b\n2,c,d") == [
        csv_reader.Row(1, "1,a␀,b", [], "The row holds NUL."),
        csv_reader.Row(2, "2,c,d", ["2", "c", "d"], None),
    ]


def test_a_line_of_half_a_million_columns_is_a_row():
    assert [len(row.fields) for row in read(b"1" + b"," * 499_999 + b"\n1,a,b\n")] == [500_000, 3]


def test_a_file_may_be_longer_than_any_row(monkeypatch):
    for module in (csv_reader, csv_rows):
        monkeypatch.setattr(module, "ROW_LIMIT", 100)
    assert len(read(b"1,a,b\n" * 100)) == 100


@pytest.mark.parametrize(
    ("before", "blank"),
    [
        *(("", blank) for blank in ("\n", " \r\n", ",,\n", ";;\n", "\t,\n", " , \n")),
        *(
            (before, blank)
            for before in ("sep=,\n", "1,a,b\n", "id,name,note\n")
            for blank in ("\n", " \r\n", ",,\n", '"",\n', " , \n")
        ),
    ],
)
def test_no_more_than_so_many_rows_may_be_blank(monkeypatch, before, blank):
    monkeypatch.setattr(csv_rows, "BLANK_LIMIT", 100)
    assert read(f"{before}{blank * 100}2,c,d".encode())[-1].fields == ["2", "c", "d"]
    with pytest.raises(errors.Unreadable, match="More than 100 rows are blank"):
        read(f"{before}{blank * 101}2,c,d".encode())


@pytest.mark.parametrize("delimiter", csv_delimiter.DELIMITERS)
@pytest.mark.parametrize("blank", [",,", ";;", "\t\t", " ; ", ""])
def test_any_number_of_rows_of_nothing_may_stand_before_a_file(blank, delimiter):
    lines = [blank] * 50 + [delimiter.join(row) for row in (("1", "a, b; c", "d"), ("2", "e", "f"))]
    found = read("\n".join(lines).replace("a, b; c", '"a, b; c"').encode(), columns=("id", "name", "note"))
    assert [(row.line, row.fields) for row in found] == [(51, ["1", "a, b; c", "d"]), (52, ["2", "e", "f"])]


# Quotes out of order --------------------------------------------------------------------------------------------------

unquoted = st.text(st.sampled_from("ab é'€\u2028\x0b#:"), min_size=1, max_size=6)
good = st.one_of(
    unquoted,
    st.builds('"a{}"'.format, st.text(st.sampled_from("ab,;\té"), max_size=6)),
    st.builds('"{}""{}"'.format, unquoted, unquoted),
    st.builds('"{}\n{}"'.format, unquoted, unquoted),
    st.just('""'),
)
bad = st.one_of(
    st.builds('"{}'.format, unquoted),
    st.builds('"{}"{}'.format, unquoted, unquoted),
    st.builds('"{}" "{}"'.format, unquoted, unquoted),
    st.builds('"""{}'.format, unquoted),
)


@given(
    written=st.lists(st.tuples(good, st.one_of(good, bad)), min_size=1, max_size=12),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
)
@example([("a", '"b'), ("a", "b"), ("a", '"b"'), ("a", '"b')], ",", "\n", False)
@example([("a", '"b'), ("a", '"b\nc"'), ("a", '"b"c'), ("a", '"b\nc"')], ",", "\r\n", True)
def test_each_row_is_what_it_is_alone_whatever_stands_around_it(written, delimiter, end, last):
    texts = [delimiter.join([str(id), *fields]).replace("\n", end) for id, fields in enumerate(written, 1)]
    found = read(f"sep={delimiter}{end}{end.join(texts)}{end * last}".encode(), "no")
    line, alone = 2, []
    for text in texts:
        lines = io.StringIO(text, newline="")
        alone += [row._replace(line=line + row.line - 1) for row in csv_rows.records(lines, delimiter)]
        line += text.count(end) + 1
    assert [(row.line, row.raw, row.fields, row.unreadable) for row in found] == [tuple(row) for row in alone]
    assert end.join(row.raw for row in found) == end.join(texts)


FAULTS = {
    b'1,"a\n2,"b"\n3,c\n': ["not closed", None, None],
    b'1,a\n2,"b\n3,c\n4,d\n': [None, "not closed", None, None],
    b'1,"a"b\n2,c': ["behind", None],
    b'1,"a" \n2,c': ["behind", None],
    b'1,"a""\n2,c': ["not closed", None],
    b'1,16"\n2,a "b" c\n3,x""\n': [None, None, None],
    b'1,"a\n"\n2,"\n\n3,c': [None, "not closed", None],
    b'"\n"\n"': ["not closed"],
    b'1,"a\x00\n2,b': ["not closed", None],
}


@pytest.mark.parametrize("content", FAULTS)
def test_a_row_of_quotes_out_of_order_is_refused_and_reading_goes_on_at_the_next_line(content):
    found = read(content, "no", ("id", "name"))
    assert len(found) == len(FAULTS[content])
    for row, reason in zip(found, FAULTS[content], strict=True):
        assert (row.unreadable is None) if reason is None else (reason in row.unreadable)


@pytest.mark.parametrize("line", ['a",",', '1,"a', '1,"a"b', '","x', '"""'])
def test_no_file_is_read_again_and_again_for_its_quotes(line):
    """Each line of these opens a quote for all that follow; reading from each to the end would take days."""
    found = read(b"sep=,\n" + f"{line}\n".encode() * 20_000 + b"1,a", "no", ("id", "name"))
    assert found[-1].fields == ["1", "a"] and sum(row.raw.count("\n") + 1 for row in found) == 20_001


def test_an_open_quote_in_a_large_file_costs_its_own_row():
    content = b'1,"a\n' + b"2,b\n" * (csv_rows.FIELD_LIMIT // 4)
    found = read(content, "no", ("id", "name"))
    assert (len(found), [row.unreadable for row in found[:2]]) == (
        1 + csv_rows.FIELD_LIMIT // 4,
        ["A quote is not closed.", None],
    )


MANY = 10**6
"""Lines: gzip packs so many to a kilobyte."""

OPEN = {
    "newlines": b'1,"' + b"\n" * MANY,
    "returns": b'1,"' + b"\r" * MANY,
    "both": b'1,"' + b"\r\n" * (MANY // 2),
    "rows": b'1,"' + b"x\n" * (MANY // 2),
    "delimiters": b'1,"' + b",\n" * (MANY // 2),
    "quotes": b'1,"\n' * (MANY // 4),
    "a bad end": b'1,"' + b"\n" * MANY + b'"x\n' + b"2,b\n" * 1000,
    "a good end": b'1,"' + b"\n" * MANY + b'"\n',
    "many fields": b"1" + (b',"' + b"\n" * MANY + b'"') * 7 + b',"' + b"\n" * MANY,
    "many good fields": b"1" + (b',"' + b"\n" * MANY + b'"') * 7,
    "no quote": b"\n" * MANY,
    **{f"long fields of {each}": f"1,{each * 10**6}\n".encode() * 20 for each in ("a", "\u0130", "\ufb04", "\u0323")},
    **{f"a line of {end!r}": b"1,a" + end * (MANY // 2) + b"\n1,a" for end in (b",", b";", b"\t")},
    "a wide header": b"id,department" + b",x" * (MANY // 2) + b"\n1,a",
    "a wide header of blanks": b"id,department" + b"," * (MANY // 2) + b"\n1,a",
    "wide titles": (b"x" + b"," * (MANY // 5) + b"\n") * 6 + b"1,a",
    **{f"a long line of {end!r}": b"1,a" + end * (8 * MANY) + b"\n1,a" for end in (b",", b";", b"\t")},
}


def longest_without_a_turn(monkeypatch, packed: bytes) -> float:
    """Seconds of CPU that the reading of a file takes at a time, before others have a turn."""
    turns = [time.thread_time()]
    for module in (csv_reader, csv_rows, csv_delimiter):
        monkeypatch.setattr(module, "next_turn", lambda: turns.append(time.thread_time()))
    rows = csv_reader.rows(csv_reader.Unpacked(io.BytesIO(packed)), ("id", "department"), "auto")
    with suppress(errors.Unreadable):  # too many are blank
        for _ in loading.staged("departments", rows, MANY):
            pass
    turns.append(time.thread_time())
    return max(end - begin for begin, end in pairwise(turns))


@pytest.mark.parametrize("before", [b"", b"1,a\n" * 1000, b"id,version,department\n"], ids=["", "rows", "header"])
@pytest.mark.parametrize("content", first(3, OPEN.values()), ids=OPEN)
def test_an_open_quote_before_many_lines_and_a_line_of_many_fields_let_others_have_their_turn(
    monkeypatch, content, before
):
    packed = gzip.compress(before + content, mtime=0)
    tries = (longest_without_a_turn(monkeypatch, packed) for _ in range(3))
    assert any(took <= 0.05 for took in tries), "another process may have had the caches, but not each time"


PACKED = {
    "a name without an end": b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"a" * 2**24,
    "a comment without an end": b"\x1f\x8b\x08\x10\0\0\0\0\0\0" + b"a" * 2**24,
    "members of nothing": gzip.compress(b"", mtime=0) * 400_000,
    "members of little": gzip.compress(b"1,a\n", mtime=0) * 100_000,
    "padding": gzip.compress(b"1,a\n", mtime=0) + b"\0" * 2**24,
    "padding between members": (gzip.compress(b"1,a\n", mtime=0) + b"\0" * 2**12) * 2000,
    "a sum that is wrong": gzip.compress(b"1,a\n" * 10**6, mtime=0)[:-8] + b"\0" * 8,
    "what is no member": gzip.compress(b"1,a\n", mtime=0) + b"a" * 2**24,
}


@pytest.mark.parametrize("packed", first(3, PACKED.values()), ids=PACKED)
def test_whatever_a_gzip_holds_instead_of_rows_others_have_their_turn(monkeypatch, packed):
    assert any(longest_without_a_turn(monkeypatch, packed) <= 0.05 for _ in range(3))


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 15])
def test_members_follow_each_other_and_padding_and_none_may_be_cut(cut):
    member = gzip.compress(b"1,a\n2,b\n", mtime=0)
    whole = [["1", "a"], ["2", "b"]]
    for packed, times in ((member, 1), (member * 3, 3), (member + b"\0" * 600 + member, 2), (member + b"\0", 1)):
        assert [row.fields for row in read(packed, "no", ("id", "name"))] == whole * times
        with pytest.raises(errors.Unreadable):
            read(packed.rstrip(b"\0")[:-cut], "no", ("id", "name"))
    with pytest.raises(errors.Unreadable):
        read(member + b"1,a\n", "no", ("id", "name"))


# What stands before the rows ------------------------------------------------------------------------------------------

EMPLOYEE = ("id", "name", "datetime", "department_id", "job_id")
FULL = {column: str(place) for place, column in enumerate(EMPLOYEE, 1)}


@given(order=st.permutations([*EMPLOYEE, "version", "created_at", "updated_at", ""]), extra=st.integers(0, 4))
def test_a_header_is_taken_by_name_with_columns_that_only_exports_have(order, extra):
    spare = [name for name in order if name not in EMPLOYEE][extra:]
    names = [name for name in order if name not in spare]
    content = ",".join(names) + "\n" + ",".join(FULL.get(name, "x") for name in names) + "\n"
    for header in ("auto", "yes"):
        assert [row.fields for row in read(content.encode(), header, EMPLOYEE)] == [[*FULL.values()]]


@given(order=st.permutations(EMPLOYEE), unknown=st.sets(st.sampled_from(EMPLOYEE), min_size=1, max_size=4))
def test_a_header_known_in_part_is_taken_by_name_or_refused(order, unknown):
    names = [f"my {name}" if name in unknown else name for name in order]
    content = (",".join(names) + "\n" + ",".join(FULL[name] for name in order)).encode()
    for header in ("auto", "yes"):
        if len(unknown) == 1:  # the one that is left
            assert [row.fields for row in read(content, header, EMPLOYEE)] == [[*FULL.values()]]
        else:
            with pytest.raises(errors.Unreadable, match=r"found .*my .*; expected id, name, datetime"):
                read(content, header, EMPLOYEE)


@pytest.mark.parametrize(
    "content",
    [
        "wer,wann\n1,a",
        "id,id,name\n1,2,a",
        "id,name,salary\n1,a,7",
        "id\n1",
        "id,who,when\n1,a,b",
        "Personen\nnummer,wer\n1,a",
    ],
)
def test_a_first_row_of_other_names_is_never_followed_by_columns_by_their_place(content):
    with pytest.raises(errors.Unreadable, match=r"expected id, name, in any order"):
        read(content.encode(), "auto", ("id", "name"))


def instead(table: str) -> list[tuple[str, ...]]:
    """The columns of a table with the name of each other column of ours instead of each, and of all by another's."""
    columns = csv_header.COLUMNS[table]
    others = sorted(csv_header.OURS - {*columns})
    one = [tuple(other if each == column else each for each in columns) for column in columns for other in others]
    return [*one, *combinations(others, len(columns))]


@pytest.mark.parametrize("header", ["auto", "yes"])
@pytest.mark.parametrize(
    ("table", "names"), [(table, names) for table in csv_header.COLUMNS for names in instead(table)]
)
def test_the_name_of_another_column_of_ours_is_no_other_word_for_one(table, names, header):
    """A file of departments that was sent to jobs would be jobs."""
    expected = ", ".join(csv_header.COLUMNS[table])
    for more in ([], ["version"], ["version", "created_at", "updated_at"]):
        content = "\n".join(",".join(row) for row in ([*names, *more], "1" * len([*names, *more])))
        with pytest.raises(errors.Unreadable, match=f"found {', '.join([*names, *more])}; expected {expected}"):
            read(content.encode(), header, csv_header.COLUMNS[table])


@pytest.mark.parametrize("table", csv_header.COLUMNS)
def test_a_word_of_its_own_for_any_one_column_is_taken(table):
    columns = csv_header.COLUMNS[table]
    row = [str(place) for place in range(1, len(columns) + 1)]
    for own in ("nom", "título", "name", "department name", "title"):
        for column in columns if own not in columns else ():
            names = [own if each == column else each for each in columns]
            found = read(f"{','.join(names)}\n{','.join(row)}".encode(), columns=columns)
            assert [each.fields for each in found] == [row]


@pytest.mark.parametrize("names", ["name,id", "version,name,id"])
@pytest.mark.parametrize("more", [-1, 1, 5])
def test_a_row_of_another_width_than_its_header_is_not_cut_to_it(names, more):
    good = ",".join("321"[-names.count(",") - 1 :])
    other = ",".join("abcdefgh"[: names.count(",") + 1 + more])
    found = read(f"{names}\n{good}\n{other}\n{good}\n".encode(), "auto", ("id", "name"))
    assert [row.fields for row in (found[0], found[2])] == [["1", "2"]] * 2
    assert found[1].unreadable or len(found[1].fields) != 2


def test_more_lines_than_a_title_has_are_refused():
    title, rows = "Ours\n" * csv_header.TITLE_LIMIT, "1,a\n2,b\n"
    assert len(read((title + rows).encode(), "auto", ("id", "name"))) == 2
    with pytest.raises(errors.Unreadable, match="found ours"):
        read((title + "Ours\n" + rows).encode(), "auto", ("id", "name"))


BEFORE = {
    "a statement of the delimiter": "sep=;\n",
    "a quoted one, after blanks": '\n \n"SEP=;"\r\n',
    "a title": "Our people\n",
    "a title as a spreadsheet saves it": "Our people;\n;\n",
    "a title of some lines": "Our people\n\nall of them;\n\n",
    "both": "sep=;\nOur people\n",
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("header", ["", "Name;ID\n"])
def test_what_stands_before_the_rows_is_no_row(before, header):
    pair = "{1};{0}" if header else "{0};{1}"
    rows = [("1", "Sales, Marketing"), ("2", "R,D"), ("3", "IT")]
    content = before + header + "".join(pair.format(*row) + "\n" for row in rows) + ";\n ; \n"
    found = read(content.encode(), "auto", ("id", "name"))
    assert [tuple(row.fields) for row in found] == rows
    first = len((before + header).splitlines()) + 1
    assert [row.line for row in found] == [first, first + 1, first + 2]


SIMPLE = {
    "departments": ("1", "Sales"),
    "jobs": ("1", "Clerk"),
    "employees": ("1", "Ann", "2021-01-02T03:04:05Z", "3", "4"),
}
"""A row of each table."""

EXTRA = {"version": "7", "created_at": "2026-01-02T03:04:05.678901Z", "updated_at": "2026-01-02T03:04:05.678901Z"}

NO_DATA = [
    *("Hired, 2021", "Hired, 2021\n", "Hired\nby HR, 2021", "Report,of,hired,people,2021", "Hired in 2021,,,,\n,,,,"),
    *(
        "# exported by HR, 2021",
        '"Hired, 2021"',
        '"Hired',
        '"1"x,A,2021-01-01,1,2',
        "1,,,,",
        "Ours, all of them",
        ",Legal",
    ),
    *(
        "2021,Hired,",
        "1,2,3,4,5,6,7",
        "Ann,Bob,1,2,3",
        "x,2021",
        "Hired; 2021",
        "Hired\t2021;,",
        "job title, department name, 1",
    ),
]
"""What may stand before a header and cannot be stored in any table, whatever divides its fields."""

DATA = ["2021,Hired", "2021;Hired", "9,A,2021-01-01,1,1", "9\tA\t2021-01-01T00:00:00Z\t1\t1"]


def staged(content: bytes, table: str, header: str = "auto") -> list[tuple]:
    """The rows that may be stored, their fields in the order of the columns."""
    columns = csv_header.COLUMNS[table]
    rows = loading.staged(table, read(content, header, columns), 1000, header)
    found = [
        tuple(row.split("\t")[2:]) if isinstance(row, str) else row[4 : 4 + len(columns)]
        for row in rows
        if not is_reject(row, columns)
    ]
    return [tuple(field.rstrip("\n") for field in row) for row in found]


def is_reject(row: object, columns: tuple[str, ...]) -> bool:
    return not isinstance(row, str) and (
        row[2] != len(columns) or row[3] is not None or not all(row[4 : 4 + len(columns)]) or not row[4].isdecimal()
    )


def headed(
    table: str, before: list[str], order: list[str], delimiter: str, rows: int = 3
) -> tuple[bytes, list[tuple[str, ...]]]:
    """A file with lines before its header, and its rows as they are meant."""
    columns = csv_header.COLUMNS[table]
    meant = [(str(id), *SIMPLE[table][1:]) for id in range(1, rows + 1)]
    known = [EXTRA | dict(zip(columns, row, strict=True)) for row in meant]
    lines = [*before, delimiter.join(order), *(delimiter.join(row[name] for name in order) for row in known)]
    return "\n".join(lines).encode(), meant


orders = {
    table: st.one_of(st.permutations(columns), st.permutations([*columns, "version"]))
    for table, columns in csv_header.COLUMNS.items()
}


@pytest.mark.parametrize("header", ["auto", "yes"])
@pytest.mark.parametrize("table", csv_header.COLUMNS)
@given(data=st.data(), delimiter=st.sampled_from(",;\t"))
def test_a_header_is_found_behind_lines_that_are_no_data(table, header, data, delimiter):
    before = data.draw(st.lists(st.sampled_from(NO_DATA), min_size=1, max_size=2))
    content, meant = headed(table, before, data.draw(orders[table]), delimiter)
    assert staged(content, table, header) == meant


@pytest.mark.parametrize("header", ["auto", "yes"])
@pytest.mark.parametrize("table", csv_header.COLUMNS)
@given(data=st.data(), delimiter=st.sampled_from(",;\t"))
def test_columns_are_never_taken_by_place_where_there_is_a_header(table, header, data, delimiter):
    """Whatever stands before it, and however much: by name, refused as a whole, or row by row."""
    before = data.draw(st.lists(st.sampled_from(NO_DATA + DATA), min_size=1, max_size=30))
    content, meant = headed(table, before, data.draw(orders[table]), delimiter)
    try:
        found = staged(content, table, header)
    except errors.Unreadable as error:
        assert re.search(r"header.*found .*; expected id, |line \d+ is a header", str(error), re.IGNORECASE | re.DOTALL)
    else:
        assert [row for row in found if row in meant or row[0] in ("1", "2", "3")] in (meant, [])


@pytest.mark.parametrize("table", csv_header.COLUMNS)
@pytest.mark.parametrize("place", first(2, [6, 5000, 1, 5, 7, 20, 21]))
def test_a_header_of_another_order_behind_rows_is_told_with_its_line_and_one_of_the_same_is_a_reject(table, place):
    columns = csv_header.COLUMNS[table]
    rows = [",".join((str(id), *SIMPLE[table][1:])) for id in range(1, 5002)]
    for names in ([], [*columns], [*columns[1:], columns[0]]):
        before = [",".join(names)] if names else []
        ordered = [
            ",".join(dict(zip(columns, row.split(","), strict=True))[name] for name in names or columns) for row in rows
        ]
        same, other = ",".join(names or columns).upper(), ",".join(reversed(names or columns))
        content = "\n".join([*before, *ordered[:place], other, *ordered[place:]]).encode()
        with pytest.raises(errors.Unreadable, match=f"Line {len(before) + place + 1} is a header"):
            staged(content, table)
        content = "\n".join([*before, *ordered[:place], same, *ordered[place:]]).encode()
        assert staged(content, table) == [tuple(row.split(",")) for row in rows]
    content = "\n".join([*rows[:place], other, *rows[place:]]).encode()
    assert staged(content, table, "no") == [tuple(row.split(",")) for row in rows], "it means what it says"


@pytest.mark.parametrize("blank", ["  ", " \t ", "\u3000\u00a0", "   ,  ", " " * 1000])
@pytest.mark.parametrize("before", ["", "id,department\n", "1,a\n"])
def test_a_line_of_nothing_but_blanks_is_no_row(blank, before):
    found = read(f"{before}{blank}\n7,b\n".encode(), "auto", ("id", "department"))
    assert [row.fields for row in found] == [["1", "a"]] * before.startswith("1") + [["7", "b"]]


@pytest.mark.parametrize("content", ["Legal,\n", "1\n2,b\n", ",Legal\n2,b\n", "1,a\nTitle\n2,b\n", "1,a\nTitle,\n"])
def test_a_row_too_short_is_no_title_where_it_may_be_data(content):
    assert len(read(content.encode(), "auto", ("id", "name"))) == len(content.splitlines())


@pytest.mark.parametrize("delimiter", ",;\t")
@pytest.mark.parametrize(
    "rows",
    [
        [("1", "Marketing{0} Sales"), ("2", "R&D"), ("3", "IT")],
        [("1", "Marketing{0} Sales")],
        [("1", "a{0}b"), ("2", "c{0}d")],
        [("1", "a{0}b", ""), ("2", "c", "")],
        [("name", "id"), ("a{0}b", "1")],
        [("1", '"' + "a{0}b\n" * 30 + '"'), ("2", "b")],
    ],
)
def test_the_delimiter_is_that_of_most_rows(delimiter, rows):
    for other in set(",;\t") - {delimiter}:
        text = "\n".join(delimiter.join(row) for row in rows).format(other)
        assert csv_delimiter.delimiter_of(text.splitlines(keepends=True)[:20], ("id", "name")) == delimiter


HOSTILE = {
    "lines": "A{end}B",
    "many lines": "A{end}" * 30 + "B",
    "ids of the others": ("7{other}Sales{end}" * 12)[:-5],
    "ids of the others before each": "{end}7{other}Sales" * 30,
    "widths of the others": "{end}7{other}8{other}9{other}10{other}11" * 8,
    "headers of the others": "x{end}id{other}department{end}id{other}job{end}id{other}version{other}department",
    "quotes": 'A "B"{other} "{end}"C',
    "ids in quotes": '1{other}"2{end}"3"{other}4{end}"',
    "its own delimiter": "1{own}2{end}3{own}4{end}5{own}6",
    "blank lines": "A{end}{end}{end}{other}{end}B",
}
"""What a text may hold that misleads who guesses."""


def columns_and_extra(table: str, extra: str) -> tuple[str, ...]:
    columns = csv_header.COLUMNS[table]
    return {
        "none": columns,
        "behind": (*columns, *EXTRA),
        "between": (columns[0], "version", *columns[1:]),
        "before": ("updated_at", *columns, "created_at"),
    }[extra]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("extra", ["none", "behind", "between", "before"])
@pytest.mark.parametrize("own", csv_delimiter.DELIMITERS)
@pytest.mark.parametrize("table", first(1, csv_header.COLUMNS))
@pytest.mark.parametrize("places", first(1, [[0, 1, 18, 19, 20, 25, None], [*range(26)]]), ids=["some", "all"])
def test_what_is_in_a_field_never_makes_another_delimiter(table, own, extra, hostile, places):
    """Exports, with the field in each of the rows that are looked at and beyond, in all of them, and with no header."""
    columns, names = csv_header.COLUMNS[table], columns_and_extra(table, extra)
    others = csv_delimiter.DELIMITERS.replace(own, "")
    for end, other, place in product(("\n", "\r", "\r\n"), others, places):
        text = HOSTILE[hostile].format(end=end, other=other, own=own)
        meant = [[str(id), *SIMPLE[table][1:]] for id in range(1, 28)]
        for row in meant if place is None else [meant[place]]:
            row[1] = text
        known = [EXTRA | dict(zip(columns, row, strict=True)) for row in meant]
        rows = [[row[name] for name in names] for row in known]
        for header in ("auto", "no") if extra == "none" else ("auto",):
            written = write([names, *rows] if header == "auto" else rows, own, end, csv.QUOTE_MINIMAL)
            assert [row.fields for row in read(written.encode(), header, columns)] == meant, (end, other, place, header)


@pytest.mark.parametrize("faulty", ['"A', '"A"B', '"A "B"', '"A\nB"C', '"A""'])
@pytest.mark.parametrize("names", ["id,version,department", "version,id,department,created_at", "id,version,Abteilung"])
@pytest.mark.parametrize("own", csv_delimiter.DELIMITERS)
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_bad_quote_makes_no_other_delimiter_and_costs_its_own_lines(faulty, names, own, end):
    for place in (0, 1, 10, 18, 19, 20, 25):
        texts = ["Sales, Marketing; and more" if own == "\t" else "Sales" for _ in range(27)]
        texts[place] = faulty.replace("\n", end)
        fields = [{"id": str(id), "version": "7", "created_at": "x"} for id in range(1, 28)]
        rows = [
            own.join(row.get(name, text) for name in names.split(",")) for row, text in zip(fields, texts, strict=True)
        ]
        content = end.join([names.replace(",", own), *rows]).encode()
        found = read(content, columns=("id", "department"))
        bad = [row.line for row in found if row.unreadable]
        assert bad == [place + 2 + part for part in range(faulty.count("\n") + 1)]
        assert [row.fields for row in found if not row.unreadable] == [
            [str(id), text] for id, text in enumerate(texts, 1) if id != place + 1
        ]


@given(table=tables, mark=st.booleans(), encoding=st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
def test_a_wide_file_is_read_with_a_mark_or_without(table, mark, encoding):
    text = "\ufeff" * mark + write(table, ",", "\r\n", csv.QUOTE_MINIMAL)
    assert [tuple(row.fields) for row in read(text.encode(encoding))] == table


@given(text=st.text(max_size=20), encoding=st.sampled_from(["utf-16-le", "utf-16-be", "utf-32-le", "cp1252"]))
@example("Año", "cp1252")
def test_no_nonsense_is_read_of_another_encoding(text, encoding):
    content = f"\u2116,a\n2,{text}é\n".encode(encoding, "replace")
    try:
        found = read(content, "no", ("id", "name"))
    except errors.Unreadable as error:
        assert "not UTF-8" in str(error)
    else:
        assert encoding != "cp1252"
        assert all(row.unreadable or len(row.fields) != 2 for row in found)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n\t\n", b"\xef\xbb\xbf", b"ID,Name,NOTE\n"])
def test_a_file_without_data_has_no_rows(content):
    assert read(content) == []


def test_a_header_is_taken_or_not_as_the_client_says():
    assert [row.fields[0] for row in read(b"number,who,what\n1,a,b\n", "yes")] == ["1"]
    assert [row.fields[0] for row in read(b"id,name,note\n1,a,b\n", "no")] == ["id", "1"]
    assert [row.line for row in read(b"\n\nid,name,note\n1,a,b\n")] == [4]
