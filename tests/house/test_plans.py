"""Laws of the house for plans: what meets a big table goes by an index, and a late page costs what page 1 does."""

import json
import os
import re
from datetime import date

import psycopg
import pytest

import db
from app import create_app
from db.pool import connect
from db.queries import STATEMENTS
from handlers.http.contract import parameters
from handlers.http.responses import in_order
from handlers.http.schemas import decoded
from tests import resources

ROWS = int(os.environ.get("PLAN_ROWS") or 100_000)
"""Of users; a million shows the same plans, and takes minutes to fill."""

OTHERS = ROWS * 3 // 10
"""Of each other big table."""

FEW = 300
"""The pages of 8 KiB that a first page of 50 rows may touch, or the 10 rows that a filter finds."""

BIG = """
    set session_replication_role = replica;
    alter table events drop constraint events_status_check;
    insert into users (email, name, address, image, created_at)
    select 'user' || i || '@example.com', 'Name ' || i % 5000, i || ' Street ' || md5(i::text),
        'http://example.com/' || i, now() + i * interval '1 second'
    from generate_series(1, {rows}) as i;
    insert into audios (session_id, ticks, selected_tick, step_count, created_at)
    select i, array_fill(-50, array[15]), 1, 1, now() + i * interval '1 second' from generate_series(1, {others}) as i;
    insert into projects (name, slug, owner_id, created_at)
    select 'Name ' || i % 5000, 'slug-' || i, i % 5000, now() + i * interval '1 second'
    from generate_series(1, {others}) as i;
    insert into milestones (project_id, name) select i / 10, 'Name ' || i from generate_series(1, {others}) as i;
    insert into userstories (project_id, ref, subject, status, milestone_id, assigned_to)
    select 7, i, 'Subject', case when i % ({others} / 10) = 7 then 'blocked' else 'new' end, i % 5000, i % 5000
    from generate_series(1, {others}) as i;
    insert into tasks (project_id, userstory_id, subject, assigned_to)
    select 7, i / 10, 'Subject', i % 5000 from generate_series(1, {others}) as i;
    insert into comments (project_id, userstory_id, text, author_id)
    select 7, i / 10, 'Text', i % 5000 from generate_series(1, {others}) as i;
    insert into departments (id, department) select i, 'Name ' || i % 5000 from generate_series(1, {others}) as i;
    insert into jobs (id, job) select i, 'Name ' || i % 5000 from generate_series(1, {others}) as i;
    insert into employees (id, name, datetime, department_id, job_id)
    select i, 'Name ' || i % 5000, timestamptz '2021-01-01Z' + i * interval '5 minutes', i % 5000 + 1, i % 5000 + 1
    from generate_series(1, {others}) as i;
    insert into uploads (table_name, sha256, rows, accepted, rejected)
    select t, encode(sha256(i::text::bytea), 'hex'), 10, 0, 10
    from unnest(array['departments', 'jobs', 'employees']) as t, generate_series(1, {others} / 10) as i;
    insert into events (id, user_id, description, status)
    select uuid_in_time_order(), 'ann' || i / 10, 'Text',
        case when i % ({others} / 10) = 7 then 'blocked' else 'Processed' end
    from generate_series(1, {others}) as i;
    insert into outbox (event_id, user_id, relay_at)
    select id, user_id, now() + interval '1 hour' * (user_id <> 'ann7')::integer from events;
    insert into event_failures (event_id, try, reason)
    select id, n, 'HTTP 500' from events, generate_series(1, 3) as n where user_id like 'ann1%';
    insert into first_answers (actor, key, fingerprint, status, headers, body)
    select 'anonymous', i::text, '', 201, '{{}}', '' from generate_series(1, {others} / 10) as i;
    insert into operations (kind, table_name, actor, state, finished_at)
    select 'backup', 'employees', 'anonymous', 'succeeded', now() from generate_series(1, {others}) as i;
    insert into tokens (name, role, sha256)
    select i, 'reader', encode(sha256(i::text::bytea), 'hex') from generate_series(1, {others}) as i;
    insert into history.entries (operation_date, obj_type, obj_id, action, project, actor, version, request_id, new_obj)
    select date_trunc('month', now()) + i * interval '1 second', 'userstory', (i / 10)::text,
        case when i % ({others} / 10) = 7 then 'delete' else 'update' end, i / 100, 'actor ' || i % 5000, i % 10 + 1,
        'request ' || i / 4, '{{"status": "new"}}'
    from generate_series(1, {others}) as i;
"""

