"""What a field of departments, jobs and employees takes is one rule, whichever way it comes in."""

import csv
import io
import json
import unicodedata
from itertools import count

import psycopg
import pytest

from handlers.batches import NUMBERS
from handlers.bulk.csv_header import COLUMNS
from handlers.http.fields import SEEN
from tests.conftest import ROOT

BLNS = ROOT.parent / "shared" / "data" / "blns" / "blns.json"
NAMES = {
    table: column for table, columns in COLUMNS.items() for column in columns if column not in {*NUMBERS, "datetime"}
}
PARENT = 1_900_000_000

IGNORABLE = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"
)
"""Characters of other categories that are not seen."""

ids = count(PARENT + 1)


def is_blank(text: str) -> bool:
    """By Unicode's own tables."""
    return all(unicodedata.category(each) in ("Cc", "Cf", "Zs", "Zl", "Zp") or each in IGNORABLE for each in text)


def is_taken(name: str) -> bool:
    return (
        len(name) <= 1000
        and not is_blank(name)
        and not any(each == "\0" or "\ud800" <= each <= "\udfff" for each in name)
    )


INVISIBLE = [chr(code) for code in range(0x110000) if is_blank(chr(code))] + [*IGNORABLE]
FEW = [
    "",
    " ",
    "\0",
    "a\0",
    "\ud800",
    "a\udc00",
    "\x01",
    "\x1c\x85",
    "\x7f",
    "\u00a0",
    "\u00ad",
    "\u200b",
    "\u200b\ufeff",
    "\ufeff",
    "\u202e",
    "\u2028",
    "\u3000",
    "\u2800",
    "\u3164",
    "\U000e0001",
    "\U000e0100",
    " a ",
    "\ta",
    "a\n",
    "\r\na",
    "\u200ba",
    "a\ufeff",
    "\ufeffa",
    "\u00a0a\u00a0",
    "\u202eabc",
    '"',
    '"a',
    "a,b;c\td",
    "'",
    "\\N",
    "\\.",
    "\\n",
    "NULL",
    "ﷺ",
    "👩‍👩‍👧",
    "e\u0301",
    "🏴󠁧󠁢",
    "x" * 1000,
    "x" * 1001,
    "😀" * 1000,
    "😀" * 1001,
]


@pytest.fixture(scope="module")
def parents(service):
    rows = {"departments": [{"id": PARENT, "department": "One"}], "jobs": [{"id": PARENT, "job": "One"}]}
    assert service.post("/batch", json=rows).status_code == 200


def row(table: str, id: int, **members) -> dict:
    whole = {"id": id, "name": "Ann", "department": "Sales", "job": "Clerk", "datetime": "2021-11-07T02:48:42Z"}
    whole |= {"department_id": PARENT, "job_id": PARENT} | members
    return {column: whole[column] for column in COLUMNS[table]}


def stored(service, table: str, rows: list[dict], column: str) -> list:
    """What the table has in the column for each of the rows; None where it has no such row."""
    with psycopg.connect(service.database) as connection:
        query = f"select id, to_jsonb(r) ->> '{column}' from {table} as r where id = any (%s)"
        found = dict(connection.execute(query, [[each["id"] for each in rows]]).fetchall())
    return [found.get(each["id"]) for each in rows]


def by_upload(service, table, column, values):
    """None of a file's texts can be a lone surrogate."""
    rows = [row(table, next(ids), **{column: value}) for value in values]
    sent = [each for each in rows if not any("\ud800" <= letter <= "\udfff" for letter in each[column])]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([*each.values()] for each in sent)
    answer = service.post(
        f"/upload/{table}", data=text.getvalue().encode(), headers={"Content-Type": "text/csv"}
    ).json()
    assert answer["rows"] == len(sent)
    return stored(service, table, rows, column)


def by_batch(service, table, column, values):
    rows = [row(table, next(ids), **{column: value}) for value in values]
    for begin in range(0, len(rows), 1000):
        assert service.post("/batch", json={table: rows[begin : begin + 1000]}).status_code == 200
    return stored(service, table, rows, column)


def by_post(service, table, column, values):
    rows = [row(table, next(ids), **{column: value}) for value in values]
    for each in rows:
        assert service.post(f"/{table}", json=each).status_code in (201, 422)
    return stored(service, table, rows, column)


def by_change(method):
    def change(service, table, column, values):
        id = next(ids)
        found, version = [], service.post(f"/{table}", json=row(table, id)).json()["version"]
        for value in values:
            sent = row(table, id, **{column: value}) if method == "PUT" else {column: value}
            sent.pop("id", None)
            answer = service.request(method, f"/{table}/{id}", json={**sent, "version": version})
            assert answer.status_code in (200, 422), answer.text
            version = answer.json().get("version", version)
            found.append(answer.json().get(column))
        return found

    return change


