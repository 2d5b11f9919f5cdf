"""Tracking: a write that worked before history.track() works with it, whatever a row holds; history shows it truly."""

import sys

import psycopg
import pytest

from tests.conftest import first
from tests.flask_command import flask

TYPED = {
    "bigint": "9223372036854775807",
    "bit(3)": "101",
    "bit varying": "10110",
    "boolean": "t",
    "box": "(1,1),(0,0)",
    "bytea": r"\x00ff",
    '"char"': "c",
    "character(5)": "ab",
    "character varying": "x" * 10_000,
    "cidr": "10.0.0.0/8",
    "circle": "<(0,0),1>",
    "date": ("infinity", "-infinity", "0044-03-15 BC", "24000-01-01"),
    "double precision": ("NaN", "Infinity", "-Infinity", "-0", "1e308", "5e-324"),
    "inet": "::1/64",
    "integer": "-2147483648",
    "interval": "1 year 2 mons -3 days 04:05:06.789",
    "json": (
        '{"x":"\\u0000"}',
        '{"a":1e999999}',
        '{"x":"\\ud800"}',
        '{"x":"\\udc00\\ud800"}',
        '{"a":1,"a":2}',
        ' {"a" : 1}\n',
        "1e-999999",
        "[" * 300 + "]" * 300,
        '"' + "x" * 100_000 + '"',
        "null",
    ),
    "jsonb": '{"a": [1.50, null]}',
    "jsonpath": "$.a[*] ? (@ > 1)",
    "line": "{1,2,3}",
    "lseg": "[(0,0),(1,1)]",
    "macaddr": "08:00:2b:01:02:03",
    "macaddr8": "08:00:2b:01:02:03:04:05",
    "money": "-12.34",
    "name": "a name",
    "numeric": ("NaN", "Infinity", "-Infinity", "1e131071", "1e-16383", "1.500"),
    "oid": "4294967295",
    "path": "[(0,0),(1,1)]",
    "pg_lsn": "16/B374D848",
    "pg_snapshot": "10:20:10,14,15",
    "point": "(NaN,Infinity)",
    "polygon": "((0,0),(1,1),(1,0))",
    "real": ("NaN", "-Infinity", "1e38"),
    "aclitem": "postgres=r/postgres",
    "cid": "4294967295",
    "refcursor": "a",
    "regclass": "pg_class",
    "regcollation": '"C"',
    "regconfig": "simple",
    "regdictionary": "simple",
    "regnamespace": "pg_catalog",
    "regoper": "||/",
    "regoperator": "+(integer,integer)",
    "regproc": "now",
    "regprocedure": "sum(integer)",
    "regrole": "pg_monitor",
    "regtype": "integer",
    "smallint": "-32768",
    "text": ("", '\u2028 \x01 \\ " \U0001f600', "x" * 1_000_000),
    "tid": "(0,1)",
    "time": "24:00:00",
    "timetz": "23:59:60+15:59",
    "timestamp": ("infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999"),
    "timestamptz": ("infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "24000-01-01 00:00:00+00"),
    "tsquery": "a & !b",
    "tsvector": "'a':1A 'b'",
    "txid_snapshot": "10:20:10",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "xid": "4294967295",
    "xid8": "18446744073709551615",
    "xml": "<a>&amp;</a>",
    "int4range": ("empty", "(,)", "[1,2)"),
    "int8range": "[1,2)",
    "numrange": "[1.0,NaN]",
    "daterange": "[-infinity,infinity]",
    "tsrange": "[-infinity,infinity]",
    "tstzrange": "[-infinity,infinity]",
    "int4multirange": "{}",
    "int8multirange": "{[1,2)}",
    "nummultirange": "{[1,2),(3,NaN)}",
    "datemultirange": "{[-infinity,infinity]}",
    "tsmultirange": "{[-infinity,infinity]}",
    "tstzmultirange": "{[-infinity,infinity]}",
    "integer[]": ("{}", "[2:3]={1,NULL}", "{{1,2},{3,4}}"),
    "double precision[]": "{NaN,Infinity,-0}",
    "timestamptz[]": "{infinity,-infinity}",
    "json[]": '{"{\\"x\\":\\"\\\\u0000\\"}"}',
    "int2vector": "1 2",
    "elsewhere.mood": "so so",
    "elsewhere.small": "7",
    "elsewhere.noted": '{"x":"\\u0000"}',
    "elsewhere.pair": ('(1,"{""x"":""\\\\ud800""}")', "(,)"),
    "elsewhere.pair[]": '{"(1,\\"{\\"\\"a\\"\\":1e999999}\\")"}',
    "elsewhere.mood_range": '["so so","so so"]',
}
"""Values of each type that a column can have, as text."""

INTERNAL = (
    "pg_node_tree gtsvector pg_ndistinct pg_dependencies pg_mcv_list pg_brin_bloom_summary pg_brin_minmax_multi_summary"
)
"""Types that no user writes."""

sys.set_int_max_str_digits(200_000)

FEW = ("json", "json[]", "elsewhere.pair", "timestamptz", "double precision", "text", "integer[]")


@pytest.fixture(scope="module")
def foreign(module_database):
    """A database with a schema that is none of ours."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute("""
            create schema elsewhere;
            create type elsewhere.mood as enum ('so so');
            create domain elsewhere.small as integer check (value < 10);
            create domain elsewhere.noted as json check (value is not null);
            create type elsewhere.pair as (a integer, b json);
            create type elsewhere.mood_range as range (subtype = elsewhere.mood);
        """)
        yield connection


def outcome(connection, table, statements):
    """What statements come to: of each its error or how many rows it met, and the rows there are then."""
    found = []
    for statement, *parameters in statements:
        try:
            found.append(connection.execute(statement.replace("TABLE", table), parameters).rowcount)
        except psycopg.Error as error:
            found.append(error.sqlstate)
    rows = connection.execute(f'select r::text from {table} as r order by r::text collate "C"').fetchall()
    return found, rows


def same_with_history(connection, ddl, statements, track="select history.track('TABLE')"):
    """Statements on a table without history and on one with it come to the same; returns the entries, in order."""
    for table in ("elsewhere.plain", "elsewhere.tracked"):
        connection.execute(f"drop table if exists {table} cascade")
        connection.execute(ddl.replace("TABLE", table))
    connection.execute("delete from history.tracked where relation::text like 'elsewhere.%' or obj_type = 'tracked'")
    connection.execute("delete from history.entries where obj_type = 'tracked'")
    connection.execute(track.replace("TABLE", "elsewhere.tracked"))
    assert outcome(connection, "elsewhere.plain", statements) == outcome(connection, "elsewhere.tracked", statements)
    entries = connection.execute(
        "select action, old_obj, new_obj, history.entry_json(e, ''), history.entry_json(e, 'json-patch'),"
        " history.frame(e) from history.entries as e where obj_type = 'tracked' order by id"
    ).fetchall()
    altered = any(statement.startswith("alter") for statement, *_ in statements)
    before = {}
    for action, old, new, *shown in entries:
        assert all(shown)
        if action == "truncate":
            continue
        assert (old is None, new is None) == (action == "create", action == "delete")
        left, made = (old or new).get("id"), (new or old).get("id")
        assert altered or action == "create" or before.get(str(left), old) == old, "each goes on from the one before"
        before[str(made)] = new
    return entries


@pytest.mark.parametrize(
    "kind", [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.thorough) for kind in TYPED]
)
def test_a_value_of_any_type_is_written_and_shown(foreign, kind):
    given = TYPED[kind] if isinstance(TYPED[kind], tuple) else (TYPED[kind],)
    if kind == "xml":
        try:
            foreign.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("PostgreSQL was built without XML")
    statements = [("set client_min_messages = warning",)]
    for id, value in enumerate(given):
        statements += [(f"insert into TABLE values ({id}, %s::text::{kind}, 1)", value)]
    statements += [
        ("insert into TABLE select id + 100, v, 1 from TABLE",),
        ("update TABLE set n = 2",),
        ("update TABLE set v = null where id > 100",),
        ("update TABLE set v = o.v from TABLE as o where o.id = TABLE.id - 100",),
        ("update TABLE set id = id + 1000 where id < 100",),
        ("delete from TABLE where id > 1000",),
    ]
    entries = same_with_history(
        foreign, f"create table TABLE (id integer primary key, v {kind}, n integer)", statements
    )
    assert [action for action, *_ in entries].count("create") == len(given) * 3
    for id, value in enumerate(given):
        (text,) = foreign.execute(f"select (%s::text::{kind})::text", [value]).fetchone()
        try:
            (plain,) = foreign.execute(f"select to_jsonb(%s::text::{kind})", [value]).fetchone()
        except psycopg.DataError:
            plain = text
        shown = [new["v"] for action, _, new, *_ in entries if action == "create" and new["id"] in (id, id + 100)]
        for each in shown:
            assert each in (plain, text) or str(each) == str(plain), (value, each)


def test_every_type_is_tried(foreign):
    found = foreign.execute(
        "select format_type(oid, null) from pg_type where typtype in ('b', 'r', 'm') and typcategory <> 'A'"
        " and typnamespace = 'pg_catalog'::regnamespace and typname <> all (%s)",
        [INTERNAL.split()],
    ).fetchall()
    known = {kind.partition("(")[0] for kind in TYPED} | {"json", "interval"}
    named = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}
    named |= {"time": "time without time zone", "timetz": "time with time zone"}
    assert {name for (name,) in found} - {named.get(kind, kind) for kind in known} == set()


RANDOM = "select string_agg(md5(i::text), '') from generate_series(1, 80) as i"
"""2,560 letters that cannot be packed: nearly as many as fit into an index."""

SHAPES = {
    "no primary key": ("create table TABLE (id integer, v json)", "insert into TABLE values (1, '1'), (1, '2')"),
    "quoted names": (
        'create table TABLE (id integer primary key, "select" json, "a ""b\'c%%" text, "Ä" integer)',
        "insert into TABLE values (1, '{\"x\":\"\\u0000\"}', 'x', 1)",
        'update TABLE set "Ä" = 2',
    ),
    "a long key": (
        "create table TABLE (id text primary key, v text)",
        f"insert into TABLE values (({RANDOM}), 'x')",
        "update TABLE set v = 'y'",
        "update TABLE set id = reverse(id)",
        "delete from TABLE",
    ),
    "a long key of quotes": (
        "create table TABLE (id text primary key, v text)",
        "insert into TABLE values (repeat('\"', 100000), 'x')",
        "delete from TABLE",
    ),
    "two long keys": (
        "create table TABLE (a text, b text, primary key (a, b))",
        f"insert into TABLE select left(x, 1300), right(x, 1300) from ({RANDOM}) as r (x)",
        "update TABLE set b = a",
        "delete from TABLE",
    ),
    "keys of odd values": (
        'create table TABLE (a timestamptz, b numeric, c bytea, d date, e "char", f interval, '
        "primary key (a, b, c, d, e, f))",
        "insert into TABLE values ('infinity', 'NaN', '\\x00', '0044-03-15 BC', 'x', '1 mon')",
        "update TABLE set a = '-infinity'",
        "delete from TABLE",
    ),
    "stored and identity": (
        "create table TABLE (id bigint generated always as identity primary key, v json,"
        " g text generated always as (id::text) stored)",
        "insert into TABLE (v) values ('{\"a\":1e999999}'), ('1')",
        "update TABLE set v = '2'",
        "insert into TABLE (id, v) values (7, '1')",
        "insert into TABLE (id, v) overriding system value values (7, '1')",
    ),
    "partitions": (
        "create table TABLE (id integer, day date, v json, primary key (id, day)) partition by range (day);"
        "create table TABLE_1 partition of TABLE for values from (minvalue) to ('2020-01-01');"
        "create table TABLE_2 partition of TABLE default",
        "insert into TABLE values (1, '-infinity', '{\"x\":\"\\ud800\"}'), (2, 'infinity', '1')",
        "update TABLE set day = '2021-01-01'",
        "select history.untrack('TABLE_1')",
        "delete from TABLE where id = 1",
    ),
    "a version of its own": (
        "create table TABLE (id integer primary key, version text, updated_at text)",
        "insert into TABLE values (1, 'v1.0', 'yesterday')",
        "update TABLE set version = null",
    ),
    "columns that became others": (
        "create table TABLE (id integer primary key, version integer, updated_at timestamptz, project integer)",
        "insert into TABLE values (1, 1, now(), 13)",
        "alter table TABLE alter column version type text, alter column updated_at type text,"
        " alter column project type text",
        "insert into TABLE values (2, 'v2', 'now and then', 'thirteen')",
        "update TABLE set version = 'v3', updated_at = '', project = ''",
        "alter table TABLE rename column id to number",
        "insert into TABLE values (3, 'v2', '', '')",
        "alter table TABLE drop constraint if exists plain_pkey, drop constraint if exists tracked_pkey",
        "delete from TABLE",
    ),
    "versions that are counted": (
        "create table TABLE (id integer primary key, version integer default 1, updated_at timestamptz, v text);"
        "create trigger t_10_count before update on TABLE for each row execute function count_version()",
        "insert into TABLE values (1), (2)",
        "update TABLE set v = 'x', updated_at = null",
        "alter table TABLE rename column id to number",
        "insert into TABLE values (3)",
        "delete from TABLE where number < 3",
    ),
    "versions that are counted without a key": (
        "create table TABLE (id integer, version integer default 1, updated_at timestamptz, v text);"
        "create trigger t_10_count before update on TABLE for each row execute function count_version()",
        "insert into TABLE values (1)",
        "delete from TABLE",
        "truncate TABLE",
    ),
    "versions out of bounds": (
        "create table TABLE (id integer primary key, version bigint, updated_at timestamptz)",
        "insert into TABLE values (1, 9223372036854775807, 'infinity')",
        "update TABLE set version = -1, updated_at = '4714-11-24 00:00:00+00 BC'",
        "update TABLE set updated_at = '24000-01-01'",
    ),
    "an upsert and a merge": (
        "create table TABLE (id integer primary key, v json)",
        "insert into TABLE values (1, '1')",
        "insert into TABLE values (1, '{\"a\":1e999999}') on conflict (id) do update set v = excluded.v",
        "merge into TABLE as t using (values (1), (2)) as n (id) on n.id = t.id when matched then delete"
        " when not matched then insert values (n.id, '2')",
        "truncate TABLE",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_any_shape_can_be_written_as_before(foreign, shape):
    ddl, *statements = SHAPES[shape]
    project = ", project => 'project'" if " project " in ddl else ""
    track = f"select history.track('TABLE'{project})"
    assert same_with_history(foreign, ddl, [(statement,) for statement in statements], track)


def test_what_is_computed_when_it_is_read_is_no_part_of_a_row(foreign):
    if foreign.info.server_version < 180000:
        pytest.skip("PostgreSQL 18 is the first that computes columns when they are read")
    ddl = "create table TABLE (id integer primary key, a integer, twice integer generated always as (a * 2) virtual)"
    entries = same_with_history(foreign, ddl, [("insert into TABLE values (1, 2)",), ("update TABLE set a = 3",)])
    assert [new for _, _, new, *_ in entries] == [{"id": 1, "a": 2}, {"id": 1, "a": 3}]


# What was there before ------------------------------------------------------------------------------------------------


def noted(connection, kind):
    """The entries of a kind, in order: their action, key, project, version, and the row before and after."""
    return connection.execute(
        "select action, obj_id, project, version, old_obj, new_obj from history.entries"
        " where obj_type = %s order by id",
        [kind],
    ).fetchall()


def replayed(connection, project):
    return connection.execute("select * from history.replay(%s)", [project]).fetchall()


@pytest.fixture
def stock(foreign):
    """A table of two projects with rows, not tracked: its name, which is that of its kind too, and its columns' DDL."""
    name = f"stock_{len(foreign.execute('select from history.entries').fetchall())}"
    ddl = f"create table elsewhere.{name} (id integer primary key, project integer, n integer, version integer, v json)"
    foreign.execute(f"""
        {ddl};
        insert into elsewhere.{name}
        select i, 13 + i % 2, i, 5, case when i = 4 then '{{"x": "\\u0000"}}' end::json from generate_series(1, 4) as i
    """)
    yield name, ddl
    foreign.execute(f"drop table if exists elsewhere.{name} cascade")


def track(connection, name, more=", baseline => true"):
    connection.execute(f"select history.track('elsewhere.{name}', '{name}', 'project'{more})")


def test_a_table_that_has_rows_begins_with_them(foreign, stock):
    name, _ = stock
    track(foreign, name)
    row = {"id": 4, "project": 13, "n": 4, "version": 5, "v": '{"x": "\\u0000"}'}
    assert noted(foreign, name)[3] == ("create", "4", 13, 5, None, row)
    assert [entry[:4] for entry in noted(foreign, name)] == [("create", str(i), 13 + i % 2, 5) for i in range(1, 5)]
    (moment,) = foreign.execute("select clock_timestamp()::text").fetchone()
    foreign.execute(
        f"update elsewhere.{name} set n = 9, version = 6 where id < 3; delete from elsewhere.{name} where id = 4"
    )
    assert replayed(foreign, 13) == replayed(foreign, 14) == []
    for as_of in ("5", moment):
        found = foreign.execute(
            f"select history.as_of('elsewhere.{name}', '1', %s, to_jsonb(r)) from elsewhere.{name} as r where id = 1",
            [as_of],
        ).fetchone()
        assert found == ({"id": 1, "project": 14, "n": 1, "version": 5, "v": None},)


def test_what_is_known_already_is_not_noted_again(foreign, stock):
    name, _ = stock
    track(foreign, name, "")
    foreign.execute(f"update elsewhere.{name} set n = 9 where id = 1")
    track(foreign, name)
    track(foreign, name)
    assert [entry[:2] for entry in noted(foreign, name)] == [("update", "1"), *(("create", i) for i in "234")]


def test_what_was_changed_while_nobody_looked_is_noted_as_what_it_was(foreign, stock):
    name, _ = stock
    track(foreign, name)
    foreign.execute(f"""
        select history.untrack('elsewhere.{name}');
        update elsewhere.{name} set n = 9 where id = 1;
        delete from elsewhere.{name} where id = 2;
        insert into elsewhere.{name} values (5, 13, 5, 1)
    """)
    assert len(replayed(foreign, 14)) == 0, "it is not under history"
    track(foreign, name)
    found = {
        (action, key): (old and old["n"], new and new["n"]) for action, key, *_, old, new in noted(foreign, name)[4:]
    }
    assert found == {("update", "1"): (1, 9), ("delete", "2"): (2, None), ("create", "5"): (None, 5)}
    assert replayed(foreign, 13) == replayed(foreign, 14) == []


@pytest.mark.parametrize("way", ["seen", "seen under another name", "unseen"])
def test_what_moved_to_another_project_ends_there_and_begins_here(foreign, stock, way):
    """Also to none and from none: history of each project, played again, is what the table holds."""
    name, _ = stock
    track(foreign, name)
    called = "project"
    if way == "seen under another name":
        called = "belongs_to"
        foreign.execute(f"alter table elsewhere.{name} rename project to {called}")
    elif way == "unseen":
        foreign.execute(f"select history.untrack('elsewhere.{name}')")
    for id, project, version in ((1, 13, 6), (2, None, 6), (3, 15, 6)):
        foreign.execute(
            f"update elsewhere.{name} set {called} = %s, version = %s, n = n + 1 where id = %s", [project, version, id]
        )
    if way == "unseen":
        track(foreign, name)
    moved = [entry[:4] for entry in noted(foreign, name)[4:]]
    assert [entry for entry in moved if entry[1] == "1"] == [("delete", "1", 14, 5), ("create", "1", 13, 6)]
    assert [entry for entry in moved if entry[1] == "2"] == [("delete", "2", 13, 5), ("create", "2", None, 6)]
    assert [entry for entry in moved if entry[1] == "3"] == [("delete", "3", 14, 5), ("create", "3", 15, 6)]
    foreign.execute(f"update elsewhere.{name} set {called} = 14, version = 7 where id = 2")
    assert [entry[:4] for entry in noted(foreign, name)[10:]] == [("delete", "2", None, 6), ("create", "2", 14, 7)]
    if called == "project":
        assert [replayed(foreign, project) for project in (13, 14, 15)] == [[], [], []]


def test_what_was_emptied_begins_anew(foreign, stock):
    name, _ = stock
    track(foreign, name)
    foreign.execute(f"truncate elsewhere.{name}; insert into elsewhere.{name} values (1, 13, 1, 6)")
    assert replayed(foreign, 13) == []
    foreign.execute(f"""
        truncate elsewhere.{name};
        select history.untrack('elsewhere.{name}');
        insert into elsewhere.{name} values (1, 13, 1, 7)
    """)
    track(foreign, name)
    assert noted(foreign, name)[-1][:4] == ("create", "1", 13, 7)
    assert replayed(foreign, 13) == replayed(foreign, 14) == []


def test_nobody_writes_unseen_while_what_is_there_is_noted(foreign, stock):
    name, _ = stock
    with psycopg.connect(foreign.info.dsn) as other:
        other.execute(f"insert into elsewhere.{name} values (5, 13, 5, 1)")
        foreign.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            track(foreign, name)
        other.commit()
        foreign.execute("reset lock_timeout")
        track(foreign, name)
        other.execute("set lock_timeout = '100ms'")
        with foreign.transaction(), pytest.raises(psycopg.errors.LockNotAvailable):
            track(foreign, name)
            other.execute(f"update elsewhere.{name} set n = 0")
    assert len(noted(foreign, name)) == 5


def test_a_table_that_was_made_again_is_tracked_again(foreign, stock):
    name, ddl = stock
    counted = (
        f"create trigger a_10_count before update on elsewhere.{name} for each row execute function count_version()"
    )
    ddl = ddl.replace("v json", "v json, updated_at timestamptz not null default now()")
    foreign.execute(f"drop table elsewhere.{name}; {ddl}; {counted}")
    track(foreign, name)
    foreign.execute(f"insert into elsewhere.{name} values (1, 13, 1, 7), (2, 13, 2, 3)")
    foreign.execute(f"delete from elsewhere.{name} where id = 2")
    foreign.execute(f"drop table elsewhere.{name}; {ddl}; {counted}; insert into elsewhere.{name} values (3, 13, 3, 1)")
    track(foreign, name)
    assert [(action, key) for action, key, *_ in noted(foreign, name)][-2:] == [("truncate", None), ("create", "3")]
    foreign.execute(f"insert into elsewhere.{name} values (1, 13, 1, 1), (2, 13, 2, 1)")
    assert [(key, version) for _, key, _, version, *_ in noted(foreign, name)][-2:] == [("1", 8), ("2", 4)], (
        "counting on"
    )
    assert replayed(foreign, 13) == []


def test_another_table_of_that_kind_is_refused_while_it_is_there(foreign, stock):
    name, _ = stock
    track(foreign, name)
    foreign.execute(f"create table elsewhere.{name}_2 (id integer primary key)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        foreign.execute(f"select history.track('elsewhere.{name}_2', '{name}')")
    foreign.execute(f"drop table elsewhere.{name}_2")


def test_rows_of_a_load_stay_rows_of_a_load(foreign, stock):
    name, _ = stock
    foreign.execute(f"delete from elsewhere.{name}")
    track(foreign, name, ", loads => true")
    foreign.execute(f"set app.load = 'a file'; insert into elsewhere.{name} values (1, 13, 1, 1); reset app.load")
    track(foreign, name, ", loads => true, baseline => true")
    assert [entry[:2] for entry in noted(foreign, name)] == [("create", None)]


# The commands ---------------------------------------------------------------------------------------------------------


def test_a_table_is_tracked_and_untracked_by_command(foreign, stock):
    name, _ = stock
    url = foreign.info.dsn
    done = flask(url, "history", "track", f"elsewhere.{name}", "--obj-type", name, "--project", "project", "--baseline")
    assert (done.returncode, done.stdout) == (0, f"elsewhere.{name} is under history as {name}.\n"), done.stderr
    assert len(noted(foreign, name)) == 4
    done = flask(url, "history", "track", f"elsewhere.{name}")
    assert done.stdout == f"elsewhere.{name} is under history as {name}.\n"
    kept = foreign.execute("select project from history.tracked where obj_type = %s", [name]).fetchone()
    assert kept == (2,), "what was not told stays"
    who = foreign.execute("select distinct actor from history.entries where obj_type = %s", [name]).fetchall()
    assert len(who) == 1 and who[0][0].endswith(" (flask)")
    done = flask(url, "history", "untrack", f"elsewhere.{name}")
    assert (done.returncode, done.stdout) == (0, f"elsewhere.{name} is no longer under history; its entries stay.\n")
    foreign.execute(f"delete from elsewhere.{name}")
    assert len(noted(foreign, name)) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    first(
        5,
        [
            (["track", "elsewhere.nothing"], "There is no table elsewhere.nothing."),
            (["track", "nowhere.nothing"], "There is no table nowhere.nothing."),
            (["track", ""], "There is no table ."),
            (["track", "a b"], "There is no table a b."),
            (["track", "a.b.c.d"], "There is no table a.b.c.d."),
            (["track", "another.public.users"], "There is no table another.public.users."),
            (["track", "99999999"], "There is no table 99999999."),
            (["track", "elsewhere.seen"], "elsewhere.seen is not a table."),
            (["track", "elsewhere.keyed_pkey"], "elsewhere.keyed_pkey is not a table."),
            (["track", "elsewhere.pair"], "elsewhere.pair is not a table."),
            (["track", "history.entries"], "history.entries cannot be under history."),
            (["track", "pg_class"], "pg_class cannot be under history."),
            (
                ["track", "elsewhere.keyless"],
                "elsewhere.keyless has no primary key: history could not tell its rows apart.",
            ),
            (["track", "elsewhere.keyed", "--project", "v"], "elsewhere.keyed has no integer column v."),
            (["track", "elsewhere.keyed", "--project", "x"], "elsewhere.keyed has no integer column x."),
            (["track", "elsewhere.keyed", "--obj-type", "user"], "Another table is tracked as this kind of object."),
            (["track", "elsewhere.keyed", "--obj-type", " "], "What a row is called must not be blank."),
            (["track", "elsewhere.held", "--baseline"], "elsewhere.held is in use: others write to it. Try again."),
            (["untrack", "elsewhere.nothing"], "There is no table elsewhere.nothing."),
            (["untrack", "elsewhere.keyed"], "elsewhere.keyed is not under history."),
        ],
    ),
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_tracked_is_said_in_a_line(foreign, words, said):
    foreign.execute("""
        set client_min_messages = warning;
        create table if not exists elsewhere.keyed (id integer primary key, v text);
        create table if not exists elsewhere.held (id serial primary key);
        create table if not exists elsewhere.keyless (id integer);
        create or replace view elsewhere.seen as select 1 as one;
    """)
    with psycopg.connect(foreign.info.dsn) as writer:
        writer.execute("insert into elsewhere.held default values")
        done = flask(foreign.info.dsn, "history", *words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{said}\n")


def test_a_database_that_is_away_is_said_in_a_line():
    for words in (["track", "x"], ["untrack", "x"]):
        done = flask("postgresql://127.0.0.1:1/nothing", "history", *words)
        assert done.returncode == 1 and done.stderr.startswith("The database is not reachable: ")
        assert len(done.stderr.splitlines()) == 1
