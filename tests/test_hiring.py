"""Hiring: historic files in every dialect, the rows they hold and the rows that are kept aside."""

import csv
import gzip
import io
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product

import psycopg
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.queries import STATEMENTS
from handlers.bulk.loading import PLAIN, plain
from handlers.http.responses import in_order
from handlers.http.schemas import decoded
from tests.conftest import ROOT, first, serve, shown_by_psql

SAMPLE = ROOT / "tests" / "hiring"
REAL = ROOT.parent / "shared" / "data" / "hiring"

FILES = {"departments": "departments.csv", "jobs": "jobs.csv", "employees": "hired_employees.csv"}
HEADERS = {
    "departments": "id,department",
    "jobs": "id,job",
    "employees": "id,name,datetime,department_id,job_id",
}
INCOMPLETE = [(7, "job_id"), (14, "department_id"), (21, "datetime"), (28, "name"), (34, "department_id")]


@pytest.fixture(scope="module")
def house(module_database):
    """A service of its own, whose tables each test finds empty."""
    with serve(module_database) as service:
        yield service


@pytest.fixture(autouse=True)
def empty(house):
    with psycopg.connect(house.database) as connection:
        connection.execute("truncate departments, jobs, employees, uploads cascade; truncate history.deleted")


def upload(service, table: str, content: bytes, query: str = "") -> dict:
    answer = service.post(f"/upload/{table}{query}", files={"file": (f"{table}.csv", content)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload_sample(service, *tables: str) -> list[dict]:
    return [upload(service, table, (SAMPLE / FILES[table]).read_bytes()) for table in tables or FILES]


def rejects(service, table: str) -> list[dict]:
    return service.get(f"/errors/{table}?limit=1000").json()["items"]


def rows(service, table: str) -> list[list]:
    """The table, without what every row has besides its data."""
    items = service.get(f"/{table}?limit=1000").json()["items"]
    return [
        [value for name, value in item.items() if name not in ("version", "created_at", "updated_at")] for item in items
    ]


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "rejected"),
    [("Hired, 2021", 0), ("Hired, 2021\n", 0), ("Report,of,hired,people,2021", 0), ('"Hired', 1), ("1,,,,", 1)],
)
def test_what_stands_before_a_header_is_a_title_or_a_reject_and_columns_go_by_name(house, before, rejected):
    upload(house, "departments", b"1,Sales\n2,Legal\n")
    upload(house, "jobs", b"1,Clerk\n2,Lawyer\n")
    file = f"{before}\nid,name,datetime,job_id,department_id\n7,Ann,2021-01-01,1,2\n".encode()
    told = upload(house, "employees", file)
    assert (told["rows"], told["rejected"]) == (1 + rejected, rejected)
    assert rows(house, "employees") == [[7, "Ann", "2021-01-01T00:00:00Z", 2, 1]]
    assert [(each["line"], each["raw"]) for each in rejects(house, "employees")] == [(1, before)] * rejected


