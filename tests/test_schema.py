"""Migrations and the SQL pages: one wins, all agree, and nobody edits the past."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import conninfo, sql

import db
from db import migration_status, private_postgres, queries, schema
from tests.conftest import clone, drop, serve, tool
from tests.flask_command import flask


@pytest.fixture
def nothing(server):
    """The address of a database in which there is nothing yet."""
    name = clone(server, "template0")
    yield conninfo.make_conninfo(server, dbname=name)
    drop(server, name)


@pytest.fixture
def later(monkeypatch):
    """A release with one more migration."""
    known = schema.migrations()
    more = "alter table users add column nickname text; insert into schema_migrations (name) values ('9999_later');"
    monkeypatch.setattr(schema, "migrations", lambda: known | {"9999_later": more})


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select name from schema_migrations order by name")]


def test_of_several_that_start_at_once_one_builds_the_database(nothing):
    with ThreadPoolExecutor(6) as services:
        applied = [*services.map(lambda _: schema.migrate(nothing), range(6))]
    assert sorted(applied) == [[]] * 5 + [["book"]]


def test_a_new_database_has_all_migrations_by_the_book(nothing, later):
    schema.migrate(nothing)
    assert names(nothing) == [*schema.migrations(), "book"]


def test_an_older_database_takes_what_it_lacks(database, later):
    assert schema.migrate(database) == ["9999_later"]
    assert schema.migrate(database) == []
    with psycopg.connect(database) as connection:
        connection.execute("select nickname from users")


def test_an_edited_comment_keeps_nobody_waiting(nothing, monkeypatch):
    schema.migrate(nothing)
    text = schema.book().replace("comment on table users is '", "comment on table users is 'Now: ")
    monkeypatch.setattr(schema, "book", lambda: text)
    with psycopg.connect(nothing) as writer, schema.connect(nothing) as connection:
        for (table,) in writer.execute("select relation::text from history.tracked").fetchall():
            writer.execute(f"lock table {table} in row exclusive mode")
        with connection.transaction():
            connection.execute("set local lock_timeout = '2s'")
            assert schema.bring_up_to_date(connection) == ["book"]
            assert held(connection) <= {
                "AccessShareLock",
                "RowShareLock",
                "RowExclusiveLock",
                "ShareUpdateExclusiveLock",
            }
            writer.execute("insert into users (email) values ('ann@example.com')")
        assert writer.execute("select obj_description('users'::regclass)").fetchone()[0].startswith("Now: ")


def test_a_book_that_answers_other_members_is_taken(nothing, monkeypatch):
    """As is one that leaves a member out again: the type of an answer is kept by the database, and comes into line."""
    schema.migrate(nothing)
    with psycopg.connect(nothing) as connection:
        connection.execute("insert into projects (name) values ('Ann')")
    told = "select milestones_json(r)::text from milestones as r"
    text = schema.book()
    more = text.replace("    starts_on  date,\n", "    starts_on  date,\n    half numeric(5, 1),\n").replace(
        "        r.starts_on,\n", "        r.starts_on,\n        0.5,\n"
    )
    assert more.count("0.5,") == 1
    add = "alter table if exists milestones add column if not exists half numeric(5, 1);"
    for number, (book, member) in enumerate([(more, True), (text, False), (more, True)]):
        name = f"9999_{number}"
        known = schema.migrations() | {name: f"{add} insert into schema_migrations (name) values ('{name}');"}
        monkeypatch.setattr(schema, "migrations", lambda known=known: known)
        monkeypatch.setattr(schema, "book", lambda book=book: book)
        assert schema.migrate(nothing) == [name, "book"]
        with psycopg.connect(nothing) as connection:
            connection.execute("insert into milestones (project_id, name, starts_on) values (1, 'Ann', '2021-11-07')")
            shown = connection.execute(told).fetchone()[0]
            assert ('"starts_on":"2021-11-07","half":0.5,"ends_on"' in shown) == member, shown


def held(connection) -> set[str]:
    """The modes of the locks that a transaction has on tables, sequences and types."""
    return {
        mode
        for (mode,) in connection.execute("""
            select l.mode
            from pg_locks as l
            join pg_class as c on c.oid = l.relation
            where l.pid = pg_backend_pid()
                and c.relkind in ('r', 'p', 'S', 'c')
                and c.relnamespace = any ('{public,history}'::regnamespace[])
        """)
    }


@pytest.mark.parametrize(
    "broken",
    [
        "drop trigger users_10_count_version on users",
        "drop trigger history_90_change on users",
        "alter table users disable trigger history_90_truncate",
        "alter table users disable trigger users_10_count_version",
        "drop index users_name_id_idx",
        "create or replace trigger users_10_count_version after update on users execute function count_version()",
        "drop policy one_project on projects",
    ],
)
def test_the_book_mends_what_was_taken_from_it(nothing, monkeypatch, broken):
    schema.migrate(nothing)
    whole = made(nothing)
    with psycopg.connect(nothing) as connection:
        connection.execute(broken)
    assert made(nothing) != whole
    text = schema.book()
    monkeypatch.setattr(schema, "book", lambda: f"{text}\n")
    assert schema.migrate(nothing) == ["book"]
    assert made(nothing) == whole


def made(url: str) -> list[tuple]:
    """Triggers, indexes and policies."""
    with psycopg.connect(url) as connection:
        return connection.execute("""
            select tgrelid::regclass::text, pg_get_triggerdef(oid), tgenabled::text
            from pg_trigger
            where not tgisinternal
            union all
            select tablename, indexdef, '' from pg_indexes where schemaname in ('public', 'history')
            union all
            select tablename, policyname, qual from pg_policies
            order by 1, 2
        """).fetchall()


def test_a_migration_that_fails_leaves_nothing(database, monkeypatch):
    known = schema.migrations()
    monkeypatch.setattr(
        schema, "migrations", lambda: known | {"0002_bad": "alter table users add column half text; select 1/0;"}
    )
    with pytest.raises(psycopg.errors.DivisionByZero):
        schema.migrate(database)
    with psycopg.connect(database) as connection, pytest.raises(psycopg.errors.UndefinedColumn):
        connection.execute("select half from users")


def test_an_edited_migration_is_refused(database, monkeypatch):
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: {name: text + "-- edited" for name, text in known.items()})
    with pytest.raises(schema.Refused, match="0001_first_house was changed"):
        schema.migrate(database)


def test_a_migration_run_with_psql_counts(database, later):
    with psycopg.connect(database) as connection:
        connection.execute(schema.migrations()["9999_later"])
    assert schema.migrate(database) == []
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from schema_migrations where checksum is null").fetchone() == (0,)


def test_a_database_in_another_encoding_is_refused(server):
    name = "rowhouse_test_latin"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name}")
        connection.execute(f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
    try:
        with pytest.raises(schema.Refused, match="encoded in LATIN1"):
            schema.migrate(conninfo.make_conninfo(server, dbname=name))
    finally:
        drop(server, name)


def test_a_page_becomes_statements_with_numbered_parameters():
    get = "-- name: get\n-- One.\nselect :'b'::text, ':c', x::text, :'a' || :'b'\n\n"
    found = queries.parse("things", f"-- Things.\n\n{get}-- name: other\n-- Two.\nselect 1\n")
    assert [*found] == ["things.get", "things.other"]
    assert found["things.get"].parameters == ("b", "a")
    assert found["things.get"].sql == b"/* things.get */\n-- One.\nselect $1::text, ':c', x::text, $2 || $1"


PEOPLE = [
    ("ann@example.com", "https://example.com/a.png"),
    ("bob@xn--bcher-kva.example", "https://bücher.example/%20"),
    ("हिन्दी@bücher.org", "https://xn--bcher-kva.example/"),
]


def counts(url: str) -> dict[str, int]:
    """The rows of each table."""
    tables = (
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace::regnamespace::text = any (%s)"
    )
    with psycopg.connect(url) as connection:
        found = connection.execute(tables, [["public", "history"]]).fetchall()
        return {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for (table,) in found}


def test_what_pg_dump_writes_is_restored_with_every_row(database, nothing):
    """There checks and indexes are asked while no schema is searched, and so they are by analyze and reindex."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.cursor().executemany(
            "insert into users (email, name, address, image) values (%s, 'Ann', 'Über 3', %s)", PEOPLE
        )
        connection.execute("insert into projects (name, owner_id) values ('Dumped', 1)")
        connection.execute("insert into milestones (project_id, name) values (1, 'Dumped')")
        connection.execute("insert into userstories (project_id, subject, tags) values (1, 'Dumped', '{a}')")
        connection.execute("insert into tasks (project_id, userstory_id, subject) values (1, 1, 'Dumped')")
        connection.execute("insert into comments (project_id, userstory_id, text) values (1, 1, 'Dumped')")
        connection.execute("insert into departments (id, department) values (1, 'Dumped')")
        connection.execute("insert into jobs (id, job) values (1, 'Dumped')")
        connection.execute(
            "insert into employees (id, name, datetime, department_id, job_id) values (1, 'A', now(), 1, 1)"
        )
        connection.execute("insert into events (user_id, description) values ('ann', 'Parcel')")
        connection.execute("analyze")
        connection.execute("reindex schema public")
    dump = subprocess.run([tool("pg_dump", database), database], capture_output=True, text=True)
    assert dump.returncode == 0, dump.stderr
    command = [tool("psql", database), "-Xq", "-v", "ON_ERROR_STOP=1", nothing]
    restored = subprocess.run(command, input=dump.stdout, capture_output=True, text=True)
    assert restored.returncode == 0, restored.stderr
    assert counts(nothing) == counts(database)