REJECTS = """
    insert into {table}_errors (upload_id, line, column_name, code, detail, raw)
    select u.id, n, 'id', case when u.id % ({others} / 10) = 7 then 'rare' else 'missing' end, 'Required.', ''
    from uploads as u, generate_series(1, 10) as n
    where u.table_name = '{table}';
"""

VALUES = {
    "id": "7",
    "email": "user7@example.com",
    "name": "Name 7",
    "address": "1679091c5a880faf",
    "session_id": "7",
    "slug": "slug-7",
    "owner_id": "7",
    "ref": "7",
    "milestone_id": "7",
    "status": "blocked",
    "assigned_to": "7",
    "author_id": "7",
    "user_id": "ann7",
    "department": "Name 7",
    "job": "Name 7",
    "department_id": "7",
    "job_id": "7",
    "upload_id": "7",
    "table": "jobs",
    "code": "rare",
    "closed": "true",
    "obj_type": "userstory",
    "obj_id": "7",
    "project": "7",
    "actor": "actor 7",
    "action": "delete",
    "request_id": "request 7",
    "since": f"{date.today():%Y-%m}-01T00:20:00Z",
    "until": f"{date.today():%Y-%m}-01T00:20:00Z",
    "field": "status",  # of which any page is full; for a rare one, name the object or the time, too
}
"""What to filter by, found in few rows."""

PARENTS = {
    "events.failures": {"event_id": "00000000-0000-7000-8000-000000000000"},
    "milestones.list": {"project_id": 7},
    "userstories.list": {"project_id": 7},
    "tasks.list": {"userstory_id": 7},
    "comments.list": {"userstory_id": 7},
    "operations.list": {"kinds": "upload,backup,restore,delete,undo"},
    **{f"{noun}.list": {parent: 7} for noun, parent in resources.PARENT.items() if parent},
}

SCANNED = re.compile(rf"Seq Scan on (?!tracked|entries_(?!{date.today():%Y_%m}))")
"""A walk over a whole table; of the months of history only one has rows here."""

APP = create_app()


def collections():
    """Each list with its query: [("users.list", UserPageQuery), …]."""
    for rule in APP.url_map.iter_rules():
        contract = APP.view_functions[rule.endpoint].contract
        if "GET" in rule.methods and contract.many and hasattr(contract.query, "orders"):
            words = rule.rule.strip("/").split("/")
            if words[0] == "errors":
                yield from ((f"{table}.errors", contract.query) for table in ("departments", "jobs", "employees"))
            elif words[-1] == "failures":
                yield "events.failures", contract.query
            elif len(words) == 1 or words[-1] != "history":
                yield f"{words[-1]}.list", contract.query


def cases():
    for statement, query in collections():
        for order in query.orders:
            yield in_order(statement, order), {}
            yield in_order(statement, f"-{order}"), {}
        for name in parameters(query):
            if name not in ("limit", "cursor", "sort", "fields", "diff", "formulas", "as_of"):
                values = VALUES | resources.seventh(statement.split(".")[0])
                assert name in values, f"tests/house/test_plans.py: VALUES lacks what ?{name}= finds in few rows"
                yield statement, {query._declared_fields[name].attribute or name: values[name]}