WAYS = {"upload": by_upload, "batch": by_batch, "POST": by_post, "PUT": by_change("PUT"), "PATCH": by_change("PATCH")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", NAMES)
def test_a_name_is_taken_or_not_whichever_way_it_comes(service, parents, table, way):
    assert WAYS[way](service, table, NAMES[table], FEW) == [name if is_taken(name) else None for name in FEW]


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", NAMES)
def test_no_string_however_naughty_is_taken_one_way_and_not_another(service, parents, table, way):
    names = [*INVISIBLE, *(f"{each}a" for each in INVISIBLE), *(f"a{each}" for each in INVISIBLE)]
    names += [" ".join(INVISIBLE[begin : begin + 50]) for begin in range(0, len(INVISIBLE), 50)]
    names += json.loads(BLNS.read_text()) if BLNS.exists() else []
    assert WAYS[way](service, table, NAMES[table], names) == [name if is_taken(name) else None for name in names]


def test_what_is_not_seen_is_the_same_in_python_and_in_postgresql(service):
    with psycopg.connect(service.database) as connection:
        (blank,) = connection.execute(
            "select array_agg(code order by code) from generate_series(1, 1114111) as code"
            " where code not between 55296 and 57343 and not is_not_blank(chr(code))"
        ).fetchone()
    here = [code for code in range(1, 0x110000) if not SEEN.search(chr(code)) and not 0xD800 <= code < 0xE000]
    assert here == blank
    assert {*map(ord, INVISIBLE)} - {0} <= {*blank}
    unassigned = {code for code in blank if not is_blank(chr(code)) and unicodedata.category(chr(code)) != "Cn"}
    assert all(0xE0100 <= code <= 0xE01EF or 0xFE00 <= code <= 0xFE0F for code in unassigned)


# Moments --------------------------------------------------------------------------------------------------------------

DAY = "2021-12-31"
MOMENTS = {
    f"{DAY}T23:59:59Z": f"{DAY}T23:59:59Z",
    f"{DAY}T23:59:59.9999999Z": f"{DAY}T23:59:59.999999Z",
    f"{DAY}T23:59:59.99999999999999999999Z": f"{DAY}T23:59:59.999999Z",
    f"{DAY}T23:59:59.0000019+00:00": f"{DAY}T23:59:59.000001Z",
    f"{DAY}T23:59:59.1234567-05:30": "2022-01-01T05:29:59.123456Z",
    f"{DAY}T23:59:59.5": f"{DAY}T23:59:59.500000Z",
    f"{DAY}T23:59:59,9999999Z": f"{DAY}T23:59:59.999999Z",
    f"{DAY}t23:59:59z": f"{DAY}T23:59:59Z",
    f"{DAY} 23:59:59.25z": f"{DAY}T23:59:59.250000Z",
    f"{DAY} 23:59": f"{DAY}T23:59:00Z",
    DAY: f"{DAY}T00:00:00Z",
    f"{DAY}T23:59+02": f"{DAY}T21:59:00Z",
    f"{DAY}T23:59+0200": f"{DAY}T21:59:00Z",
    f"{DAY}T00:00:00-15:59": f"{DAY}T15:59:00Z",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.9999999Z": "9999-12-31T23:59:59.999999Z",
    "2020-02-29T00:00:00Z": "2020-02-29T00:00:00Z",
} | dict.fromkeys(
    [
        "",
        " ",
        "now",
        "infinity",
        "yesterday",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2021-02-29",
        "2021-13-01",
        "2021-00-10",
        "2021-1-1",
        f"{DAY}T",
        f"{DAY}T23",
        f"{DAY}T23:60:00Z",
        f"{DAY}T23:59:60Z",
        f"{DAY}T23:59:60",
        f"{DAY}T23:59:60.5Z",
        f"{DAY} 23:59:60+00",
        "2016-12-31T23:59:60Z",
        f"{DAY}T24:00:00Z",
        f"{DAY}T24:00",
        f"{DAY}T25:00:00Z",
        f"{DAY}T23:59:61Z",
        f"{DAY}T23:59:59.Z",
        f"{DAY}T23:59:59.1.2Z",
        f"{DAY}T23:59:59+16:00",
        f"{DAY}T23:59:59+00:60",
        f"{DAY}T23:59:59+1",
        f"{DAY}T23:59:59 Z",
        f" {DAY}",
        f"{DAY} ",
        f"{DAY}\n",
        f"{DAY}T23:59:59Z\n",
        f"{DAY}X23:59:59Z",
        "20211231T235959Z",
        "2021-W01-1",
        "2021-365",
        "1640995199",
        "12/31/2021",
        "Dec 31 2021",
        f"{DAY}T23:59:59 UTC",
        f"{DAY}T23:59:59ZZ",
        "２０２１-12-31",
    ]
)


@pytest.mark.parametrize("way", WAYS)
def test_a_moment_is_read_alike_whichever_way_it_comes(service, parents, way):
    found = WAYS[way](service, "employees", "datetime", [*MOMENTS])
    with psycopg.connect(service.database) as connection:
        read = (
            "select array(select iso8601(m.each::timestamptz) from unnest(%s::text[]) with ordinality as m (each, n)"
            " order by m.n)"
        )
        connection.execute("set timezone = 'UTC'")
        (found,) = connection.execute(read, [found]).fetchone()
        (expected,) = connection.execute(read, [[*MOMENTS.values()]]).fetchone()
    assert dict(zip(MOMENTS, found, strict=True)) == dict(zip(MOMENTS, expected, strict=True))