@pytest.mark.parametrize("mode", ["partial", "atomic", "dry-run"])
def test_a_header_behind_data_refuses_the_file(house, mode):
    file = b"6,Bob,2021-01-01,1,2\nid,name,datetime,job_id,department_id\n7,Ann,2021-01-01,1,2\n"
    answer = house.post(f"/upload/employees?mode={mode}", data=file, headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unreadable-file")
    assert "Line 2 is a header" in answer.json()["detail"]
    assert rows(house, "employees") == rejects(house, "employees") == []


def test_complete_rows_go_in_and_the_others_are_kept_aside(house):
    departments, jobs, employees = upload_sample(house)
    assert (departments["rows"], departments["accepted"]) == (5, 5)
    assert (jobs["rows"], jobs["accepted"]) == (6, 6)
    assert (employees["rows"], employees["accepted"], employees["rejected"]) == (40, 35, 5)
    found = house.get(employees["errors"]).json()["items"]
    lines = (SAMPLE / "hired_employees.csv").read_text().splitlines()
    assert [(each["line"], each["column_name"]) for each in found] == INCOMPLETE
    assert all(each["code"] == "missing" and each["detail"] == "A value is required." for each in found)
    assert [each["raw"] for each in found] == [lines[line - 1] for line, _ in INCOMPLETE]


def test_employees_before_their_parents_are_told_what_is_unknown(house):
    (employees,) = upload_sample(house, "employees")
    assert (employees["accepted"], employees["rejected"]) == (0, 40)
    reasons = {
        (each["column_name"], each["code"])
        for each in rejects(house, "employees")
        if each["line"] not in dict(INCOMPLETE)
    }
    assert reasons == {("department_id", "unknown")}
    upload_sample(house, "departments", "employees")
    assert ("job_id", "unknown") in {(each["column_name"], each["code"]) for each in rejects(house, "employees")}


def test_the_same_file_again_changes_nothing_and_heals_what_fits_by_now(house):
    upload_sample(house, "employees", "departments", "jobs")
    healed = upload_sample(house, "employees")
    before = rows(house, "employees"), rejects(house, "employees"), house.get("/employees").text
    assert upload_sample(house, "employees") == healed
    assert (rows(house, "employees"), rejects(house, "employees"), house.get("/employees").text) == before
    assert len(before[1]) == 5


SIX = b"""1,Ann,2021-01-01T00:00:00Z,1,1
2,,2021-01-02T00:00:00Z,1,1
,Cleo,2021-01-03T00:00:00Z,1,1
1,Dan,2021-01-04T00:00:00Z,1,1
5,Eve,yesterday,1,1
6,Fay,2021-01-06T00:00:00Z,1,99
"""


def test_a_corrected_file_clears_the_rejects_it_corrects(house):
    upload_sample(house, "departments", "jobs")
    upload(house, "employees", SIX)
    assert [reject["line"] for reject in rejects(house, "employees")] == [2, 3, 4, 5, 6]
    corrected = SIX.replace(b"2,,", b"2,Bob,").replace(b"\n,Cleo", b"\n3,Cleo").replace(b"1,Dan", b"4,Dan")
    found = upload(house, "employees", corrected)
    assert (found["accepted"], found["rejected"]) == (4, 2)
    left = rejects(house, "employees")
    assert [(reject["line"], reject["upload_id"] == found["upload_id"]) for reject in left] == [
        (5, False),
        (6, False),
        (5, True),
        (6, True),
    ]
    upload(house, "employees", b"6,Fay,2021-01-06T00:00:00Z,1,1\n5,Eve,2021-01-05T00:00:00Z,1,1\n")
    assert rejects(house, "employees") == []


def test_a_file_that_corrects_nothing_clears_nothing(house):
    upload(house, "departments", b"1,Sales\n,Legal\n")
    upload(house, "departments", b"1,Shipping\n2,Support\n3,Stock\n")
    before = rejects(house, "departments")
    assert [reject["code"] for reject in before] == ["missing", "taken"]
    upload(house, "departments", b"1,Sales\n,Legal\n")
    upload(house, "departments", b"7,Law\n8,Lawn\n")
    assert rejects(house, "departments") == before


GOOD = {"departments": b"77,Sales\n", "jobs": b"77,Clerk\n", "employees": b"77,Ann,2021-01-01,1,1\n"}
ROWS = {
    "departments": {"department": "Sales"},
    "jobs": {"job": "Clerk"},
    "employees": {"name": "Ann", "datetime": "2021-01-01", "department_id": 1, "job_id": 1},
}
FAULTY = {
    "departments": [b"77,\n", b"77,Sales,x\n", b"x77,Sales\n"],
    "jobs": [b"77,\n", b"77,Clerk,x\n", b",Clerk\n"],
    "employees": [
        b"77,,2021-01-01,1,1\n",
        b"77,Ann,never,1,1\n",
        b"77,Ann,2021-01-01,1,999\n",
        b"x77,Ann,2021-01-01,1,1\n",
    ],
}


@pytest.mark.parametrize("table, faulty", [(table, faulty) for table, some in FAULTY.items() for faulty in some])
def test_a_corrected_file_clears_rejects_also_where_its_rows_are_there(house, table, faulty):
    """The row came by itself before its file did; then each file comes again, in turn: what came last counts."""
    upload_sample(house, *({"departments", "jobs"} - {table}))
    upload(house, table, faulty, "?header=no")
    assert len(rejects(house, table)) == 1
    assert house.post(f"/{table}", json={"id": 77} | ROWS[table]).status_code == 201
    for _ in range(3):
        found = upload(house, table, GOOD[table], "?header=no")
        assert (found["accepted"], rejects(house, table)) == (1, [])
        again = upload(house, table, faulty, "?header=no")
        assert [reject["upload_id"] for reject in rejects(house, table)] == [again["upload_id"]]
    assert house.get(f"/{table}/77").json()["version"] == 1


@pytest.mark.parametrize("table", GOOD)
def test_a_file_again_clears_no_reject_of_a_row_whose_id_it_took(house, table):
    upload_sample(house, *({"departments", "jobs"} - {table}))
    good = GOOD[table]
    other = good.replace(b"Sales", b"Other").replace(b"Clerk", b"Other").replace(b"Ann", b"Other")
    upload(house, table, good)
    upload(house, table, good + other)
    upload(house, table, other)
    before = rejects(house, table)
    assert [reject["code"] for reject in before] == ["taken", "taken"]
    upload(house, table, good)
    assert rejects(house, table) == before
    upload(house, table, good * 2)
    codes = [reject["code"] for reject in rejects(house, table)]
    assert codes == ["duplicate"], "this one came later: it corrects them, and has a fault of its own"


def test_a_row_knows_where_it_came_from(house):
    found = upload(house, "departments", b"\n1,Sales\n")
    told = house.get("/departments/1/provenance").json()
    assert told == {
        "id": 1,
        "upload_id": found["upload_id"],
        "line": 2,
        "sha256": found["sha256"],
        "uploaded_at": told["uploaded_at"],
        "history": "/departments/1/history",
    }
    house.post("/batch", json={"departments": [{"id": 2, "department": "Legal"}]})
    assert house.get("/departments/2/provenance").json()["line"] == 1
    house.post("/departments", json={"id": 3, "department": "Law"})
    assert house.get("/departments/3/provenance").json() == dict.fromkeys(told) | {
        "id": 3,
        "history": "/departments/3/history",
    }
    assert house.get("/departments/4/provenance").status_code == 404


@pytest.mark.parametrize(
    "what, sqlstate",
    [
        ("select append_employees()", "42P01"),
        ("create temporary table appending (like employees); select append_employees()", "42501"),
        ("select stage_employees(); select append_employees()", "22023"),
    ],
)
def test_the_service_cannot_get_around_the_foreign_keys(house, what, sqlstate):
    with psycopg.connect(house.database) as connection:
        connection.execute("set role rowhouse_service")
        with pytest.raises(psycopg.Error) as error:
            connection.execute(what)
        assert error.value.sqlstate == sqlstate


def test_an_orphan_is_not_appended(house):
    with psycopg.connect(house.database) as connection:
        connection.execute("set role rowhouse_service")
        connection.execute("select stage_employees(), set_config('app.load', 'x', true)")
        connection.execute(
            "insert into appending (id, name, datetime, department_id, job_id) values (1, 'Ann', now(), 7, 7)"
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("select append_employees()")


DIALECTS = {
    "CRLF": lambda text, header: text.replace("\n", "\r\n"),
    "CR": lambda text, header: text.replace("\n", "\r"),
    "byte-order mark": lambda text, header: "\ufeff" + text,
    "semicolons": lambda text, header: text.replace(",", ";"),
    "tabs": lambda text, header: text.replace(",", "\t"),
    "header": lambda text, header: f"{header}\n{text}",
    "header in capitals": lambda text, header: f"{header.upper()}\n{text}",
    "all quoted": lambda text, header: "\n".join(
        ",".join(f'"{field}"' for field in line.split(",")) for line in text.splitlines()
    ),
    "blank lines at the end": lambda text, header: text.rstrip("\n") + "\n\n \r\n\n",
    "no last line end": lambda text, header: text.rstrip("\n"),
    "all at once": lambda text, header: (
        "\ufeff" + f"\r\n{header.title()}\n{text}".replace("\n", "\r\n").replace(",", ";")
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_the_same(house, dialect):
    upload_sample(house)
    plain = {table: rows(house, table) for table in FILES}
    kept_aside = [(each["column_name"], each["code"]) for each in rejects(house, "employees")]
    with psycopg.connect(house.database) as connection:
        connection.execute("truncate departments, jobs, employees, uploads cascade; truncate history.deleted")
    for table, file in FILES.items():
        upload(house, table, DIALECTS[dialect]((SAMPLE / file).read_text(), HEADERS[table]).encode())
    assert {table: rows(house, table) for table in FILES} == plain
    assert [(each["column_name"], each["code"]) for each in rejects(house, "employees")] == kept_aside


@pytest.mark.parametrize(
    "encode", [gzip.compress, lambda content: content.decode().encode("utf-16"), lambda content: content]
)
def test_a_file_comes_packed_or_bare(house, encode):
    content = encode((SAMPLE / "departments.csv").read_bytes())
    answer = house.post("/upload/departments", data=content, headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 5)


def test_a_header_may_name_the_columns_in_another_order(house):
    upload(house, "departments", b"Department;ID\nSales;7\n")
    assert rows(house, "departments") == [[7, "Sales"]]


def test_a_header_is_told_by_the_client_where_it_names_something_else(house):
    assert upload(house, "departments", b"number,what\n7,Sales\n", "?header=yes")["accepted"] == 1
    assert upload(house, "departments", b"id,department\n8,Legal\n", "?header=no")["rejected"] == 1


BAD_EMPLOYEES = [
    ("1,Ann,2021-01-01T00:00:00Z,1", None, "width"),
    ("1,Ann,2021-01-01T00:00:00Z,1,1,1", None, "width"),
    *[(f"{id},Ann,2021-01-01T00:00:00Z,1,1", "id", "not_integer") for id in ("+5", " 5", "5_0", "٥", "1.0", "-1", "x")],
    *[(f"{id},Ann,2021-01-01T00:00:00Z,1,1", "id", "out_of_range") for id in ("0", "2147483648", "9" * 40)],
    ("1, ,2021-01-01T00:00:00Z,1,1", "name", "missing"),
    (f"1,{'x' * 1001},2021-01-01T00:00:00Z,1,1", "name", "too_long"),
    *[
        (f"1,Ann,{moment},1,1", "datetime", "not_datetime")
        for moment in ("yesterday", "infinity", "2021-02-30", "1/2/2021", "2021-13-01T00:00:00Z", "2021-01-01T25:00")
    ],
    ("1,Ann,0000-01-01T00:00:00Z,1,1", "datetime", "not_datetime"),
    ("1,Ann,9999-12-31T23:00:00-02:00,1,1", "datetime", "out_of_range"),
    ("1,Ann,2021-01-01T00:00:00Z,9,1", "department_id", "unknown"),
    ("1,Ann,2021-01-01T00:00:00Z,1,9", "job_id", "unknown"),
    ("1,A\0nn,2021-01-01T00:00:00Z,1,1", None, "unreadable"),
    ('"1";"Ann";"2021-01-01T00:00:00Z";"9";"1"', "department_id", "unknown"),
    ("1,A\\tnn,2021-01-01T00:00:00Z,9,1", "department_id", "unknown"),
    ("1,Ann,2020-02-29T00:00:00Z,9,1", "department_id", "unknown"),
]


@pytest.mark.parametrize("line, column, code", BAD_EMPLOYEES)
def test_a_row_that_breaks_a_rule_is_told_which(house, line, column, code):
    upload_sample(house, "departments", "jobs")
    assert upload(house, "employees", f"{line}\n".encode())["rejected"] == 1
    (reject,) = rejects(house, "employees")
    assert (reject["line"], reject["column_name"], reject["code"]) == (1, column, code)
    assert reject["raw"] == line.replace("\0", "␀")
    assert rows(house, "employees") == []


@pytest.mark.parametrize(
    "written, stored",
    [
        ("2021-11-07T02:48:42Z", "2021-11-07T02:48:42Z"),
        ("2021-11-07 02:48:42+02:00", "2021-11-07T00:48:42Z"),
        ("2021-11-07T02:48", "2021-11-07T02:48:00Z"),
        ("2021-11-07", "2021-11-07T00:00:00Z"),
        ("2021-11-07T02:48:42.123456-0530", "2021-11-07T08:18:42.123456Z"),
    ],
)
def test_a_moment_is_kept_in_utc(house, written, stored):
    upload_sample(house, "departments", "jobs")
    upload(house, "employees", f"1,Ann,{written},1,1".encode())
    assert rows(house, "employees") == [[1, "Ann", stored, 1, 1]]


def test_of_rows_with_one_id_the_first_that_is_good_wins(house):
    found = upload(house, "departments", b"1,\n1,Sales\n1,Legal\n2,Support\n")
    assert (found["accepted"], found["rejected"]) == (2, 2)
    assert rows(house, "departments") == [[1, "Sales"], [2, "Support"]]
    assert [(each["line"], each["code"]) for each in rejects(house, "departments")] == [
        (1, "missing"),
        (3, "duplicate"),
    ]


def test_of_employees_with_one_id_the_first_wins_however_they_are_written(house):
    upload_sample(house, "departments", "jobs")
    plain, leap = "2021-01-01T00:00:00Z", "2020-02-29T00:00:00Z"
    lines = [
        f"1,Ann,{leap},1,1",
        f"1,Bob,{plain},1,1",
        f"2,Cleo,{plain},1,1",
        f"2,Dan,{leap},1,1",
        f"2,Eve,{plain},1,1",
    ]
    found = upload(house, "employees", "\n".join(lines).encode())
    assert (found["accepted"], found["rejected"]) == (2, 3)
    assert [row[:2] for row in rows(house, "employees")] == [[1, "Ann"], [2, "Cleo"]]
    assert [(each["line"], each["code"], each["raw"]) for each in rejects(house, "employees")] == [
        (line, "duplicate", lines[line - 1]) for line in (2, 4, 5)
    ]
    told = [house.get(f"/employees/{id}/provenance").json() for id in (1, 2)]
    assert [(each["upload_id"], each["line"]) for each in told] == [(found["upload_id"], 1), (found["upload_id"], 3)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.from_regex(PLAIN, fullmatch=True), st.sampled_from(["{}", '"{}"']))
def test_no_rule_refuses_a_plain_row_and_copy_reads_what_was_written(house, text, written):
    fields, raw = text.split(","), written.format(text)
    line = plain(7, raw, fields)
    with psycopg.connect(house.database) as connection:
        connection.execute("set timezone = 'UTC'")
        faults = (
            "coalesce(id_fault('', %s), name_fault('', %s), datetime_fault('', %s), id_fault('', %s), id_fault('', %s))"
        )
        assert connection.execute(f"select {faults}", fields).fetchone() == (None,)
        connection.execute("select stage_employees()")
        with connection.cursor().copy(STATEMENTS["employees.copy_plain"].sql) as copying:
            copying.write(line)
        found = "concat_ws(',', id, name, iso8601(datetime), department_id, job_id)"
        assert connection.execute(f"select line, coalesce(raw, {found}), {found} from appending").fetchone() == (
            7,
            raw,
            text,
        )


@pytest.mark.parametrize(
    "text",
    [
        "0,Ann,2021-01-01T00:00:00Z,1,1",
        "1234567890,Ann,2021-01-01T00:00:00Z,1,1",
        "1, Ann,2021-01-01T00:00:00Z,1,1",
        "1,A\tnn,2021-01-01T00:00:00Z,1,1",
        "1,A\\nn,2021-01-01T00:00:00Z,1,1",
        f"1,{'x' * 1001},2021-01-01T00:00:00Z,1,1",
        "1,Ann,2021-02-29T00:00:00Z,1,1",
        "1,Ann,2021-04-31T00:00:00Z,1,1",
        "1,Ann,2021-01-01T24:00:00Z,1,1",
        "1,Ann,0001-01-01T00:00:00Z,1,1",
        "1,Ann,2021-01-01,1,1",
        "1,Ann,2021-01-01T00:00:00Z,1,1,1",
        "1,Ann,2021-01-01T00:00:00Z,٥,1",
    ],
)
def test_whatever_a_rule_might_refuse_is_not_plain(text):
    assert plain(1, text, text.split(",")) is None


def test_a_load_of_several_statements_is_one_entry(house):
    with psycopg.connect(house.database) as connection:
        connection.execute("set app.load = 'in parts'")
        for id in (1, 2, 3):
            connection.execute("insert into departments (id, department) values (%s, 'Sales')", [id])
        entries = connection.execute("select new_obj from history.entries where new_obj ->> 'load' = 'in parts'")
        assert entries.fetchall() == [({"load": "in parts", "rows": 3},)]


def test_a_row_whose_id_is_taken_is_kept_aside(house):
    upload_sample(house, "departments")
    found = upload(house, "departments", b"1,Engineering\n2,Buying\n")
    assert (found["accepted"], found["rejected"]) == (1, 1)
    assert [(each["line"], each["code"]) for each in rejects(house, "departments")] == [(2, "taken")]
    assert rows(house, "departments")[1] == [2, "Sales"]


def test_people_may_be_called_na_or_null(house):
    upload_sample(house)
    names = {row[1] for row in rows(house, "employees")}
    assert {"NA", "null"} <= names


def test_a_field_may_hold_lines_and_quotes(house):
    upload(house, "departments", b'1,"Research\nand ""Development"""\n\n2\n3,Sales\n')
    assert rows(house, "departments") == [[1, 'Research\nand "Development"'], [3, "Sales"]]
    (reject,) = rejects(house, "departments")
    assert (reject["line"], reject["raw"]) == (4, "2")


BAD = b"1,Sales\nx,Bad\n2,\n3,Law\n"


def contents(database: str) -> list:
    with psycopg.connect(database) as connection:
        return [
            connection.execute(query).fetchone()
            for query in (
                "select count(*), max(version) from departments",
                "select count(*), max(updated_at) from uploads",
                "select count(*) from departments_errors",
                "select count(*) from history.entries where obj_type = 'department'",
            )
        ]


@pytest.mark.parametrize("query", ["?mode=atomic", "?max_errors=1", "?max_errors=0", "?mode=dry-run&max_errors=1"])
def test_of_a_file_with_too_many_faults_nothing_is_kept(house, query):
    before = contents(house.database)
    answer = house.post(f"/upload/departments{query}", files={"file": BAD})
    refusal = answer.json()
    assert answer.status_code == 422
    assert (refusal["rows"], refusal["accepted"], refusal["rejected"]) == (4, 2, 2)
    assert [
        (reject["line"], reject["column_name"], reject["code"], reject["raw"]) for reject in refusal["rejects"]
    ] == [
        (2, "id", "not_integer", "x,Bad"),
        (3, "department", "missing", "2,"),
    ]
    assert contents(house.database) == before


def test_a_file_within_its_bounds_is_kept(house):
    assert upload(house, "departments", BAD, "?max_errors=2")["accepted"] == 2
    assert upload(house, "departments", b"7,Whole\n", "?mode=atomic")["accepted"] == 1
    assert rows(house, "departments") == [[1, "Sales"], [3, "Law"], [7, "Whole"]]


def test_a_trial_tells_what_would_come_of_a_file(house):
    before = contents(house.database)
    trial = upload(house, "departments", BAD, "?mode=dry-run")
    assert contents(house.database) == before
    earnest = upload(house, "departments", BAD)
    same = ("table", "sha256", "rows", "accepted", "rejected")
    assert [trial[name] for name in same] == [earnest[name] for name in same]
    assert (trial["upload_id"], trial["errors"]) == (None, None)
    logged = rejects(house, "departments")
    assert trial["rejects"] == [{name: reject[name] for name in trial["rejects"][0]} for reject in logged]


def test_a_file_whose_faults_were_mended_since_is_accepted_whole_also_after_a_refusal(house):
    headers = {"Idempotency-Key": "mended"}
    refused = house.post("/upload/departments?mode=atomic", files={"file": BAD}, headers=headers)
    assert refused.status_code == 422
    assert (
        upload(house, "departments", BAD.replace(b"x,", b"5,").replace(b"2,", b"2,Mended"), "?mode=atomic")["rows"] == 4
    )


MODES = "partial", "atomic", "dry-run"
WAYS = [f"?header={header}&mode={mode}" for header in ("auto", "yes", "no") for mode in MODES]
READINGS = {
    "departments": b"id;Departamento\n1;Ventas\n2;\n",
    "jobs": b"id,job\n1,Clerk\nx,Bad\n\n1,Other\n",
    "employees": b"id,name,date,job_id,department_id\n1,Ann,2021-01-01,2,1\n2,Bob,never,1,1\n",
}


@pytest.mark.parametrize(
    "table", ["departments", *(pytest.param(table, marks=pytest.mark.thorough) for table in ("jobs", "employees"))]
)
def test_the_same_file_may_be_read_in_any_way_after_any_other(house, table):
    upload_sample(house, *({"departments", "jobs"} - {table}))
    told: dict[str, tuple] = {}
    for way in chain.from_iterable(product(WAYS, WAYS)):
        answer = house.post(f"/upload/{table}{way}", files={"file": READINGS[table]})
        assert answer.status_code in ((200, 422) if "atomic" in way else (200,)), (way, answer.text)
        found = answer.json()
        counts = found["rows"], found["accepted"], found["rejected"]
        assert counts[0] == counts[1] + counts[2]
        assert told.setdefault(way, counts) == counts
        if "partial" in way:
            kept = house.get(found["errors"]).json()["items"]
            lines = READINGS[table].decode().splitlines()
            assert len(kept) == found["rejected"] and all(each["raw"] == lines[each["line"] - 1] for each in kept)
    assert {way: counts[0] for way, counts in told.items() if "header=no" in way} == {
        way: told["?header=yes&mode=partial"][0] + 1 for way in WAYS if "header=no" in way
    }


MALFORMED = {
    "departments": [b'1,"Engineering', b'2,"Sales"', b'3,"Support"x', b"4,16", b'5,"oops', b"6,Law", b'"7",Stock'],
    "jobs": [b'1,"Clerk" ', b"2,Cook", b'3,"Smith', b"4,Nurse", b'5,"Judge'],
    "employees": [
        b'1,"Ann,2021-01-01T00:00:00Z,1,1',
        b"2,Bob,2021-01-02T00:00:00Z,1,1",
        b'3,"Cleo",2021-01-03T00:00:00Z,1,1',
        b'4,"Dan"ny,2021-01-04T00:00:00Z,1,1',
        b'5,Eve,2021-01-05T00:00:00Z,1,"1',
    ],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", MALFORMED)
def test_no_row_is_swallowed_by_a_quote_of_another(house, table, mode):
    upload_sample(house, *({"departments", "jobs"} - {table}))
    lines = MALFORMED[table]
    answer = house.post(f"/upload/{table}?mode={mode}", files={"file": b"\n".join(lines)})
    found = answer.json()
    refused = found["rejects"] if "rejects" in found else rejects(house, table)
    bad = {place for place, line in enumerate(lines, 1) if line.count(b'"') % 2 or re.search(rb'"[x n]', line)}
    assert answer.status_code == (422 if mode == "atomic" else 200)
    assert (found["rows"], found["rejected"]) == (len(lines), len(bad))
    assert {(each["line"], each["code"], each["raw"]) for each in refused} == {
        (place, "unreadable", lines[place - 1].decode()) for place in bad
    }
    kept = {row[0] for row in rows(house, table)}
    assert kept == ({*range(1, len(lines) + 1)} - bad if mode == "partial" else set())


def test_columns_are_taken_by_their_names_or_not_at_all(house):
    upload_sample(house, "departments", "jobs")
    upload(house, "employees", b"id,name,date,job_id,department_id\n7,Ann,2021-01-02T03:04:05Z,1,2\n")
    assert rows(house, "employees") == [[7, "Ann", "2021-01-02T03:04:05Z", 2, 1]]
    for query in ("", "?header=yes", "?mode=dry-run"):
        content = b"id,name,date,job,department\n8,Ann,2021-01-02T03:04:05Z,1,2\n"
        answer = house.post(f"/upload/employees{query}", files={"file": content})
        assert answer.status_code == 422
        assert "found id, name, date, job, department; expected id, name, datetime" in answer.json()["detail"]
    assert len(rows(house, "employees")) == 1


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("jobs", b"id,department\n7,Sales\n"),
        ("departments", b"id,version,job,created_at\n7,1,Clerk,2021-01-01\n"),
        ("employees", b"id,name,datetime,department_id,department\n7,Ann,2021-01-02T03:04:05Z,1,2\n"),
    ],
)
def test_a_file_of_another_table_is_told_so(house, table, content):
    upload_sample(house, "departments", "jobs")
    before = rows(house, table)
    for query in ("", "?header=yes", "?mode=dry-run"):
        answer = house.post(f"/upload/{table}{query}", files={"file": content})
        assert answer.status_code == 422
        found, expected = content.decode().split("\n")[0].replace(",", ", "), HEADERS[table].replace(",", ", ")
        assert f"found {found}; expected {expected}" in answer.json()["detail"]
    assert rows(house, table) == before


@pytest.mark.parametrize("table", FILES)
def test_what_the_service_exports_can_be_uploaded_again(house, table):
    upload_sample(house)
    exported = house.get(f"/{table}", headers={"Accept": "text/csv"}).content
    before = rows(house, table)
    assert upload(house, table, exported, "?mode=atomic")["accepted"] == len(before)
    with psycopg.connect(house.database) as connection:
        connection.execute("truncate employees")
        connection.execute(f"delete from {table}")
    assert upload(house, table, exported, "?mode=atomic")["accepted"] == len(before)
    assert rows(house, table) == before
    short = exported.splitlines()[0] + b"\n" + b",".join(b"1" for _ in HEADERS[table].split(",")) + b"\n"
    assert upload(house, table, short)["rejected"] == 1


def test_what_was_moved_in_is_listed_by_file_and_batch(house):
    told = [upload(house, "jobs", b"1,Cook\n2,\n"), upload(house, "departments", b"1,Sales\n")]
    assert upload(house, "jobs", b"1,Cook\n2,\n") == told[0], "the same file is the same upload"
    batch = house.post("/batch", json={"jobs": [{"id": 3, "job": "Baker"}, {"id": 0, "job": "None"}]}).json()
    items = house.get("/uploads").json()["items"]
    members = ("table", "sha256", "rows", "accepted", "rejected", "errors")
    assert [{name: item[name] for name in members} for item in items[:2]] == [
        {name: each[name] for name in members} for each in told
    ]
    assert [item["id"] for item in items[:2]] == [each["upload_id"] for each in told]
    assert (items[2]["table"], items[2]["rows"], items[2]["accepted"], items[2]["rejected"]) == ("jobs", 2, 1, 1)
    assert (batch["accepted"], batch["rejected"]) == (1, 1)
    for item in items:
        assert house.get(f"/uploads/{item['id']}").json() == item
        assert len(house.get(item["errors"]).json()["items"]) == item["rejected"]
    found = house.get("/uploads", params={"table": "jobs", "sort": "-id"}).json()["items"]
    assert found == [items[2], items[0]]
    assert house.get("/uploads", params={"table": "users"}).status_code == 422
    assert house.get("/uploads/999999999").status_code == 404


@pytest.mark.parametrize("delimiter", ",;\t")
@pytest.mark.parametrize("end", first(1, ["\n", "\r", "\r\n"]))
def test_an_export_can_be_uploaded_again_whatever_is_in_its_names(house, delimiter, end):
    """Also as a spreadsheet saves it, with another delimiter."""
    names = ["Sales", f"A{end}B", f"x;7{end}y;8{end}z", f"{end}id;department" * 30, f'"{end}7,8{end}"\t9', *"CDEFG"]
    for table, column in {"departments": "department", "jobs": "job"}.items():
        for turn in range(len(names)):
            with psycopg.connect(house.database) as connection:
                connection.execute("truncate departments, jobs, employees, uploads cascade; truncate history.deleted")
            for id, name in enumerate(names[turn:] + names[:turn], 1):
                assert house.post(f"/{table}", json={"id": id, column: name}).status_code == 201
            exported = house.get(f"/{table}", headers={"Accept": "text/csv"})
            written = io.StringIO(newline="")
            read = csv.reader(io.StringIO(exported.content.decode(), newline=""))
            csv.writer(written, delimiter=delimiter, lineterminator=end).writerows(read)
            for content in (exported.content, written.getvalue().encode()):
                found = upload(house, table, content, "?mode=atomic")
                assert (found["accepted"], found["rejected"]) == (len(names), 0)


def test_a_bad_quote_costs_its_own_row_beside_a_column_of_exports(house):
    found = upload(house, "departments", b'id,version,department\n1,1,"A\n2,1,C\n3,1,D\n')
    assert (found["accepted"], [each["line"] for each in rejects(house, "departments")]) == (2, [2])


PARTS = {
    "an option": [("file", ("a.csv", b"1,A")), ("mode", (None, b"dry-run"))],
    "two files": [("file", ("a.csv", b"1,A")), ("file", ("b.csv", b"2,B"))],
    "another file": [("file", ("a.csv", b"1,A")), ("other", ("b.csv", b"2,B"))],
    "an option named file": [("file", ("a.csv", b"1,A")), ("file", (None, b"2,B"))],
    "no file": [("file", (None, b"1,A"))],
    "another name": [("other", ("a.csv", b"1,A"))],
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("path", ["/upload/departments", "/upload/jobs", "/restore/departments"])
def test_a_form_of_anything_but_one_file_is_refused(house, path, parts):
    answer = house.post(path, files=parts)
    assert (answer.status_code, "Expected one part" in answer.json()["detail"]) == (422, True)
    assert rows(house, "departments") == rows(house, "jobs") == []


def test_an_empty_file_has_no_rows(house):
    assert upload(house, "departments", b"")["rows"] == 0
    assert upload(house, "departments", b"\n\r\n \n")["rows"] == 0


@pytest.mark.parametrize(
    "content, kind, status",
    [
        ("1,Café".encode("latin-1"), "text/csv", 422),
        (gzip.compress(b"1,Sales\n" * 100, mtime=0)[:-12], "text/csv", 422),
        (b"1," + b"x" * (2**20 + 1), "text/csv", 422),
        (b"{}", "application/json", 415),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_as_a_whole(house, content, kind, status):
    answer = house.post("/upload/departments", data=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert rows(house, "departments") == []


def test_a_form_without_a_file_is_refused(house):
    assert house.post("/upload/departments", files={"other": b"1,Sales"}).status_code == 422


def test_two_who_upload_the_same_file_at_once_are_told_the_same(house):
    def send(_: int) -> requests.Response:
        return requests.post(f"{house.url}/upload/departments", files={"file": content}, timeout=30)

    content = "".join(f"{i},Department {i}\n" for i in range(1, 2000))
    with ThreadPoolExecutor(4) as clients:
        answers = [*clients.map(send, range(4))]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert len(rows(house, "departments")) == 1000


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/hiring is not here")
def test_the_real_files_go_in_as_they_are(house):
    for table in ("employees", "departments", "jobs", "employees"):
        found = upload(house, table, (REAL / FILES[table]).read_bytes())
    assert (found["rows"], found["accepted"], found["rejected"]) == (1999, 1929, 70)


# The collections ------------------------------------------------------------------------------------------------------


def test_a_department_lives_under_the_id_it_is_given(house):
    made = house.post("/departments", json={"id": 7, "department": "Sales"})
    assert (made.status_code, made.headers["Location"], made.headers["ETag"]) == (201, "/departments/7", '"1"')
    again = house.post("/departments", json={"id": 7, "department": "Legal"})
    assert (again.status_code, [*again.json()["errors"]]) == (409, ["id"])
    changed = house.patch("/departments/7", json={"department": "Legal", "version": 1})
    assert (changed.json()["department"], changed.json()["version"]) == ("Legal", 2)
    assert house.put("/departments/7", json={"department": "Law", "version": 1}).status_code == 409
    assert house.delete("/departments/7?version=2").status_code == 204
    assert house.get("/departments/7").status_code == 404


def test_a_department_with_people_in_it_stays(house):
    upload_sample(house)
    answer = house.delete("/departments/1?version=1")
    assert (answer.status_code, [*answer.json()["errors"]]) == (409, ["department_id"])


def test_an_employee_needs_parents_that_are_there(house):
    upload_sample(house, "departments", "jobs")
    new = {"id": 1, "name": "Ann", "datetime": "2021-11-07T02:48:42+01:00", "department_id": 1, "job_id": 1}
    assert house.post("/employees", json=new).json()["datetime"] == "2021-11-07T01:48:42Z"
    answer = house.post("/employees", json=new | {"id": 2, "department_id": 99})
    assert (answer.status_code, [*answer.json()["errors"]]) == (409, ["department_id"])
    answer = house.patch("/employees/1", json={"job_id": 99, "version": 1})
    assert (answer.status_code, [*answer.json()["errors"]]) == (409, ["job_id"])


@pytest.mark.parametrize("sort", ["id", "-id", "name", "-name", "datetime", "-datetime"])
def test_employees_are_walked_in_any_order(house, sort):
    upload_sample(house)
    found, cursor = [], None
    while True:
        page = house.get("/employees", params={"sort": sort, "limit": 4, "cursor": cursor}).json()
        found += page["items"]
        cursor = page["next"]
        if not cursor:
            break
    keys = [(each[sort.lstrip("-")], each["id"]) for each in found]
    assert len(set(keys)) == 35
    assert keys == sorted(keys, reverse=sort.startswith("-"))


def test_employees_are_filtered_by_department_and_job(house):
    upload_sample(house)
    everybody = rows(house, "employees")
    found = house.get("/employees?department_id=1&job_id=2&fields=id").json()["items"]
    assert [each["id"] for each in found] == [row[0] for row in everybody if row[3:] == [1, 2]]
    assert found


def test_rejects_are_paged_and_filtered(house):
    (employees,) = upload_sample(house, "employees")
    first = house.get(f"/errors/employees?upload_id={employees['upload_id']}&limit=30")
    rest = house.get(first.links["next"]["url"]).json()
    assert (len(first.json()["items"]), len(rest["items"]), rest["next"]) == (30, 10, None)
    assert len(house.get("/errors/employees?code=missing").json()["items"]) == 5
    assert house.get("/errors/employees?upload_id=999999").json()["items"] == []


def test_psql_prints_the_bodies_of_the_service(house):
    upload_sample(house)
    for table in FILES:
        assert shown_by_psql(house, f"{table}.get", id=1) == house.get(f"/{table}/1").text
        name = {"employees": "datetime"}.get(table, table.removesuffix("s"))
        for sort in ("id", "-id", name, f"-{name}"):
            page = house.get(f"/{table}?limit=3&sort={sort}")
            assert shown_by_psql(house, in_order(f"{table}.list", sort), limit=3, sort=sort) == page.text
            rest = house.get(page.links["next"]["url"])
            after = decoded(page.json()["next"])[1]
            assert shown_by_psql(house, in_order(f"{table}.list", sort), limit=3, sort=sort, **after) == rest.text
        page = house.get(f"/errors/{table}?limit=3")
        assert shown_by_psql(house, f"{table}.errors", limit=3) == page.text


def test_the_longest_names_are_walked_as_any_others(service, unique):
    """A cursor holds the key of the last row, whatever it is made of."""
    names = [unique("x").ljust(1000, letter) for letter in ("😀", "\x01", '"', "|")]
    for number, name in enumerate(names):
        made = service.post("/departments", json={"id": 2_000_000_000 + number, "department": name})
        assert made.status_code == 201
    found, path = [], "/departments?sort=-department&limit=1"
    while path:
        answer = service.get(path)
        assert answer.status_code == 200, answer.text
        found += [row["department"] for row in answer.json()["items"]]
        path = answer.links.get("next", {}).get("url")
    assert set(names) <= set(found)
    assert found == sorted(found, reverse=True)
