"""Seals: what is done to history afterwards is named, also where a superuser did it; what was written by it is not."""

import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from handlers.messages import notifier
from tests.conftest import first, wait_for
from tests.flask_command import flask

PEOPLE = "insert into users (email, name) select 'p' || i || '@example.com', 'P' from generate_series(1, 5) as i"


@pytest.fixture
def sealed(database):
    """A superuser's connection to a database with two seals, of five entries each."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PEOPLE)
        seal(connection)
        connection.execute("update users set name = 'Q'")
        seal(connection)
        assert verify(connection) == []
        yield connection


def seal(connection) -> str:
    return connection.execute("select encode(history.seal(), 'hex')").fetchone()[0]


def verify(connection, *roots):
    """What is found, each as what, in or behind which seal, and which entry."""
    found = connection.execute("select finding, seal, entry from history.verify(%s)", [[*roots]]).fetchall()
    return [tuple(row) for row in found]


def ids(connection) -> list[int]:
    return [id for (id,) in connection.execute("select id from history.entries order by id")]


# What was written by history itself -----------------------------------------------------------------------------------


def test_what_is_committed_late_is_sealed_when_it_can_be_seen(database):
    with ExitStack() as stack:
        late, early, owner = (stack.enter_context(psycopg.connect(database)) for _ in range(3))
        late.execute("insert into users (email, name) values ('late@example.com', 'L')")
        # This one has begun and not written yet: it will date its entry by when it began, before the seals.
        early.execute("select now()")
        owner.autocommit = True
        for n in range(3):
            owner.execute("insert into users (email, name) values (%s, 'O')", [f"o{n}@example.com"])
            seal(owner)
        early.execute("insert into users (email, name) values ('early@example.com', 'E')")
        early.commit()
        seal(owner)
        late.commit()
        assert verify(owner) == []
        seal(owner)
        found = owner.execute("select entries from history.seals order by id").fetchall()
        assert found == [(1,), (1,), (1,), (1,), (1,)]
        assert owner.execute("select ids from history.sealed where seal = 5").fetchone() == ([ids(owner)[0]],)
        assert verify(owner) == []


def test_whatever_writers_do_meanwhile_each_entry_is_in_one_seal(database):
    def write(number):
        numbers = random.Random(number)
        with psycopg.connect(database) as connection:
            for n in range(25):
                for _ in range(numbers.randint(1, 3)):
                    connection.execute("savepoint s")
                    name = f"{number}-{n}-{numbers.random()}"
                    connection.execute("insert into projects (name) values (%s)", [name])
                    connection.execute("update projects set description = 'd' where name = %s", [name])
                    connection.execute(numbers.choice(["release savepoint s", "rollback to s"]))
                connection.rollback() if numbers.random() < 0.3 else connection.commit()

    with psycopg.connect(database, autocommit=True) as owner, ThreadPoolExecutor(4) as writers:
        work = [writers.submit(write, number) for number in range(4)]
        while not all(each.done() for each in work):
            seal(owner)
            assert verify(owner) == []
        for each in work:
            each.result()
        seal(owner)
        assert verify(owner) == []
        covered = owner.execute("select id from history.sealed cross join unnest(ids) as i (id) order by id").fetchall()
        assert [id for (id,) in covered] == ids(owner) != []
        assert owner.execute("select count(*) > 3, min(id), count(*) = max(id) from history.seals").fetchone() == (
            True,
            1,
            True,
        )


def test_who_seals_what_it_wrote_itself_does_it_once(database):
    with psycopg.connect(database) as connection:
        connection.execute(PEOPLE)
        seal(connection)
        connection.commit()
        seal(connection)
        assert connection.execute("select entries from history.seals order by id").fetchall() == [(5,), (0,)]
        assert verify(connection) == []


def test_nobody_who_writes_waits_for_a_seal(sealed):
    with psycopg.connect(sealed.info.dsn) as sealing:
        seal(sealing)
        sealed.execute("set lock_timeout = '100ms'")
        sealed.execute("insert into users (email, name) values ('new@example.com', 'N')")
        sealed.execute("update users set name = 'R'; delete from users where email = 'new@example.com'")
        sealed.execute("truncate audios")
    seal(sealed)
    assert verify(sealed) == []


def test_a_seal_of_many_has_parts(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PEOPLE.replace("5", "20001"))
        seal(connection)
        found = connection.execute("select part, cardinality(ids) from history.sealed order by part").fetchall()
        assert found == [(1, 10000), (2, 10000), (3, 1)]
        assert verify(connection) == []


def test_settings_of_a_session_are_no_change(sealed):
    sealed.execute("set timezone = 'Asia/Kathmandu'; set datestyle = 'German'; set intervalstyle = 'iso_8601'")
    sealed.execute("set bytea_output = 'escape'; set extra_float_digits = -5; set standard_conforming_strings = on")
    assert verify(sealed) == []


def test_of_two_that_come_at_once_one_seals_the_hour(database):
    def due(_):
        with psycopg.connect(database, autocommit=True, options="-c role=rowhouse_service") as connection:
            return connection.execute("select history.seal(only_if_due => true)").fetchone()[0]

    with ThreadPoolExecutor(6) as services:
        made = [*services.map(due, range(6))]
    # A new hour may begin meanwhile.
    assert 1 <= len([each for each in made if each]) <= 2


def test_another_cluster_goes_on_where_a_dump_ended(sealed):
    move(sealed)
    sealed.execute("update users set name = 'R' where email = 'p1@example.com'")
    assert verify(sealed) == []
    seal(sealed)
    sealed.execute("update users set name = 'S' where email = 'p1@example.com'")
    seal(sealed)
    assert sealed.execute("select entries from history.seals order by id").fetchall() == [(5,), (5,), (1,), (1,)]
    assert verify(sealed) == []


def move(connection):
    """Make the seals those of another cluster, far ahead of this one."""
    rechain(connection, "cluster = cluster + 1, snapshot = '90000000:90000000:'")


def rechain(connection, change: str = "entries = entries") -> None:
    """Change seals and make their digests and roots anew, as somebody does who knows how."""
    connection.execute(f"update history.seals set {change}")
    connection.execute("""
        update history.seals as s
        set digest = (
            select sha256(coalesce(string_agg(history.part_digest(part, month, ids, digests), '' order by part), ''))
            from history.sealed
            where seal = s.id
        )
    """)
    connection.execute("""
        do $$
        declare
            s        record;
            previous bytea;
        begin
            for s in select * from history.seals order by id loop
                previous := history.root(
                    previous, s.id, s.sealed_at, s.cluster, s.snapshot, s.xid, s.open_since, s.entries, s.digest
                );
                update history.seals set root = previous where id = s.id;
            end loop;
        end
        $$
    """)


# What was done afterwards ---------------------------------------------------------------------------------------------

BYTES = {
    "operation_date": "operation_date + interval '1 microsecond'",
    "xid": "((xid::text::bigint + 1)::text)::xid8",
    "obj_type": "'audio'",
    "obj_id": "obj_id || '0'",
    "action": "'delete'",
    "project": "13",
    "actor": "actor || ' '",
    "request_id": "''",
    "version": "version + 1",
    "old_obj": "'{}'",
    "new_obj": """jsonb_set(new_obj, '{name}', '"q"')""",
}


def test_every_column_is_sealed(sealed):
    assert {*BYTES} | {"id"} == {column.name for column in sealed.execute("table history.entries limit 0").description}


@pytest.mark.parametrize("column", first(2, BYTES))
@pytest.mark.parametrize("place", first(1, [7, 0, 4, 9]))
def test_a_byte_that_was_changed_is_named(sealed, column, place):
    id = ids(sealed)[place]
    sealed.execute(f"update history.entries set {column} = {BYTES[column]} where id = %s", [id])
    assert verify(sealed) == [("changed", 1 + (place > 4), id)]
    seal(sealed)
    assert verify(sealed) == [("changed", 1 + (place > 4), id)]


@pytest.mark.parametrize("place", [0, 4, 7, 9])
def test_an_entry_that_was_removed_is_named(sealed, place):
    id = ids(sealed)[place]
    sealed.execute("delete from history.entries where id = %s", [id])
    assert verify(sealed) == [("removed", 1 + (place > 4), id)]
    seal(sealed)
    assert verify(sealed) == [("removed", 1 + (place > 4), id)]


@pytest.mark.parametrize("columns", ["id", "operation_date", "actor, request_id, old_obj, new_obj"])
def test_two_that_were_exchanged_are_named(sealed, columns):
    a, b = ids(sealed)[6], ids(sealed)[8]
    sealed.execute(
        f"update history.entries as e set ({columns}) ="
        f" (select {columns} from history.entries where id = %s + %s - e.id) where e.id in (%s, %s)",
        [a, b, a, b],
    )
    assert verify(sealed) == [("changed", 2, a), ("changed", 2, b)]


FORGED = {
    "its date is of a sealed hour": "date - interval '1 hour', nextval('history.entries_id_seq'), pg_current_xact_id()",
    "its id is of a sealed hour": "now(), 0, pg_current_xact_id()",
    "its id is another's": "now(), id, pg_current_xact_id()",
    "its transaction is of a sealed hour": "now(), nextval('history.entries_id_seq'), xid",
    "all of it is of a sealed hour": "date, 0, xid",
}


@pytest.mark.parametrize("how", first(1, FORGED))
def test_one_that_was_forged_is_named(sealed, how):
    before = ids(sealed)
    sealed.execute(
        "insert into history.entries (operation_date, id, xid, obj_type, obj_id, action, actor, version)"
        f" select {FORGED[how]}, 'user', '1', 'update', 'Ann', 9"
        " from (select operation_date, id, xid from history.entries order by id limit 1) as e (date, id, xid)"
    )
    forged = min({*ids(sealed)} - {*before}, default=before[0])
    assert verify(sealed) == [("slipped in", 2, forged)]
    for _ in range(2):
        seal(sealed)
        assert [(finding, entry) for finding, _, entry in verify(sealed)] == [("slipped in", forged)]


def test_all_that_was_done_is_told_the_first_first(sealed):
    every = ids(sealed)
    sealed.execute("delete from history.entries where id = %s", [every[8]])
    sealed.execute("update history.entries set actor = 'Ann' where id = any (%s)", [[every[1], every[9]]])
    assert verify(sealed, "00") == [
        ("no such root", None, None),
        ("changed", 1, every[1]),
        ("removed", 2, every[8]),
        ("changed", 2, every[9]),
    ]


# Seals themselves -----------------------------------------------------------------------------------------------------

REWRITTEN = {
    "update history.seals set sealed_at = now() where id = 1": [1],
    "update history.seals set cluster = cluster + 1 where id = 1": [1],
    "update history.seals set snapshot = '5:5:' where id = 2": [2],
    "update history.seals set xid = null where id = 2": [2],
    "update history.seals set open_since = null where id = 1": [1],
    "update history.seals set entries = 4 where id = 1": [1],
    "update history.seals set digest = '' where id = 2": [2],
    "update history.seals set root = '' where id = 1": [1, 2],
    "update history.sealed set month = '2001-01-01' where seal = 2": [2],
    "update history.sealed set part = 2 where seal = 2": [2],
    "delete from history.sealed where seal = 1; delete from history.seals where id = 1": [2],
}


@pytest.mark.parametrize("statement", first(1, REWRITTEN))
def test_a_seal_that_was_rewritten_is_named(sealed, statement):
    sealed.execute(statement)
    assert [found for found in verify(sealed) if found[0] == "seal rewritten"] == [
        ("seal rewritten", seal, None) for seal in REWRITTEN[statement]
    ]


def test_seals_that_were_made_anew_have_not_the_root_that_was_kept(sealed):
    kept = [root for (root,) in sealed.execute("select encode(root, 'hex') from history.seals order by id")]
    seal(sealed)
    assert verify(sealed, *kept, kept[0].upper()) == []
    id = ids(sealed)[7]
    sealed.execute("update history.entries set actor = 'Ann' where id = %s", [id])
    sealed.execute("""
        update history.sealed as s
        set digests = array(
            select history.entry_digest(e) from history.entries as e where e.id = any (s.ids) order by e.id
        )
    """)
    rechain(sealed)
    assert verify(sealed) == verify(sealed, kept[0]) == [], "nobody kept a root from after it"
    assert verify(sealed, *kept) == [("no such root", None, None)]


def test_the_last_seal_is_missed_by_its_root_alone(sealed):
    kept = seal(sealed)
    sealed.execute("delete from history.sealed where seal = 3; delete from history.seals where id = 3")
    assert verify(sealed) == []
    assert verify(sealed, kept) == [("no such root", None, None)]


# Months ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def months(database):
    """A connection to a database whose history of three months of 2024, and of a day of 2020, was sealed at once."""
    with psycopg.connect(database, autocommit=True) as connection:
        for month in (1, 2, 3):
            connection.execute(
                f"create table history.entries_2024_0{month} partition of history.entries"
                f" for values from ('2024-0{month}-01Z') to ('2024-0{month + 1}-01Z')"
            )
        connection.execute("""
            insert into history.entries (operation_date, obj_type, obj_id, action, actor, version)
            select date::timestamptz, 'user', '1', 'update', 'ann', 1
            from unnest('{2020-05-05Z,2024-01-01Z,2024-01-31 23:59:59Z,2024-02-10Z,2024-03-03Z}'::text[]) as d (date)
        """)
        seal(connection)
        assert verify(connection) == []
        yield connection


def counted(connection):
    found = connection.execute("select finding, operation_date, entries from history.verify()").fetchall()
    return [(finding, f"{date:%Y-%m}", entries) for finding, date, entries in found]


def test_months_that_were_dropped_are_told_as_that(months):
    months.execute("set timezone = 'UTC'")
    months.execute("select history.prune('2024-03-01Z')")
    assert counted(months) == [("pruned", "2020-05", 1), ("pruned", "2024-01", 2), ("pruned", "2024-02", 1)]
    seal(months)
    id = ids(months)[0]
    months.execute("update history.entries set actor = 'bob'")
    assert verify(months)[0] == ("changed", 1, id)
    months.execute("delete from history.entries")
    assert verify(months)[0] == ("removed", 1, id)
    months.execute("select history.prune('2025-01-01Z')")
    assert counted(months)[-1] == ("pruned", "2024-03", 1)


def test_a_month_in_the_midst_is_not_dropped_but_removed(months):
    every = ids(months)
    months.execute("drop table history.entries_2024_02")
    assert verify(months) == [("removed", 1, every[3])]
    months.execute("delete from history.entries where operation_date < '2024-01-02'")
    months.execute("select history.prune('2024-01-01Z')")
    assert verify(months)[0] == ("removed", 1, every[1])


# Who may --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "update history.seals set root = ''",
        "delete from history.seals",
        "truncate history.seals cascade",
        "insert into history.sealed (seal, part, month, ids, digests) values (1, 9, now(), '{}', '{}')",
        "update history.sealed set ids = '{}'",
        "delete from history.sealed",
        "alter table history.seals disable trigger all",
        "create or replace function history.seal(only_if_due boolean) returns bytea language sql as 'select null'",
    ],
)
def test_no_role_of_the_house_can_change_a_seal(sealed, statement):
    for role in ("rowhouse_service", "rowhouse_project", "rowhouse_readonly", "rowhouse_backup"):
        sealed.execute(f"set role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sealed.execute(statement)


def test_the_service_seals_and_whoever_looks_proves(sealed):
    sealed.execute("set role rowhouse_service")
    assert seal(sealed)
    for role in ("rowhouse_readonly", "rowhouse_backup"):
        sealed.execute(f"set role {role}")
        assert verify(sealed) == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            seal(sealed)


# By command, by the notifier and in backups ---------------------------------------------------------------------------


def test_the_commands_seal_and_prove(database, tmp_path):
    none = flask(database, "history", "verify")
    assert (none.returncode, none.stderr) == (1, "There is no seal yet: flask history seal\n")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(PEOPLE)
        made = flask(database, "history", "seal")
        assert made.returncode == 0, made.stderr
        root = re.fullmatch(r"Sealed 5 entries\. The root of seal 1 is ([0-9a-f]{64})\n", made.stdout)[1]
        bare, kept = flask(database, "history", "verify"), flask(database, "history", "verify", "--root", root)
        assert (bare.returncode, kept.returncode) == (0, 0)
        assert "5 entries are as they were sealed, in 1 seals" in bare.stdout and "Nothing proves" in bare.stdout
        assert "proven by the root that was kept" in kept.stdout and "Nothing proves" not in kept.stdout
        backed = flask(database, "backup", "jobs", BACKUP_DIR=str(tmp_path))
        manifest = json.loads((tmp_path / f"{backed.stdout.split(':')[0]}.json").read_text())
        assert manifest["history_root"] == root
        id = ids(connection)[1]
        connection.execute("update history.entries set actor = 'nobody' where id = %s", [id])
        found = flask(database, "history", "verify", "--root", root, "--root", root[::-1])
        assert (found.returncode, found.stdout) == (1, "")
        first, second = found.stderr.splitlines()
        assert first.startswith(f"no such root: no seal has {root[::-1]}")
        assert re.fullmatch(rf"changed: entry {id}, user \d+, dated \S+Z, since seal 1 of \S+Z", second)
        connection.execute("delete from history.entries")
        found = flask(database, "history", "verify")
        assert found.stderr.splitlines()[0].startswith(f"removed: entry {id - 1}, since seal 1 of ")


def test_many_findings_are_counted(sealed):
    sealed.execute(PEOPLE.replace("'p'", "'more'").replace("5", "20"))
    seal(sealed)
    sealed.execute("update history.entries set actor = 'nobody'")
    found = flask(sealed.info.dsn, "history", "verify").stderr.splitlines()
    assert len(found) == 11 and found[-1] == "… and 20 more"


def test_pruned_months_are_told_and_are_no_fault(months):
    months.execute("select history.prune('2024-02-01Z')")
    found = flask(months.info.dsn, "history", "verify")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[:2] == ["pruned: 1 entries of 2020-05", "pruned: 2 entries of 2024-01"]


@pytest.mark.parametrize("root", ["", "x", "00", "g" * 64, "0" * 65])
def test_what_is_no_root_is_refused(root):
    done = flask("postgresql://127.0.0.1:1/nothing", "history", "verify", "--root", root)
    assert done.returncode == 2 and "It is 64 hexadecimal digits" in done.stderr


@pytest.mark.parametrize("command", ["seal", "verify"])
def test_a_database_that_is_away_is_said_in_a_line(command):
    done = flask("postgresql://127.0.0.1:1/nothing", "history", command)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("The database is not reachable: ") and len(done.stderr.splitlines()) == 1


def test_the_notifier_seals_each_hour(database, monkeypatch):
    monkeypatch.setattr(notifier, "SEAL_LOOK", 0.05)
    stop = threading.Event()
    work = [threading.Thread(target=notifier.seal, args=(database, stop)) for _ in range(2)]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(PEOPLE)

        def seals() -> int:
            return owner.execute("select count(*) from history.seals").fetchone()[0]

        for each in work:
            each.start()
        try:
            wait_for(lambda: seals() == 1)
            rechain(owner, "sealed_at = sealed_at - interval '1 hour'")
            wait_for(lambda: seals() == 2)
            owner.execute("revoke execute on function history.seal(boolean) from rowhouse_service")
            rechain(owner, "sealed_at = sealed_at - interval '1 hour'")
            time.sleep(0.3)  # asks again
            assert seals() == 2
            owner.execute("grant execute on function history.seal(boolean) to rowhouse_service")
            wait_for(lambda: seals() == 3)
        finally:
            stop.set()
            for each in work:
                each.join(60)
        assert verify(owner) == []