# What a migration would do --------------------------------------------------------------------------------------------


def dump(url: str) -> str:
    command = [tool("pg_dump", url), "--restrict-key=none", url]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout


def test_what_is_pending_is_told_and_what_was_applied_with_its_time(database, later):
    before, status = migration_status.status(database), schema.migrate(database)
    assert status == ["9999_later"]
    assert [name for name, at in before if not at] == ["9999_later"]
    assert [name for name, _ in before] == [*schema.migrations(), "book"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at) for _, at in migration_status.status(database))


def test_of_a_new_database_the_book_is_pending(nothing):
    assert migration_status.status(nothing) == [("book", "")]
    found = flask(nothing, "migrate", "--status")
    assert (found.returncode, found.stdout) == (1, "book\tpending\n")
    schema.migrate(nothing)
    found = flask(nothing, "migrate", "--status")
    assert (found.returncode, "pending" in found.stdout) == (0, False)


def test_a_rehearsal_prints_the_very_sql_and_its_locks_and_changes_nothing(database, nothing, later):
    before = dump(database)
    told = migration_status.rehearse(database)
    assert dump(database) == before
    assert told[0] == f"-- 9999_later\n{schema.migrations()['9999_later']}\n"
    assert told[1:] == ["-- AccessExclusiveLock on users"]
    schema.migrate(database)
    assert migration_status.rehearse(database) == []
    by_hand = flask(nothing, "migrate", "--dry-run").stdout
    assert dump(nothing).count("create") == 0
    psql = [tool("psql", nothing), "-XqAt1", "-v", "ON_ERROR_STOP=1", nothing]
    subprocess.run(psql, input=by_hand, check=True, timeout=120, capture_output=True, text=True)
    with psycopg.connect(nothing) as connection:
        assert connection.execute("select count(*) from users").fetchone() == (0,)


