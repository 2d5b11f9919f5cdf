"""Versions never begin again: whatever took an object away, and whatever made another under its id."""

import json
from itertools import count, product
from threading import Thread
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from app import create_app
from db import schema
from tests.conftest import wait_for

NOUNS = sorted(
    rule.endpoint.partition(".revert_")[2] for rule in create_app().url_map.iter_rules() if ".revert_" in rule.endpoint
)
"""Every noun that has versions."""

FEW = ("departments", "events", "users")
"""A part of them for every run: an id that comes from the data, a UUID, and an id that the database gives."""

HIRING = {"departments": "department", "jobs": "job", "employees": "employee"}

numbers = count(1_000_000)


# By psql --------------------------------------------------------------------------------------------------------------

MADE = """
    insert into users (email, name, address, image) values ('a{n}@b.org', 'Ann', '-', 'http://b.org');
    insert into projects (name, slug) values ('p', 'p{n}');
    insert into milestones (project_id, name) select max(id), 'm' from projects;
    insert into userstories (project_id, subject) select max(id), 's' from projects;
    insert into tasks (project_id, userstory_id, subject) select project_id, max(id), 't' from userstories group by 1;
    insert into comments (project_id, userstory_id, text) select project_id, max(id), 'c' from userstories group by 1;
    insert into audios (session_id, ticks, selected_tick, step_count) values ({n}, array_fill(-50, array[15]), 1, 1);
    insert into departments (id, department) values ({n}, 'd'), ({n} + 1, 'for employees');
    insert into jobs (id, job) values ({n}, 'j'), ({n} + 1, 'for employees');
    insert into employees (id, name, datetime, department_id, job_id) values ({n}, 'e', now(), {n} + 1, {n} + 1);
    insert into events (user_id, description, status) values ('ann', 'told', 'Processed');
"""


@pytest.fixture(scope="module")
def psql(module_database):
    with psycopg.connect(module_database, autocommit=True) as connection:
        yield connection


class Row:
    """A row of a noun that was saved twice since it was made: `object` is as it was first, as jsonb."""

    def __init__(self, psql, noun):
        self.psql, self.noun = psql, noun
        psql.execute(MADE.format(n=next(numbers) * 2))
        self.id, self.object = psql.execute(
            f"select id::text, to_jsonb(r) from {noun} as r where created_at = (select max(created_at) from {noun})"
            " order by id limit 1"
        ).fetchone()
        self.save()
        self.save()

    def run(self, statement, *values):
        return self.psql.execute(statement.format(noun=self.noun), values)

    def save(self):
        self.run("update {noun} set created_at = created_at - interval '1 day' where id::text = %s", self.id)

    @property
    def version(self):
        return self.run("select version from {noun} where id::text = %s", self.id).fetchone()[0]

    @property
    def key(self):
        """Its id as history has it."""
        return f'"{self.id}"' if self.noun == "events" else self.id

    def as_of(self, version):
        """The row as it was in a version, or at a time: when it was made, which tells one from the other."""
        found = self.run(
            "select past ->> 'version', past ->> 'created_at' from history.as_of('{noun}', %s, %s,"
            " (select to_jsonb(r) from {noun} as r where id::text = %s)) as past",
            self.key,
            str(version),
            self.id,
        ).fetchone()
        return found and (int(found[0]), found[1])


def deleted(row):
    row.run("delete from {noun} where id::text = %s", row.id)


def deleted_and_pruned(row):
    deleted(row)
    for (month,) in row.run(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'history.entries'::regclass"
    ):
        row.run(f"truncate {month}")


def truncated(row):
    row.run("truncate {noun} cascade")


def renumbered(row):
    another = "gen_random_uuid()" if row.noun == "events" else str(next(numbers) + 10**9)
    row.run(f"update {{noun}} set id = {another} where id::text = %s", row.id)


def inserted(row):
    row.run(f"insert into {{noun}} overriding system value {READ}", json.dumps(row.object))


def inserted_or_else(row):
    row.run(f"insert into {{noun}} overriding system value {READ} on conflict do nothing", json.dumps(row.object))


def copied(row):
    cursor = row.psql.cursor()
    with cursor.copy(f"copy ({READ.format(noun=row.noun)}) to stdout", [json.dumps(row.object)]) as out:
        lines = b"".join(out)
    with cursor.copy(f"copy {row.noun} from stdin") as into:
        into.write(lines)


def given_its_number(row):
    other = str(UUID(int=next(numbers))) if row.noun == "events" else next(numbers)
    row.run(f"insert into {{noun}} overriding system value {READ}", json.dumps(row.object | {"id": other}))
    kind = "uuid" if row.noun == "events" else "bigint"
    row.run(f"update {{noun}} set id = %s::text::{kind} where id::text = %s", row.id, str(other))


READ = "select * from jsonb_populate_record(null::{noun}, %s)"

GONE = (deleted, deleted_and_pruned, truncated, renumbered)
BACK = (inserted, inserted_or_else, copied, given_its_number)


