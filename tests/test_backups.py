"""Backups: tables out as Avro and back, whole or not at all, while others read."""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path

import fastavro
import psycopg
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from handlers.bulk import avro_file, avro_longs, backup
from handlers.bulk.avro_file import BLOCK_LIMIT
from handlers.bulk.backup import Column, schema_of
from handlers.bulk.errors import Damaged
from handlers.bulk.restore import check_columns
from handlers.http.shares import STREAMS_OF_ONE
from tests import flask_command
from tests.conftest import ROOT, first, serve, wait_for

SAMPLE = ROOT / "tests" / "hiring"
FILES = {"departments": "departments.csv", "jobs": "jobs.csv", "employees": "hired_employees.csv"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
AVRO = {"Content-Type": "application/avro"}


@pytest.fixture(scope="module")
def house(module_database, tmp_path_factory):
    """A service of its own, whose tables each test finds as the sample files leave them."""
    directory = tmp_path_factory.mktemp("backups")
    with serve(module_database, BACKUP_DIR=str(directory)) as service:
        service.directory = directory
        yield service


@pytest.fixture(autouse=True)
def sample(request):
    if "house" not in request.fixturenames:
        return
    house = request.getfixturevalue("house")
    for path in house.directory.iterdir():
        path.unlink()
    run(house, "truncate departments, jobs, employees, uploads cascade")
    run(house, "truncate history.deleted")
    for table, file in FILES.items():
        assert house.post(f"/upload/{table}", files={"file": (SAMPLE / file).read_bytes()}).status_code == 200


def run(house, statement: str, *values):
    with psycopg.connect(house.database) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else None


def back_up(house, table: str) -> dict:
    answer = house.post(f"/backup/{table}")
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/backups/{answer.json()['name']}"
    return answer.json()


def restore(house, table: str, status: int = 200, **body) -> dict:
    answer = house.post(f"/restore/{table}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def counts(restored: dict) -> tuple[int, int, int, int]:
    return tuple(restored[name] for name in ("rows", "added", "removed", "changed"))


def everything(house) -> dict:
    """All rows of all tables, as they are."""
    return {table: run(house, f"select * from {table} order by id") for table in backup.TABLES}


def columns(house, table: str) -> list[str]:
    query = "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum"
    return [name for (name,) in run(house, query, table)]


def data(house, table: str) -> list:
    """The rows of a table, without what counts and dates their versions."""
    return [
        [value for name, value in item.items() if name not in ("version", "created_at", "updated_at")]
        for item in house.get(f"/{table}?limit=1000").json()["items"]
    ]


# Out ------------------------------------------------------------------------------------------------------------------


def test_a_backup_has_true_types_and_a_manifest(house):
    manifest = back_up(house, "employees")
    file = house.directory / manifest["file"]
    assert [*house.directory.iterdir()] != []
    assert sorted(path.suffix for path in house.directory.iterdir()) == [".avro", ".json"]
    assert manifest["bytes"] == file.stat().st_size
    assert manifest["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    with file.open("rb") as opened:
        reader = fastavro.reader(opened)
        rows = [*reader]
        assert reader.metadata["rowhouse.snapshot"] == manifest["snapshot"]
    kinds = {field["name"]: field["type"] for field in manifest["schema"]["fields"]}
    assert kinds["id"] == "int" and kinds["name"] == "string" and kinds["upload_id"] == ["null", "long"]
    assert kinds["datetime"] == kinds["created_at"] == MICROS
    assert [tuple(row.values()) for row in rows] == run(house, "table employees order by id")
    assert manifest["rows"] == len(rows) > 0
    assert json.loads((house.directory / f"{manifest['name']}.json").read_text()) == manifest
    assert house.get(f"/backups/{manifest['name']}").json() == manifest


def test_all_is_of_one_snapshot(house):
    manifest = back_up(house, "all")
    assert [file["table"] for file in manifest["files"]] == list(backup.TABLES)
    assert {
        avro_file.header_of((house.directory / file["file"]).open("rb")).metadata["rowhouse.snapshot"]
        for file in manifest["files"]
    } == {manifest["snapshot"]}
    assert manifest["rows"] == sum(len(rows) for rows in everything(house).values())


def test_the_live_table_is_an_avro_file(house):
    answer = house.get("/backup/jobs")
    assert answer.headers["Content-Type"] == "application/avro"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert [row["job"] for row in fastavro.reader(io.BytesIO(answer.content))] == [
        row[1] for row in data(house, "jobs")
    ]
    several = house.get("/backup/all")
    assert (several.status_code, {*several.headers["Allow"].split(", ")}) == (405, {"OPTIONS", "POST"})


def test_each_name_that_a_path_may_have_by_its_contract_is_there(house):
    walked = 0
    for path, methods in house.get("/openapi.json").json()["paths"].items():
        parameters = [each for each in methods.get("get", {}).get("parameters", ()) if each["in"] == "path"]
        if [len(each["schema"].get("enum", ())) > 1 for each in parameters] == [True]:
            for name in parameters[0]["schema"]["enum"]:
                walked += 1
                assert house.get(path.replace(f"{{{parameters[0]['name']}}}", name)).status_code == 200, (path, name)
    assert walked > len(backup.TABLES) + len(FILES)


def test_a_column_of_a_type_that_no_backup_has_is_told(house):
    name = back_up(house, "employees")["name"]
    types = ("numeric", "boolean", "date", "jsonb", "uuid", "integer[]", "real", "character varying(9)", "interval")
    for type in types:
        run(house, f"alter table employees add column grade {type}")
        try:
            for answer in (
                house.post("/backup/employees"),
                house.get("/backup/employees"),
                house.post("/backup/all"),
            ):
                assert (answer.status_code, "employees.grade" in answer.json()["detail"]) == (409, True), answer.text
            assert house.post("/backup/jobs").status_code == 201
            assert counts(restore(house, "employees", backup=name))[1:] == (0, 0, 0), "it lacks the column, as before"
            refused = flask(house, "backup", "employees") if type == "numeric" else None
            assert refused is None or (refused.returncode, "employees.grade" in refused.stderr) == (1, True)
        finally:
            run(house, "alter table employees drop column grade")
    assert not [*house.directory.glob("*.part")]


MANIFESTS = [
    b"",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"[" * 100_000,
    b"\0" * 50,
    b"\xff",
    {"table": "employees"},
    {"name": "jobs-20260101T000000000000Z"},
    {"name": None},
    {"rows": "6"},
    {"rows": True},
    {"rows": None},
    {"file": "../../../etc/passwd"},
    {"file": ["x"]},
    {"schema": None},
    {"files": []},
    {"more": 1},
]


@pytest.mark.parametrize("table", ["jobs", "all"])
def test_a_manifest_that_is_none_is_told_skipped_and_not_listed(house, table):
    older, newer = back_up(house, "jobs")["name"], back_up(house, table)
    name, file = newer["name"], house.directory / f"{newer['name']}.json"
    before = everything(house)
    for content in MANIFESTS:
        if isinstance(content, dict):
            one = table == "jobs" or not {"file", "schema"} & content.keys()
            content = newer | content if one else newer | {"files": [newer["files"][0] | content, *newer["files"][1:]]}
            content = json.dumps(content).encode()
        file.write_bytes(content)
        for answer in (
            house.get(f"/backups/{name}"),
            house.post("/restore/jobs", json={"backup": name}),
            house.post(f"/restore/{table}", json={"backup": name, "dry_run": True}),
        ):
            assert (answer.status_code, "manifest" in answer.json()["detail"]) == (422, True), (content, answer.text)
        assert [item["name"] for item in house.get("/backups").json()["items"]] == [older], content
        first = house.get("/backups?limit=1").json()
        assert ([item["name"] for item in first["items"]], first["next"]) == ([older], None)
        assert restore(house, "jobs")["backup"] == older, content
    assert house.post("/restore/all", json={}).status_code == 404
    assert everything(house) == before
    assert house.delete(f"/backups/{name}").status_code == 204
    assert sorted(path.stem for path in house.directory.iterdir()) == [older, older]


def test_a_manifest_that_is_no_file_is_as_one_that_is_damaged(house):
    older = back_up(house, "jobs")["name"]
    name = "jobs-20991231T000000000000Z"
    directory = house.directory / f"{name}.json"
    directory.mkdir()
    try:
        assert house.get(f"/backups/{name}").status_code == 422
        assert restore(house, "jobs")["backup"] == older
        assert [item["name"] for item in house.get("/backups").json()["items"]] == [older]
    finally:
        directory.rmdir()


def test_a_table_is_downloaded_as_often_as_one_likes(house):
    for _ in range(2 * STREAMS_OF_ONE + 1):  # in one of two processes
        assert house.get("/backup/departments").status_code == 200
        assert house.request("HEAD", "/backup/departments").status_code == 200


def test_backups_are_listed_from_the_newest_and_removed(house):
    names = [back_up(house, table)["name"] for table in ("jobs", "departments", "jobs")]
    first = house.get("/backups?limit=2").json()
    assert [item["name"] for item in first["items"]] == [names[2], names[1]]
    rest = house.get(f"/backups?limit=2&cursor={first['next']}").json()
    assert ([item["name"] for item in rest["items"]], rest["next"]) == ([names[0]], None)
    assert [item["name"] for item in house.get("/backups?table=departments").json()["items"]] == [names[1]]
    assert house.delete(f"/backups/{names[2]}").status_code == 204
    assert house.get(f"/backups/{names[2]}").status_code == house.delete(f"/backups/{names[2]}").status_code == 404
    assert len([*house.directory.iterdir()]) == 4


def test_what_a_killed_writer_left_is_swept_but_not_what_is_being_written(tmp_path):
    (tmp_path / "jobs-1.avro.part").write_bytes(b"left")
    with backup.written(tmp_path / "jobs-2.avro") as file:
        file.write(b"new")
        backup.sweep(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["jobs-2.avro.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["jobs-2.avro"]
    orphan, foreign = tmp_path / "all-20260101T000000000000Z.jobs.avro", tmp_path / "mine.avro"
    for path in (orphan, foreign):
        path.write_bytes(b"")
    backup.sweep(tmp_path)
    assert orphan.exists(), "its manifest may still come"
    os.utime(orphan, (0, 0))
    os.utime(foreign, (0, 0))
    backup.sweep(tmp_path)
    assert (orphan.exists(), foreign.exists()) == (False, True)
    foreign.unlink()
    with pytest.raises(ZeroDivisionError), backup.written(tmp_path / "jobs-3.avro"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["jobs-2.avro"]


# In -------------------------------------------------------------------------------------------------------------------


def test_equal_data_is_left_alone(house):
    for table in (*backup.TABLES, "all"):
        back_up(house, table)
    before, history = everything(house), run(house, "select count(*) from history.entries")
    for table in (*backup.TABLES, "all"):
        assert counts(restore(house, table))[1:] == (0, 0, 0), table
    assert (everything(house), run(house, "select count(*) from history.entries")) == (before, history)


def test_a_table_is_as_it_was_and_history_knows(house):
    back_up(house, "departments")
    before = data(house, "departments")
    gone, kept = before[-1][0], before[0][0]
    run(house, "delete from employees where department_id = %s", gone)
    assert house.delete(f"/departments/{gone}?version=1").status_code == 204
    assert house.patch(f"/departments/{kept}", json={"version": 1, "department": "Other"}).status_code == 200
    assert house.post("/departments", json={"id": 999, "department": "More"}).status_code == 201
    trial = restore(house, "departments", dry_run=True)
    assert (counts(trial), trial["dry_run"]) == ((len(before), 1, 1, 1), True)
    assert data(house, "departments") != before
    assert counts(restore(house, "departments")) == (len(before), 1, 1, 1)
    assert data(house, "departments") == before
    assert house.get(f"/departments/{kept}").json()["version"] == 3
    entries = house.get(f"/departments/{kept}/history").json()["items"]
    assert [entry["diff"]["department"][1] for entry in entries if entry["version"] == 3] == [before[0][1]]
    load = run(house, "select new_obj from history.entries where new_obj ? 'load' order by id desc limit 1")
    assert load[0][0]["load"].startswith("restore of departments-") and load[0][0]["rows"] == 1


def test_all_comes_back_into_an_empty_house(house):
    manifest = back_up(house, "all")
    before = everything(house)
    run(house, "truncate departments, jobs, employees, uploads restart identity cascade")
    restored = restore(house, "all")
    assert (restored["backup"], restored["added"]) == (manifest["name"], manifest["rows"])
    after = everything(house)
    for table in ("departments", "jobs", "employees"):
        saved = next(place for place, name in enumerate(columns(house, table)) if name == "updated_at")
        for rows, versions in ((before, 1), (after, 0)):
            rows[table] = [
                (id, version + versions, *others[: saved - 2], *others[saved - 1 :])
                for id, version, *others in rows[table]
            ]
    assert after == before, "but for the versions, which were taken, and when they were saved"
    again = house.post("/upload/jobs", files={"file": b"77,Baker\n,nobody\n"}).json()
    assert again["upload_id"] > max(row[0] for row in before["uploads"]), "the sequence goes on after what was restored"


@pytest.mark.parametrize("table", ["departments", "jobs", "employees"])
@pytest.mark.parametrize("missing", ["some", "all"])
@pytest.mark.parametrize("columns", ["every", "none that counts versions"])
def test_what_comes_back_counts_on(house, table, missing, columns):
    """A row that was saved three times and deleted: its backup says 1, and 1 to 3 were another's."""
    run(house, "delete from employees where id > 2" if table == "employees" else "delete from employees")
    manifest = back_up(house, table)
    before = dict(run(house, f"select id, version from {table}"))
    run(house, f"update {table} set created_at = created_at - interval '1 day'")
    run(house, f"update {table} set created_at = created_at - interval '1 day'")
    run(house, f"delete from {table} where id = 1" if missing == "some" else f"delete from {table}")
    rows = io.BytesIO()
    with (house.directory / manifest["file"]).open("rb") as file:
        schema = manifest["schema"]
        if columns != "every":
            schema = schema | {"fields": [field for field in schema["fields"] if field["name"] != "version"]}
        fastavro.writer(rows, schema, fastavro.reader(file))
    assert house.post(f"/restore/{table}", data=rows.getvalue(), headers=AVRO).status_code == 200
    after = dict(run(house, f"select id, version from {table}"))
    assert before.keys() == after.keys()
    assert after[1] == before[1] + 3
    assert {*after.values()} == {4 if missing == "all" else 3, 4} if len(after) > 1 else {4}


def test_a_table_of_all_can_be_restored_alone(house):
    manifest = back_up(house, "all")
    before = data(house, "employees")
    run(house, "delete from employees where id %% 2 = 0")
    assert restore(house, "employees")["backup"] == manifest["name"]
    assert data(house, "employees") == before


def test_the_newest_is_taken_unless_one_is_named(house):
    first = back_up(house, "jobs")["name"]
    run(house, "insert into jobs (id, job) values (500, 'Baker')")
    back_up(house, "jobs")
    assert counts(restore(house, "jobs"))[1:] == (0, 0, 0)
    assert counts(restore(house, "jobs", backup=first))[1:] == (0, 1, 0)


def test_a_file_is_restored_from_the_body(house):
    content = house.get("/backup/employees").content
    before = data(house, "employees")
    run(house, "delete from employees")
    trial = house.post("/restore/employees?dry_run=true", data=content, headers=AVRO).json()
    assert (trial["added"], trial["backup"], data(house, "employees")) == (len(before), None, [])
    restored = house.post("/restore/employees", files={"file": ("employees.avro", content)})
    assert (restored.status_code, restored.json()["added"]) == (200, len(before))
    assert data(house, "employees") == before


def test_an_older_backup_has_defaults_in_what_was_added_since(house):
    back_up(house, "employees")
    before = data(house, "employees")
    run(house, "alter table employees add column nickname text default 'none', add column shoe integer")
    run(house, "update employees set nickname = 'Al' where id = (select min(id) from employees)")
    run(house, "delete from employees where id = (select max(id) from employees)")
    try:
        assert counts(restore(house, "employees"))[1:] == (1, 0, 0)
        assert data(house, "employees") == before
        assert run(house, "select nickname, count(*) from employees group by 1 order by 1") == [
            ("Al", 1),
            ("none", len(before) - 1),
        ]
        newer = back_up(house, "employees")
        run(house, "delete from employees")
        restore(house, "employees", backup=newer["name"])
        assert run(house, "select count(*) from employees where nickname = 'Al'") == [(1,)]
    finally:
        run(house, "alter table employees drop column nickname, drop column shoe")
    assert "no such column" in restore(house, "employees", 422)["detail"]


def test_no_row_is_left_without_its_parents(house):
    back_up(house, "employees")
    back_up(house, "departments")
    run(house, "delete from employees")
    run(house, "delete from departments")
    assert "employees_department_id_fkey" in restore(house, "employees", 422)["detail"]
    restore(house, "departments")
    restore(house, "employees")
    run(house, "insert into departments (id, department) values (999, 'New')")
    run(house, "update employees set department_id = 999 where id = (select min(id) from employees)")
    before = everything(house)
    assert "employees_department_id_fkey" in restore(house, "departments", 422)["detail"]
    assert everything(house) == before


def test_employees_whose_ids_repeat_are_refused(house):
    reader = fastavro.reader(io.BytesIO(house.get("/backup/employees").content))
    rows, file = [*reader], io.BytesIO()
    fastavro.writer(file, reader.writer_schema, [*rows, rows[0]])
    for statement in ("select", "delete from employees"):
        run(house, statement)
        before = everything(house)
        answer = house.post("/restore/employees", data=file.getvalue(), headers=AVRO)
        assert (answer.status_code, "the same id" in answer.json()["detail"]) == (422, True)
        assert everything(house) == before


@pytest.mark.parametrize("table", FILES)
def test_no_reject_goes_with_the_upload_that_a_restore_would_remove(house, table):
    name = back_up(house, "all")["name"]
    answer = house.post(f"/upload/{table}", files={"file": b",nobody\n"})
    assert answer.json()["rejected"] == 1
    before = everything(house)
    for dry_run in (True, False):
        told = restore(house, "uploads", 422, backup=name, dry_run=dry_run)["detail"]
        assert f"{table}_errors_upload_id_fkey" in told and "or all" in told
    assert everything(house) == before
    trial = restore(house, "all", backup=name, dry_run=True)
    assert everything(house) == before
    found = restore(house, "all", backup=name)
    assert found == trial | {"dry_run": False}
    removed = {each["table"]: each["removed"] for each in found["tables"] if each["removed"]}
    assert removed == {"uploads": 1, f"{table}_errors": 1}
    assert house.post(f"/upload/{table}", files={"file": b",nobody\n"}).status_code == 200
    run(house, f"delete from {table}_errors where upload_id = (select max(id) from uploads)")
    assert restore(house, "uploads", backup=name)["removed"] == 1, "nothing refers to it"


@pytest.mark.parametrize("table", FILES)
def test_a_reject_of_another_upload_comes_back_with_all(house, table):
    """Its id was given again, to a reject of an upload that the backup does not have."""
    house.post(f"/upload/{table}", files={"file": b",nobody\n"})
    back_up(house, "all")
    before = everything(house)
    errors = f"{table}_errors"
    id, upload = run(house, f"select id, upload_id from {errors} order by id desc limit 1")[0]
    run(house, f"delete from uploads where id = {upload}")
    again = house.post(f"/upload/{table}", files={"file": b",somebody else\n"}).json()["upload_id"]
    run(house, f"alter table {errors} alter column id set generated by default")
    run(house, f"update {errors} set id = {id} where upload_id = {again}")
    run(house, f"alter table {errors} alter column id set generated always")
    assert restore(house, "all")["changed"] == 1
    assert everything(house) == before


def test_a_file_whose_rejects_have_no_upload_is_refused(house):
    """All of a backup made by another hand: rejects that are there already, of an upload that it lacks."""
    reject_some(house)
    content = house.get("/backup/uploads").content
    reader = fastavro.reader(io.BytesIO(content))
    rows, file = [*reader], io.BytesIO()
    fastavro.writer(file, reader.writer_schema, rows[:-1])
    before = everything(house)
    answer = house.post("/restore/uploads", data=file.getvalue(), headers=AVRO)
    assert (answer.status_code, "employees_errors_upload_id_fkey" in answer.json()["detail"]) == (422, True)
    assert everything(house) == before


def altered(house, table: str, **members) -> bytes:
    """The live table as a file, the first row otherwise in some members."""
    reader = fastavro.reader(io.BytesIO(house.get(f"/backup/{table}").content))
    rows, file = [*reader], io.BytesIO()
    fastavro.writer(file, reader.writer_schema, [rows[0] | members, *rows[1:]])
    return file.getvalue()


def reject_some(house) -> None:
    """A reject in each table of them."""
    for table in FILES:
        assert house.post(f"/upload/{table}", files={"file": b",nobody\n"}).json()["rejected"] == 1


IDENTITIES = ("uploads", "departments_errors", "jobs_errors", "employees_errors")


@pytest.mark.parametrize("table", IDENTITIES)
def test_no_restore_takes_the_room_of_a_sequence(house, table):
    reject_some(house)
    sequence = f"select last_value from {table}_id_seq"
    before, last = everything(house), run(house, sequence)
    for id in (2**63 - 1, 2**63 - 2, 2**62 + 1, 0, -1, -(2**63)):
        for way in ("", "?dry_run=true"):
            answer = house.post(f"/restore/{table}{way}", data=altered(house, table, id=id), headers=AVRO)
            assert (answer.status_code, "id must be 1 to" in answer.json()["detail"]) == (422, True), (id, answer.text)
    assert (everything(house), run(house, sequence)) == (before, last)
    reject_some(house)


@pytest.mark.parametrize("emptied", first(1, [False, True]))
@pytest.mark.parametrize("table", FILES)
@pytest.mark.parametrize(
    "member, values",
    [("upload_id", (0, -5, 2**63 - 1)), ("line", (0, -7, 2**31 - 1)), ("version", (0, -1, 2**31 - 1))],
)
def test_no_restore_takes_what_was_never_counted(house, table, member, values, emptied):
    files = [altered(house, table, **{member: value}) for value in values]
    if emptied:
        run(house, "delete from employees")
        if table != "employees":
            run(house, f"delete from {table}")
    before = everything(house)
    for file in files:
        answer = house.post(f"/restore/{table}", data=file, headers=AVRO)
        assert (answer.status_code, f"{member} must be 1 to" in answer.json()["detail"]) == (422, True), answer.text
    assert everything(house) == before


@pytest.mark.parametrize("table", IDENTITIES)
def test_a_good_backup_makes_a_sequence_good_again_that_was_at_its_end(house, table):
    reject_some(house)
    back_up(house, "all")
    whole, end = run(house, f"select * from {table} order by id"), 2**63 - 1
    into = "jobs" if table == "uploads" else table.removesuffix("_errors")
    names = (
        "table_name, sha256, rows, accepted, rejected" if table == "uploads" else "upload_id, line, code, detail, raw"
    )
    values = (
        "'jobs', md5('') || md5('x'), 0, 0, 0" if table == "uploads" else "(select min(id) from uploads), 9, '', '', ''"
    )
    for way in (table, "all"):
        run(house, f"select setval('{table}_id_seq', {end})")
        run(house, f"insert into {table} (id, {names}) overriding system value values ({end}, {values})")
        assert house.post(f"/upload/{into}", files={"file": b",x\n"}).status_code == 422, "no id is left"
        assert restore(house, way)["removed"] == 1
        assert run(house, f"select * from {table} order by id") == whole
        assert house.post(f"/upload/{into}", files={"file": b",x\n"}).status_code == 200
        restore(house, "all")


@pytest.mark.parametrize(
    "body, status",
    [
        ({"backup": "../../../etc/passwd"}, 422),
        ({"backup": "jobs-20260101T000000000000Z/../x"}, 422),
        ({"backup": "jobs-20260101T000000000000Z\n"}, 422),
        ({"backup": ""}, 422),
        ({"backup": "jobs-20260101T000000000000Z"}, 404),
        ({}, 404),
        ({"dry_run": "yes"}, 422),
        ({"file": "x"}, 422),
    ],
)
def test_a_backup_that_is_not_there_is_refused(house, body, status):
    restore(house, "jobs", status, **body)


def test_a_backup_of_another_table_is_refused(house):
    name = back_up(house, "departments")["name"]
    assert "jobs" in restore(house, "jobs", 422, backup=name)["detail"]
    content = house.get("/backup/departments").content
    answer = house.post("/restore/jobs", data=content, headers=AVRO)
    assert answer.status_code == 422
    assert house.post("/restore/all", data=content, headers=AVRO).status_code == 422
    assert house.post("/restore/jobs", data=content, headers={"Content-Type": "text/csv"}).status_code == 415


def of_jobs(rows, fields=(("id", "int"), ("job", "string")), codec="null") -> bytes:
    """A file of another hand, without our digest."""
    buffer = io.BytesIO()
    schema = {"type": "record", "name": "jobs", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    fastavro.writer(
        buffer, schema, [dict(zip([name for name, _ in fields], row, strict=True)) for row in rows], codec=codec
    )
    return buffer.getvalue()


def test_a_restore_takes_no_name_that_an_upload_refuses(house):
    run(house, "delete from employees")
    for name in ("", " ", "\x01", "\u00a0", "\u200b", "\ufeff", "\u2800", "\U000e0001", "x" * 1001):
        answer = house.post("/restore/jobs", data=of_jobs([(1, name)]), headers=AVRO)
        assert (answer.status_code, "jobs_job_check" in answer.text) == (422, True), ascii(name)
    for name in ("\u200ba", " a\n", "\u00a0a\u00a0", "😀" * 1000):
        assert house.post("/restore/jobs", data=of_jobs([(1, name)]), headers=AVRO).status_code == 200
        assert data(house, "jobs") == [[1, name]]


def test_a_file_of_another_hand_is_taken_by_the_same_rules(house):
    run(house, "delete from employees")
    restored = house.post("/restore/jobs", data=of_jobs([(1, "Cook"), (900, "Baker")]), headers=AVRO)
    assert restored.status_code == 200, restored.text
    assert data(house, "jobs") == [[1, "Cook"], [900, "Baker"]]


FOREIGN = re.compile(r"relation|null value|constraint|encoding|byte sequence|PostgreSQL|0x00|bigint|input")


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("member", ["id", "name", "datetime", "job_id", "text"])
def test_what_does_not_fit_is_told_in_a_sentence_of_ours(house, member, emptied):
    reader = fastavro.reader(io.BytesIO(house.get("/backup/employees").content))
    schema, rows, file = reader.writer_schema, [*reader], io.BytesIO()
    if member == "text":
        rows[0]["name"], told = "a\0b", "A value does not fit into its column"
    else:
        rows[0][member], told = None, f"A row has no {member}."
    for field in schema["fields"]:
        field["type"] = ["null", field["type"]] if field["name"] == member else field["type"]
    fastavro.writer(file, schema, rows)
    if emptied:
        run(house, "delete from employees")
    answer = house.post("/restore/employees", data=file.getvalue(), headers=AVRO)
    assert (answer.status_code, told in answer.json()["detail"]) == (422, True), answer.text
    assert not FOREIGN.search(answer.text)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Obj\x01",
        b"id,job\n1,Cook\n",
        of_jobs([(1, "Cook")])[:-1],
        of_jobs([("1", "Cook")], (("id", "string"), ("job", "string"))),
        of_jobs([(1, "Cook")], (("id", "long"), ("job", "string"))),
        of_jobs([(1, "Cook", 1)], (("id", "int"), ("job", "string"), ("more", "int"))),
        of_jobs([("Cook",)], (("job", "string"),)),
        of_jobs([(1,)], (("id", "int"),)),
        of_jobs([(1, "Cook"), (1, "Baker")]),
        of_jobs([(0, "Cook")]),
        of_jobs([(1, " ")]),
        of_jobs([(1, "a\0b")]),
        of_jobs([(1, None)], (("id", "int"), ("job", ["null", "string"]))),
        of_jobs([(2**31 + 1, "Cook")], (("id", "long"), ("job", "string"))).replace(b'"long"', b'"int" '),
        of_jobs([(1, "Cook")], codec="bzip2"),
        of_jobs([(1, "Cook")]).replace(b'"string"', b'"bytes" '),
        *[
            of_jobs([(1, "Cook", moment)], (("id", "int"), ("job", "string"), ("created_at", MICROS)))
            for moment in (2**63 - 1, -(2**63), 253_402_300_800_000_000)
        ],
    ],
    ids=range(20),
)
def test_what_is_no_table_of_jobs_is_refused_and_nothing_changes(house, content):
    before = everything(house)
    answer = house.post("/restore/jobs", data=content, headers=AVRO)
    assert answer.status_code == 422, answer.text
    assert "cannot be restored" in answer.json()["detail"]
    assert not FOREIGN.search(answer.text), "the database's own words"
    assert everything(house) == before


def test_a_bomb_is_stopped_before_it_unpacks(house):
    bomb = of_jobs([(1, "Cook")], codec="deflate")
    header = avro_file.header_of(io.BytesIO(bomb))
    packed = zlib.compressobj(9, wbits=-15)
    block = packed.compress(b"\x02" + b"\0" * (BLOCK_LIMIT + 1)) + packed.flush()
    content = bomb[: header.length] + b"\x02" + varint(len(block)) + block + header.sync
    answer = house.post("/restore/jobs", data=content, headers=AVRO)
    assert (answer.status_code, "larger than" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("some", [[], [(1, "Cook")]], ids=["alone", "behind rows"])
def test_blocks_of_no_rows_are_refused(house, some):
    """A file of many took long, and would have made the table empty."""
    run(house, "delete from employees")
    before, content = everything(house), of_jobs(some)
    for many in (1, 100_000):
        answer = house.post("/restore/jobs", data=content + (b"\0\0" + content[-16:]) * many, headers=AVRO)
        assert (answer.status_code, "A block is damaged" in answer.text) == (422, True), answer.text
    assert everything(house) == before


def test_an_endless_number_holds_nobody_up(house):
    """64 MB of it: others are answered meanwhile, and it is refused."""
    longest, done = 0.0, threading.Event()

    def ask():
        nonlocal longest
        with requests.Session() as session:
            while not done.is_set():
                began = time.monotonic()
                assert session.get(f"{house.url}/ping").ok
                longest = max(longest, time.monotonic() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        answer = house.post("/restore/jobs", data=of_jobs([]) + b"\xff" * 2**26, headers=AVRO)
    finally:
        done.set()
        asking.join()
    assert (answer.status_code, "cannot be restored" in answer.json()["detail"]) == (422, True)
    assert longest < 0.7


def test_readers_see_the_old_rows_or_the_new(house):
    run(house, "insert into jobs (id, job) select i, 'Job ' || i from generate_series(10001, 30000) as i")
    back_up(house, "jobs")
    whole = run(house, "select count(*) from jobs")[0][0]
    run(house, "delete from jobs where id > 10000")
    few = run(house, "select count(*) from jobs")[0][0]
    seen, done = set(), threading.Event()

    def watch():
        with psycopg.connect(house.database, autocommit=True) as connection:
            connection.execute("set lock_timeout = '1s'")
            while not done.is_set():
                seen.add(connection.execute("select count(*) from jobs").fetchone()[0])

    readers = [threading.Thread(target=watch) for _ in range(16)]
    for reader in readers:
        reader.start()
    try:
        assert restore(house, "jobs")["added"] == whole - few
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert seen <= {few, whole}


# Damage ---------------------------------------------------------------------------------------------------------------

COLUMNS = [
    Column("id", "integer", False),
    Column("name", "text", True),
    Column("at", "timestamp with time zone", True),
    Column("upload_id", "bigint", True),
]

YEAR_1, YEAR_10000 = -63_082_281_600_000_000, 252_455_616_000_000_000
moments = st.integers(YEAR_1, YEAR_10000 - 1)
rows = st.lists(
    st.tuples(
        st.integers(1, 2**31 - 1),
        st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | moments,
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=20,
)


def packed(some: list[tuple]) -> bytes:
    file = io.BytesIO()
    metadata = {avro_file.TABLE: "jobs", avro_file.SNAPSHOT: "7:7:", avro_file.MIGRATION: "0001"}
    assert avro_file.write(file, schema_of("jobs", COLUMNS), iter(some), metadata) == len(some)
    return file.getvalue()


@given(rows)
@example([])
def test_what_is_written_is_read(some):
    file = io.BytesIO(packed(some))
    header, count = avro_file.checked(file)
    assert count == len(some)
    assert [*avro_file.rows(file, header)] == some


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_what_another_hand_damaged_is_read_or_refused(codec):
    """Their files have no digest: what damage leaves readable is read, and all else is Damaged, never a crash."""
    content = of_jobs([(1, "Cook"), (2, "Baker")], codec=codec)
    begin = avro_file.header_of(io.BytesIO(content)).length
    assert read(content) == [(1, "Cook"), (2, "Baker")]
    assert read(content[:begin]) == [], "a header alone is a file of no rows"
    for place in {*range(len(content))} - {begin}:
        with pytest.raises(Damaged):
            read(content[:place])
    with pytest.raises(Damaged):
        read(content[:-1] + bytes([content[-1] ^ 1]))
    for count in (b"\0", b"\2", b"\6", b"\xfe\x7f", b"\3"):
        with pytest.raises(Damaged):
            read(content[:begin] + count + content[begin + 1 :])
    refused = 0
    for place in range(len(content)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128):
            damaged = content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
            try:
                read(damaged)
            except Damaged:
                refused += 1
    assert refused > len(content) * 4
    for more in (b"\0", b"\x80" * 100, b"\x02\x7f", b"\x02" + b"\xff" * 9 + b"\x01", b"\x02\x02", content[begin:-1]):
        with pytest.raises(Damaged):
            read(content + more)


def varint(number: int, size: int = 1) -> bytes:
    """A number that is not negative as an Avro long, of so many bytes at least."""
    found, rest = [], number << 1
    while rest or len(found) < size:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*found[:-1], found[-1] & 0x7F])


def of_longs(size: dict[str, int]) -> bytes:
    """A file of one job whose numbers have so many bytes each, by what they are."""

    def long(what: str, number: int) -> bytes:
        return varint(number, size.get(what, 1))

    def text(what: str, data: bytes) -> bytes:
        return long(f"the length of {what}", len(data)) + data

    types = [{"name": "id", "type": "int"}, {"name": "job", "type": ["null", "string"]}]
    types.append({"name": "upload_id", "type": "long"})
    schema = json.dumps({"type": "record", "name": "jobs", "fields": types}).encode()
    entries = text("a key", b"avro.schema") + text("a text", schema)
    header = b"Obj\1" + long("the number of entries", 1) + entries + long("the end of entries", 0) + b"s" * 16
    row = long("an int", 7) + long("a kind", 1) + text("a string", "Köche".encode()) + long("a long", 9)
    return header + long("a count", 1) + long("a size", len(row)) + row + b"s" * 16


LONGS = ["the number of entries", "the end of entries", "the length of a key", "the length of a text", "a count"]
LONGS += ["a size", "an int", "a kind", "the length of a string", "a long"]


@pytest.mark.parametrize("what", LONGS)
def test_a_long_has_at_most_ten_bytes(what):
    for size in (1, 9, 10):
        assert read(of_longs({what: size})) == [(7, "Köche", 9)]
    for size in (11, 12, 20, 1000):
        with pytest.raises(Damaged, match="longer than"):
            read(of_longs({what: size}))


def test_the_tenth_byte_of_a_long_is_at_most_one():
    for last, taken in ((0, True), (1, True), (2, False), (3, False), (0x7F, False)):
        content = of_longs({"a long": 10})
        content = content[:-17] + bytes([last]) + content[-16:]
        with nullcontext() if taken else pytest.raises(Damaged, match="longer than"):
            assert read(content)[0][:2] == (7, "Köche")


LARGE = BLOCK_LIMIT - 8

STRETCHES = {
    "a count": (b"\xff" * LARGE, False),
    "a size": (b"\x02" + b"\xff" * LARGE, False),
    "a value": (b"\xff" * LARGE, True),
    "almost values": ((b"\xff" * 9 + b"\0") * (LARGE // 10), True),
    "letters": (b"\x02" + varint(LARGE - 8) + b"\xc3\xbc" * (LARGE // 2 - 4), True),
    "many short ones": (b"\x02\0" * (LARGE // 2), True),
}


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize(("data", "in_a_block"), STRETCHES.values(), ids=STRETCHES)
def test_no_stretch_without_a_turn_is_long(monkeypatch, data, in_a_block, codec):
    """Of what this thread itself does: others run beside it."""
    jobs, turns = of_jobs([], codec=codec), []
    if in_a_block:
        packed = zlib.compress(data, 1, wbits=-15) if codec == "deflate" else data
        data = varint(data.count(b"\x02\0") or 1) + varint(len(packed)) + packed + jobs[-16:]
    for module in (avro_file, avro_longs):
        monkeypatch.setattr(module, "next_turn", lambda: turns.append(time.thread_time()))
    file = io.BytesIO(jobs + data)
    turns.append(time.thread_time())
    with suppress(Damaged):
        header, _ = avro_file.checked(file)
        for _ in avro_file.rows(file, header):
            if len(turns) > 5000:  # the rest is as this
                break
    turns.append(time.thread_time())
    assert max(after - before for before, after in pairwise(turns)) < 0.1


def test_letters_are_no_long():
    """Bytes of a text may be as those of a number that has no end: it is not one."""
    name = "\U0010ffff" * 1000
    for codec in ("null", "deflate"):
        assert read(of_jobs([(1, name), (2**31 - 1, "ü" * 9), (2, "")], codec=codec))[0] == (1, name)


def test_what_is_read_has_bounds(monkeypatch):
    """Blocks, packed and unpacked, and moments: the last that is taken, and the first that is not."""
    monkeypatch.setattr(avro_file, "BLOCK_LIMIT", 1000)
    for size, taken in ((1000, True), (1001, False)):
        name = "x" * (size - 3)
        for codec in ("null", "deflate"):
            with nullcontext() if taken else pytest.raises(Damaged, match="larger than"):
                assert read(of_jobs([(1, name)], codec=codec)) == [(1, name)]
    content = of_jobs([])
    for head in (b"\1\0", b"\0\1", b"\0" + b"\xff" * 8 + b"\x7f"):
        with pytest.raises(Damaged, match="damaged, or larger than"):
            read(content + head + content[-16:])
    fields = (("id", "int"), ("created_at", MICROS))
    for moment, taken in ((YEAR_1, True), (YEAR_1 - 1, False), (YEAR_10000 - 1, True), (YEAR_10000, False)):
        with nullcontext() if taken else pytest.raises(Damaged, match="years"):
            assert read(of_jobs([(1, moment + avro_file.EPOCH)], fields)) == [(1, moment)]


def test_unpacking_takes_no_more_memory_than_a_block_may():
    packing = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packing.compress(b"\0" * 2**24) for _ in range(20)) + packing.flush()
    tracemalloc.start()
    with pytest.raises(Damaged, match="larger than"):
        avro_file.unpacked(bomb, "deflate")
    assert tracemalloc.get_traced_memory()[1] < 3 * BLOCK_LIMIT
    tracemalloc.stop()
    whole = zlib.compress(b"a" * 100, wbits=-15)
    with pytest.raises(Damaged, match="cut off"):
        avro_file.unpacked(whole[:-1], "deflate")


def test_what_is_unpacked_in_stretches_is_whole():
    """Also where all of it has been read, and some of what it unpacks to has not come out yet."""
    for size in (0, 1, *(many * avro_longs.STRETCH + more for many in (1, 2, 3) for more in (*range(-300, 300, 7), 0))):
        data = b"a" * size
        assert avro_file.unpacked(zlib.compress(data, wbits=-15), "deflate") == data


def read(content: bytes) -> list[tuple]:
    file = io.BytesIO(content)
    header, count = avro_file.checked(file)
    found = [*avro_file.rows(file, header)]
    assert len(found) == count
    return found


@pytest.mark.parametrize("flips", ["some", pytest.param("all", marks=pytest.mark.thorough)])
def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path, flips):
    name = "jobs-20260102T030405000006Z"
    content = packed([(1, "Cook", 820_638_245_000_006, None), (2, None, None, 7)])
    file, manifest = tmp_path / f"{name}.avro", tmp_path / f"{name}.json"
    file.write_bytes(content)
    manifest.write_bytes(backup.as_json(backup.described(tmp_path, name)))
    backup.check_intact(tmp_path, name)

    def refused(what: Path, damaged: bytes) -> None:
        what.write_bytes(damaged)
        with pytest.raises(Damaged):
            backup.check_intact(tmp_path, name)
        if what is file:
            with pytest.raises(Damaged):
                header, _ = avro_file.checked(io.BytesIO(damaged))
                check_columns(header, "jobs", COLUMNS)

    for what in (file, manifest):
        whole = what.read_bytes()
        for place in range(len(whole)):
            refused(what, whole[:place])
            for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255) if flips == "all" else (1 << place % 8,):
                refused(what, whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        refused(what, whole + b"\0")
        what.write_bytes(whole)
    backup.check_intact(tmp_path, name)
    file.unlink()
    with pytest.raises(Damaged):
        backup.check_intact(tmp_path, name)


def test_a_damaged_backup_changes_nothing(house):
    manifest = back_up(house, "jobs")
    file = house.directory / manifest["file"]
    content = file.read_bytes()
    run(house, "insert into jobs (id, job) values (500, 'Baker')")
    before = everything(house)
    for place in range(0, len(content), 97):
        damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        file.write_bytes(damaged)
        assert "cannot be restored" in restore(house, "jobs", 422)["detail"]
        assert house.post("/restore/jobs", data=damaged, headers=AVRO).status_code == 422
    file.write_bytes(content)
    assert everything(house) == before
    assert restore(house, "jobs")["removed"] == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(1, 12), st.sampled_from("abc")),
    st.dictionaries(st.integers(1, 12), st.sampled_from("abc")),
)
def test_any_table_becomes_any_other(house, was, now):
    run(house, "delete from employees")
    run(house, "delete from jobs")
    for id, job in now.items():
        run(house, "insert into jobs (id, job) values (%s, %s)", id, job)
    content = of_jobs(sorted(was.items()))
    found = house.post("/restore/jobs", data=content, headers=AVRO).json()
    assert data(house, "jobs") == [[id, job] for id, job in sorted(was.items())]
    both = was.keys() & now.keys()
    assert counts(found) == (
        len(was),
        len(was) - len(both),
        len(now) - len(both),
        sum(was[id] != now[id] for id in both),
    )


# By hand and by force -------------------------------------------------------------------------------------------------


def flask(house, *words: str, **settings: str) -> subprocess.CompletedProcess:
    return flask_command.flask(house.database, *words, **{"BACKUP_DIR": str(house.directory)} | settings)


def test_the_commands_do_the_same(house, tmp_path):
    before = data(house, "jobs")
    backed = flask(house, "backup", "all")
    name = backed.stdout.split(":")[0]
    assert (backed.returncode, house.get(f"/backups/{name}").status_code) == (0, 200), backed.stderr
    file = tmp_path / "jobs.csv"
    file.write_bytes(b"900,Baker\n,nobody\n")
    assert flask(house, "upload", "jobs", str(file), "--mode", "atomic").returncode == 1
    trial = flask(house, "upload", "jobs", str(file), "--mode", "dry-run").stdout
    assert "1 accepted, 1 rejected" in trial and "line 2: id: A value is required." in trial
    assert data(house, "jobs") == before
    assert "1 accepted, 1 rejected" in flask(house, "upload", "jobs", str(file)).stdout
    entry = house.get("/history?obj_type=job&sort=-id&limit=1").json()["items"][0]
    assert entry["actor"].endswith("(flask)") and entry["new_obj"]["rows"] == 1
    assert "1 removed" in flask(house, "restore", "jobs", "--dry-run").stdout
    assert len(data(house, "jobs")) == len(before) + 1
    assert "1 removed" in flask(house, "restore", "jobs", "--backup", name).stdout
    assert data(house, "jobs") == before
    live = tmp_path / "jobs.avro"
    live.write_bytes(house.get("/backup/jobs").content)
    assert "0 added" in flask(house, "restore", "jobs", "--file", str(live)).stdout
    for words in (["restore", "jobs", "--backup", "../x"], ["restore", "jobs", "--file", str(file)]):
        refused = flask(house, *words)
        assert (refused.returncode, refused.stdout, "Traceback" in refused.stderr) == (1, "", False)


@pytest.mark.parametrize("how", first(1, ["cat {} | {} -", "{1} <(cat {0})", "{1} - < {0}", "{1} /dev/stdin < {0}"]))
def test_the_commands_read_what_is_no_file_on_disk(house, tmp_path, how):
    rows, live = tmp_path / "jobs.csv", tmp_path / "jobs.avro"
    rows.write_bytes(b"900,Baker\n,nobody\n")
    live.write_bytes(house.get("/backup/jobs").content)
    packed = tmp_path / "jobs.csv.gz"
    packed.write_bytes(gzip.compress(b"901,Cook\n"))
    environment = os.environ | {"DATABASE_URL": house.database, "BACKUP_DIR": str(house.directory)}
    for words, file, told in (
        ("upload jobs", rows, "2 rows: 1 accepted, 1 rejected"),
        ("upload jobs", packed, "1 rows: 1 accepted"),
        ("restore jobs --file", live, "2 removed"),
    ):
        line = how.format(file, f"{sys.executable} -m flask --app app {words}")
        ended = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (ended.returncode, told in ended.stdout) == (0, True), ended.stderr


@pytest.mark.parametrize(
    "words, told",
    [
        (["restore", "all", "--file", "-"], "A file holds one table; all is restored from a backup."),
        (["restore", "jobs", "--file", "-"], "It is no Avro file of a table."),
        (["restore", "jobs", "--file", "-", "--backup", "x"], "Either --backup or --file"),
        (["upload", "jobs", "-"], "0 rows"),
    ],
)
def test_an_empty_standard_input_and_what_makes_no_sense_is_told_in_a_sentence(house, words, told):
    ended = flask(house, *words)
    assert told in ended.stderr + ended.stdout and "Traceback" not in ended.stderr


def test_a_backup_directory_that_is_none_is_named(house, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        for words in (["backup", "jobs"], ["restore", "jobs"]):
            ended = flask(house, *words, BACKUP_DIR=str(place))
            assert (ended.returncode, ended.stderr) == (1, f"BACKUP_DIR {place} is not a directory.\n")
    ended = flask(house, "restore", "jobs", BACKUP_DIR=str(tmp_path / "none"))
    assert ended.stderr.splitlines()[-1] == "There is no backup of jobs."


@pytest.mark.thorough
@pytest.mark.parametrize("moment", [0.2, 0.05, 0.6])
def test_killed_at_any_moment_it_is_all_or_nothing_and_the_next_try_succeeds(house, tmp_path, moment):
    before = data(house, "jobs")
    file = tmp_path / "jobs.csv"
    file.write_bytes(b"".join(b"%d,Job %d\n" % (i, i) for i in range(1000, 31000)))
    environment = os.environ | {"DATABASE_URL": house.database, "BACKUP_DIR": str(house.directory)}
    wide = "select count(*) from jobs"
    for words in (["upload", "jobs", str(file)], ["backup", "jobs"], ["restore", "jobs"]):
        if words[0] == "restore":
            run(house, "delete from jobs where id >= 1000")
        few = run(house, wide)
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "app", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda process=process: process.poll() is not None or working(house))
        time.sleep(moment)  # any moment
        process.kill()
        process.wait()
        wait_for(lambda: not working(house))
        assert run(house, wide) in (few, [(len(before) + 30000,)])
        assert flask(house, *words).returncode == 0
        assert run(house, wide) == [(len(before) + 30000,)]
        assert not [*house.directory.glob("*.part")]


def working(house) -> bool:
    """Whether a command is at work in the database."""
    with psycopg.connect(house.database) as connection:
        others = "datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
        at_work = f"select from pg_stat_activity where {others} and xact_start is not null"
        return bool(connection.execute(at_work).fetchall())