@pytest.fixture(scope="module")
def crowd(module_database):
    """A database with many rows in each table."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(BIG.format(rows=ROWS, others=OTHERS))
        for noun in resources.OTHERS:
            below = {"projects": "n / 10 + 1", "userstories": "n / 10 + 1"}
            resources.insert(connection, noun, below, range(1, OTHERS + 1))
        for table in ("departments", "jobs", "employees"):
            connection.execute(REJECTS.format(table=table, others=OTHERS))
        connection.execute("vacuum analyze")
    return module_database


def plan(url: str, statement: str, **parameters: object) -> str:
    return "\n".join(db.explain(url, statement, parameters))


def buffers(text: str) -> int:
    """The pages that a plan touched in all, less those of planning."""
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", text.split("Planning:")[0].splitlines()[1]))


@pytest.mark.parametrize(
    "statement, given",
    [*cases()],
    ids=lambda value: value if isinstance(value, str) else "&".join(map("=".join, value.items())),
)
def test_every_order_and_filter_of_every_list_goes_by_an_index(crowd, statement, given):
    found = plan(crowd, statement, **above(statement), **given)
    assert "Index" in found
    assert not SCANNED.search(found), found
    assert buffers(found) <= FEW, found


def above(statement: str) -> dict[str, str]:
    """What a list stands below."""
    return next((given for name, given in PARENTS.items() if statement.startswith(name)), {})


def test_every_order_of_every_list_is_a_statement_and_every_such_statement_an_order():
    orders = {
        in_order(statement, f"{way}{order}")
        for statement, query in collections()
        for order in query.orders
        for way in ("", "-")
    }
    assert orders == {name for name in STATEMENTS if re.search(r"\.(list|errors|failures)(_|$)", name)}


LISTS = [name for name in STATEMENTS if "page_size(" in STATEMENTS[name].sql.decode() and name != "users.search"]


@pytest.mark.parametrize("name", LISTS)
def test_the_plan_of_a_list_is_kept_and_goes_by_an_index(crowd, name):
    with connect(crowd) as connection:
        statement = STATEMENTS[name]
        kept = "\n".join(line for (line,) in connection.execute(b"explain (generic_plan) " + statement.sql))
        assert "Index" in kept
        assert not SCANNED.search(kept), kept
        assert b"limit 1001\n" in statement.sql, "among many more rows it would be sorted"
        for parent in above(name).keys() - {"kinds"}:
            assert re.search(rf"Index Cond: .*\b{parent} = ", kept), "among other parents it would be walked"
        for limit in range(20, 40):
            list(db.run(connection, name, limit=limit, **above(name)))
        prepared = "select generic_plans from pg_prepared_statements where statement = $1"
        assert connection.execute(prepared, [statement.sql.decode()]).fetchone()[0] > 5, "it is planned anew"


@pytest.mark.parametrize("name", [name for name in LISTS if not name.endswith("_desc")])
def test_a_list_is_walked_page_by_page_from_both_ends(crowd, name):
    def page(statement, **asked):
        row = next(
            db.run(connection, statement, fields="try" if name == "events.failures" else "id", **above(name), **asked)
        )
        return json.loads(row.body)["items"], decoded(row.next)[1] if row.next else {}

    with connect(crowd) as connection:
        first, after = page(name, limit=4)
        second, after = page(name, limit=3, **after)
        assert first + second == page(name, limit=7)[0]
        last, before = page(f"{name}_desc", limit=7)
        assert (last[-2::-1], {}) == page(name, limit=10, **before)
        assert last[4:] == page(f"{name}_desc", limit=3, **page(f"{name}_desc", limit=4)[1])[0]


@pytest.mark.parametrize(
    "statement, given, index",
    [
        ("users.get", {"id": 7}, "users_pkey"),
        ("users.by_email", {"email": "USER7@example.com"}, "users_email_key"),
        ("users.id_by_email", {"email": "USER7@example.com"}, "users_email_key"),
        ("users.list_by_email_desc", {}, "Backward using users_email_key"),
        ("users.list", {"address": "1679091c5a880faf"}, "users_address_idx"),
        ("users.search", {"address": "1679091c5a880faf"}, "users_address_idx"),
        ("users.change", {"id": 7, "body": '{"name": "Anna"}', "versions": "1"}, "users_pkey"),
        ("users.remove", {"id": 7, "versions": "1"}, "users_pkey"),
        ("users.as_of", {"id": 7, "as_of": "1"}, "users_pkey"),
        ("undo.deleted", {"noun": "userstories", "id": 7}, "Index"),
        ("history.known", {"noun": "userstories", "id": 7}, "obj_type_obj_id_operation"),
        ("outbox.claim", {"limit": 10, "seconds": 60}, "outbox_relay_at_event_id_idx"),
        ("outbox.first", {"user_ids": ["ann7"], "limit": 10}, "outbox_user_id_place_idx"),
        ("idempotency.get", {"key": "k"}, "first_answers_pkey"),
    ],
)
def test_a_statement_goes_by_its_index(crowd, statement, given, index):
    found = plan(crowd, statement, **given)
    assert index in found
    assert not SCANNED.search(found), found
    assert buffers(found) <= FEW, found


@pytest.mark.parametrize("after", [0, 20, ROWS // 2, ROWS - 100, ROWS - 2])
@pytest.mark.parametrize(
    "address, most",
    [
        ("1679091c5a880faf", FEW),
        ("qqq", FEW),
        ("%_\\", FEW),
        ("ärger", FEW),
        ("street", FEW),
        ("9 street 1", FEW * 5),
    ],
    ids=["one", "none", "signs", "umlaut", "all", "one in 160"],
)
def test_a_search_goes_by_the_same_indexes_wherever_and_for_whatever(crowd, address, most, after):
    with connect(crowd) as connection:
        search = STATEMENTS["users.search"].sql
        kept = "\n".join(line for (line,) in connection.execute(b"explain (generic_plan) " + search))
    assert kept.count("Bitmap Index Scan on users_address_idx") == 2, "the few, and the remaining"
    assert kept.count("using users_pkey") == 4, "the sample, the walk, its last, and the users found"
    assert not SCANNED.search(kept), kept
    found = plan(crowd, "users.search", address=address, after_id=after)
    assert shape(found) == shape(kept)
    assert buffers(found) <= most, found


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name.startswith("users.list")])
def test_a_late_page_costs_what_the_first_does(crowd, name):
    with connect(crowd) as connection:
        first = late = next(db.run(connection, name, limit=1000))
        for _ in range(90):
            late = next(db.run(connection, name, limit=1000, **decoded(late.next)[1]))
    early, much_later = (plan(crowd, name, limit=50, **decoded(row.next)[1]) for row in (first, late))
    assert shape(early) == shape(much_later)
    assert buffers(much_later) <= buffers(early) * 1.5 + 10


def shape(text: str) -> list[str]:
    """The nodes of a plan, without its figures."""
    return [line.split("(")[0].strip() for line in text.splitlines() if "->" in line]


@pytest.mark.parametrize("table", ["departments", "jobs", "employees"])
def test_a_load_reads_no_table_as_a_whole_for_each_row_though_it_was_empty_when_analyzed(database, table):
    """The rejects of a load are there while the load still looks for what it corrects."""
    explained = b"explain " + STATEMENTS[f"{table}.load"].sql.replace(b"$1", b"'x'").replace(b"$2", b"''")
    with psycopg.connect(database) as connection:
        connection.execute("analyze")
        for setup in ("hiring.stage", "employees.stage"):
            connection.execute(STATEMENTS[setup].sql)
        connection.execute("insert into staging select i, '', 5, null, i from generate_series(1, 100000) as i")
        connection.execute("analyze staging")
        # Otherwise it would, which is why hiring.call says not to.
        assert f"Seq Scan on {table}_errors" in str(connection.execute(explained).fetchall())
        connection.execute(STATEMENTS["hiring.call"].sql.replace(b"$1", b"'x'"))
        plan = str(connection.execute(explained).fetchall())
        assert f"Seq Scan on {table}_errors" not in plan
        assert f"using {table}_errors_line_idx" in plan or f"on {table}_errors_line_idx" in plan