@pytest.mark.parametrize(
    "noun", [noun if noun in FEW else pytest.param(noun, marks=pytest.mark.thorough) for noun in NOUNS]
)
def test_whatever_is_made_anew_counts_on(psql, noun):
    """Every way to go by every way to come, twice each."""
    always = psql.execute(
        "select attidentity from pg_attribute where attrelid = %s::regclass and attname = 'id'", [noun]
    ).fetchone() == ("a",)
    for go, come in product(GONE, BACK):
        if always and (go is renumbered or come is given_its_number):
            continue  # PostgreSQL refuses to change such a number
        row = Row(psql, noun)
        assert row.version == 3
        first = row.as_of(3)
        for version in (4, 6):
            go(row)
            come(row)
            told = (go.__name__, come.__name__, version)
            assert row.version == version, told
            assert row.as_of(version)[0] == version, told
            row.save()
            assert row.version == version + 1, told
        if go is not deleted_and_pruned:
            assert row.as_of(3) == first, (go.__name__, come.__name__)
            made = row.run(
                "select array_agg(version) from history.entries where obj_id = %s and action in ('create', 'update')"
                " and obj_type = (select obj_type from history.tracked where relation = '{noun}'::regclass)",
                row.key,
            ).fetchone()[0]
            assert len(made) == len({*made}), "a version is one object's"


def test_every_noun_is_walked(psql):
    tracked = psql.execute("select relation::text from history.tracked").fetchall()
    assert sorted(name for (name,) in tracked) == NOUNS


def test_a_key_that_was_never_used_begins_at_1(psql):
    truncated(Row(psql, "jobs"))
    psql.execute("insert into jobs (id, job) values (7, 'never there')")
    assert psql.execute("select version from jobs where id = 7").fetchone() == (1,)


def test_an_older_database_learns_what_its_history_knows(psql, module_database):
    rows = [Row(psql, noun) for noun in ("departments", "tasks")]
    deleted(rows[0])
    truncated(rows[1])
    psql.execute("drop table history.deleted; delete from schema_migrations where name = '0005_last_versions'")
    schema.migrate(module_database)
    for row in rows:
        inserted(row)
        assert row.version == 4


def test_who_waits_for_a_delete_to_commit_is_told_to_try_again(psql, module_database):
    """The version was counted before it could be known: better none than one that was there."""
    row, found = Row(psql, "departments"), []

    def insert():
        with psycopg.connect(module_database, autocommit=True, application_name="waits") as other:
            try:
                other.execute("insert into departments (id, department) values (%s, 'anew')", [row.id])
            except errors.SerializationFailure as error:
                found.append(error)

    with psycopg.connect(module_database) as deleting:
        deleting.execute("delete from departments where id = %s", [row.id])
        thread = Thread(target=insert)
        thread.start()
        waiting = "select count(*) from pg_stat_activity where application_name = 'waits' and wait_event_type = 'Lock'"
        wait_for(lambda: psql.execute(waiting).fetchone() == (1,))
    thread.join(20)
    assert len(found) == 1
    inserted(row)
    assert row.version == 4


# By the API -----------------------------------------------------------------------------------------------------------


def posted(service, table, object):
    return service.post(f"/{table}", json=object)


def batched(service, table, object):
    return service.post("/batch", json={table: [object]})


def uploaded(service, table, object):
    row = ",".join(str(value) for value in object.values())
    return service.post(f"/upload/{table}?header=no", data=row, headers={"Content-Type": "text/csv"})


def uploaded_whole(service, table, object):
    row = ",".join(str(value) for value in object.values())
    return service.post(f"/upload/{table}?header=no&mode=atomic", data=row, headers={"Content-Type": "text/csv"})


@pytest.mark.parametrize("table", HIRING)
@pytest.mark.parametrize("come", [posted, batched, uploaded, uploaded_whole])
def test_what_was_read_of_one_object_changes_no_other(service, come, table):
    id = next(numbers)
    for parent in ("departments", "jobs"):
        service.post(f"/{parent}", json={"id": id + 10**8, HIRING[parent]: "Parent"})
    parents = {"department_id": id + 10**8, "job_id": id + 10**8}
    made = {
        "departments": {"id": id, "department": "Old"},
        "jobs": {"id": id, "job": "Old"},
        "employees": {"id": id, "name": "Old", "datetime": "2021-11-07T02:48:42Z", **parents},
    }[table]
    name = [*made][1]
    path, anew = f"/{table}/{id}", made | {name: f"New {id}"}
    assert come(service, table, made).ok
    old = service.get(path)
    assert service.delete(path, headers={"If-Match": old.headers["ETag"]}).status_code == 204
    assert come(service, table, anew).ok
    new = service.get(path, headers={"If-None-Match": old.headers["ETag"]})
    assert (new.status_code, new.json()[name], new.json()["version"]) == (200, anew[name], 2)
    change = {name: "Lost"}
    assert service.patch(path, json=change, headers={"If-Match": old.headers["ETag"]}).status_code == 412
    assert service.patch(path, json=change | {"version": 1}).status_code == 409
    assert service.put(path, json={**made, "version": 1, "id": id}).status_code in (409, 422)
    assert service.delete(path, params={"version": 1}).status_code == 409
    assert service.delete(path, headers={"If-Match": old.headers["ETag"]}).status_code == 412
    assert service.get(path, params={"as_of": 1}).json() == old.json()
    assert service.get(path, params={"as_of": 2}).json() == new.json()
    assert service.get(path, params={"as_of": new.json()["created_at"]}).json() == new.json()
    assert service.get(path, params={"as_of": old.json()["created_at"]}).json() == old.json()
    assert service.get(path).json() == new.json()
