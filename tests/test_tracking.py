"""Tracking: a write that worked before history.track() works with it, whatever a row holds; history shows it truly."""

import sys

import psycopg
import pytest

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
    assert [action for action, *_ in entries].count("create") == len(given) * 2
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