def test_it_is_either_told_or_rehearsed(database):
    found = flask(database, "migrate", "--status", "--dry-run")
    assert (found.returncode, found.stderr.splitlines()[-1]) == (2, "Error: Either --status or --dry-run.")


LOGIN = "somebody with a \"quote\" and a 'tick'"


@pytest.fixture
def unprivileged(tmp_path_factory):
    """A server without roles of the service, where somebody may do nothing: as they, and as its superuser."""
    with private_postgres.server(tmp_path_factory.mktemp("roles") / "data") as server:
        schema.create_database(server, "theirs")
        admin = conninfo.make_conninfo(server, dbname="theirs")
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(LOGIN)))
            others = "select datname from pg_database where not datistemplate and datname <> all ('{theirs,postgres}')"
            for (name,) in connection.execute(others).fetchall():
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            for role in ("service", "project", "readonly", "backup"):
                connection.execute(f"drop role if exists rowhouse_{role}")
        yield conninfo.make_conninfo(admin, user=LOGIN), admin


def test_what_an_owner_without_rights_lacks_is_printed_and_is_enough(unprivileged):
    theirs, admin = unprivileged
    refused = flask(theirs, "migrate")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"{LOGIN} may not make all that is needed: an administrator runs what `flask roles` prints."
    ]
    told = flask(theirs, "roles").stdout
    assert len(told.splitlines()) == 4 + 4 + 2
    with psycopg.connect(admin, autocommit=True) as connection:
        for statement in told.splitlines():
            connection.execute(statement)
    assert flask(theirs, "roles").stdout == ""
    assert flask(theirs, "migrate").stdout == "Applied book.\n"
    assert flask(theirs, "migrate", "--status").returncode == 0
    with serve(theirs) as service:
        assert service.post("/projects", json={"name": "A", "slug": "a"}).status_code == 201


def test_each_right_that_an_owner_lacks_is_told_by_itself(unprivileged):
    theirs, admin = unprivileged
    told = migration_status.rights(theirs)
    for lacking in told:
        with schema.connect(admin) as connection, connection.transaction(force_rollback=True):
            role = lacking.split()[2].rstrip(";") if lacking.startswith("create role") else None
            for statement in told:
                if statement != lacking and not (role and statement.startswith(f"grant {role} ")):
                    connection.execute(statement)
            connection.execute(sql.SQL("set local role {}").format(sql.Identifier(LOGIN)))
            rights = [*db.run(connection, "access.rights")]
            assert [right.statement for right in rights if right.statement == lacking or not role] == [lacking]
            assert not any(right.may for right in rights)
