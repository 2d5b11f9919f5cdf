"""What a client reads slowly holds no connection of the pool, and a whole selection is one snapshot, in any order."""

import re
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import cycle
from types import SimpleNamespace

import psycopg
import pytest
import requests

import db
from db.pool import PoolTimeout
from handlers.http import auth, responses, shares, streaming
from handlers.http.contract import AVRO, CSV, NDJSON
from handlers.http.problems import of
from handlers.http.shares import STREAMS, STREAMS_OF_ONE, Readers, Share
from handlers.http.streaming import Part, Spool
from tests.conftest import cloned, serve, wait_for
from tests.resources import OTHERS, insert
from tests.test_refusals import APP, CONTRACTS, needed, somewhere

LARGE = """
    set session_replication_role = replica;
    insert into users (email, name, address, image, text)
    select 'large' || n || '@large.test', 'Large', 'Large', 'https://l.test/l.png', repeat('t', 1000)
    from generate_series(1, 1500) as n;
    insert into projects (id, name, slug) overriding system value values (1, 'Large', 'large');
    insert into userstories (project_id, ref, subject, description)
    select 1, n, 'Large', repeat('d', 3000) from generate_series(1, 2000) as n;
    insert into comments (project_id, userstory_id, text)
    select 1, (select min(id) from userstories), repeat('c', 1500) from generate_series(1, 1500);
    insert into events (user_id, description) select 'large', repeat('d', 1500) from generate_series(1, 1500);
    insert into history.entries (operation_date, obj_type, obj_id, action, project, actor, new_obj)
    select now(), 'user', '1', 'update', 1, 'large', jsonb_build_object('text', repeat('t', 1500))
    from generate_series(1, 1500);
"""
"""Answers that no buffer of a socket holds."""

ENDING = {route: contract for route, contract in sorted(CONTRACTS.items()) if "text/event-stream" not in contract.media}
"""All but what goes on for ever."""

STREAMED = [
    (path, media)
    for (method, path), contract in ENDING.items()
    if method == "GET"
    for media in contract.media
    if media in (NDJSON, CSV, AVRO) or path.endswith("/tree")
]
SOME = [
    ("/projects/<id:id>/tree", "application/json"),
    ("/users", NDJSON),
    ("/projects/<id:id>/userstories", CSV),
    ("/history", NDJSON),
]

STORIES = "/projects/<id:id>/userstories"

addresses = cycle(range(2, 250))


def test_what_can_be_streamed_is_found():
    assert set(SOME) < set(STREAMED)
    assert len(STREAMED) > 50


@pytest.fixture(scope="module")
def narrow(module_database):
    """A service of one process and two connections, over much."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(LARGE)
    with serve(module_database, WORKERS="1", POOL_SIZE="2") as service:
        yield service


class Slow:
    """A client of an address of its own that takes the head of an answer, and the rest when it is told to."""

    def __init__(self, service, path, media="application/json", address=None):
        url = path.replace("<id:id>", "1").replace("<uuid:id>", "00000000-0000-7000-8000-000000000000")
        url = re.sub(r"<any\(([^,)]+).*?\):\w+>", lambda found: found[1].strip("'"), url)
        arguments = "&".join(f"{name}={value}" for name, value in needed("GET", path).items())
        port = int(service.url.rpartition(":")[2])
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind((address or f"127.0.0.{next(addresses)}", 0))
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        head = f"GET {url}?{arguments} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {media}\r\nConnection: close\r\n"
        self.socket.sendall(f"{head}\r\n".encode())
        self.came = b""

    def begin(self):
        self.came += self.socket.recv(2000)
        return int(self.came.split()[1])

    def rest(self):
        """All of the answer, and whether it was whole."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        with suppress(ConnectionResetError):
            while some := self.socket.recv(2**16):
                self.came += some
        head, _, body = self.came.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        return len(body), body.endswith(b"0\r\n\r\n") if length is None else len(body) == int(length[1])


def at_work(service):
    """Connections of the service's pool that do something, or are within a transaction."""
    with psycopg.connect(service.database) as connection:
        return connection.execute(
            "select count(*) from pg_stat_activity where application_name = 'rowhouse' and state <> 'idle'"
            " and datname = current_database()"
        ).fetchone()[0]


def check_that_nobody_waits(service, clients):
    wait_for(lambda: at_work(service) == 0)
    for path in ("/users?limit=1", "/history?limit=1&sort=-id", "/projects/1", "/health/ready"):
        began = time.monotonic()
        assert requests.get(service.url + path, timeout=20).status_code == 200
        assert time.monotonic() - began < 2
    sizes = [client.rest() for client in clients]
    assert all(whole for _, whole in sizes), sizes
    return sum(size > 2_000_000 for size, _ in sizes)


@pytest.mark.parametrize(
    "routes", [SOME, pytest.param(STREAMED, marks=pytest.mark.thorough)], ids=["some", "every route"]
)
def test_slow_readers_hold_no_connection(narrow, routes):
    clients, asked = [], [*routes, *SOME]
    # Twenty at a time: where two connections are to begin a hundred at once, a busy machine says 503.
    for begin in range(0, len(asked), 20):
        some = [Slow(narrow, path, media) for path, media in asked[begin : begin + 20]]
        assert {client.begin() for client in some} <= {200, 404}
        clients += some
    assert check_that_nobody_waits(narrow, clients) > len(SOME)


def test_one_caller_may_leave_so_many_unread_and_who_leaves_gives_them_back(narrow):
    address = f"127.0.0.{next(addresses)}"
    clients = [Slow(narrow, STORIES, NDJSON, address) for _ in range(STREAMS_OF_ONE)]
    assert {client.begin() for client in clients} == {200}
    assert Slow(narrow, STORIES, NDJSON, address).begin() == 429
    assert Slow(narrow, STORIES, NDJSON).begin() == 200
    for client in clients:
        client.socket.close()
    wait_for(lambda: Slow(narrow, STORIES, NDJSON, address).begin() == 200)
    wait_for(lambda: at_work(narrow) == 0)


@pytest.mark.thorough
def test_what_waits_for_clients_has_a_bound(module_database, narrow):
    with serve(module_database, WORKERS="1", SPOOL_LIMIT="3000000") as service, ExitStack() as open_ones:
        slow = Slow(service, STORIES, NDJSON)
        open_ones.callback(slow.socket.close)
        assert slow.begin() == 200
        wait_for(lambda: at_work(service) == 0)
        size, whole = slow.rest()
        assert not whole
        assert 0 < size < 6_000_000
        for _ in range(3):
            assert service.get("/history?obj_type=task", headers={"Accept": NDJSON}).status_code == 200


# Bounds, one by one ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch):
    """A process in which nothing waits; a hundred bytes may, and four connections of eight may read streams."""
    monkeypatch.setattr(Share, "streams", Counter())
    monkeypatch.setattr(Share, "waiting", Counter())
    monkeypatch.setitem(APP.config, "SPOOL_LIMIT", 100)
    monkeypatch.setattr(db, "pool", lambda: SimpleNamespace(max_size=8))
    monkeypatch.setattr(shares, "READ_WITHIN", 0.01)
    with APP.test_request_context():
        yield


def refused(make) -> int:
    """The status by which something is refused."""
    with pytest.raises(Exception) as refusal:
        make()
    return of(refusal.value).status_code


def test_streams_are_counted_for_one_caller_and_for_all(nobody):
    open_ones = [Share("one") for _ in range(STREAMS_OF_ONE)]
    assert refused(lambda: Share("one")) == 429
    open_ones += [Share(f"other {n}") for n in range(STREAMS - STREAMS_OF_ONE)]
    assert refused(lambda: Share("another")) == 503
    for share in open_ones:
        share.release()
        share.release()
    assert Share.streams == Counter()
    Share("one")


def test_bytes_that_wait_are_counted_for_one_caller_and_for_all(nobody):
    one, again, other = Share("one"), Share("one"), Share("other")
    one.grow(30)
    again.grow(20)
    assert refused(lambda: again.grow(1)) == 503
    other.grow(49)
    assert refused(lambda: Share("another")) == 503
    again.grow(-1)
    late = Share("another")
    assert refused(lambda: late.grow(2)) == 503
    for share in (one, again, other, late):
        share.grow(-share.size // 2)
        share.release()
    assert Share.waiting == Counter()
    Share("another").grow(50)


def test_streams_are_read_by_half_of_the_pool_and_half_of_these_by_one_caller(nobody):
    readers = Readers()
    for _ in "12":
        with ExitStack() as places:
            for caller in ("one", "one", "two"):
                places.enter_context(readers.taken(caller))
            with pytest.raises(PoolTimeout):
                places.enter_context(readers.taken("one"))
            with pytest.raises(PoolTimeout):
                places.enter_context(readers.taken("two", at_once=1))
            places.enter_context(readers.taken("three"))
            with pytest.raises(PoolTimeout):
                places.enter_context(readers.taken("four"))
    assert readers.reading == {}


def test_what_is_spooled_comes_out_as_it_went_in_and_leaves_nothing(nobody, monkeypatch):
    """Little of it lies in memory; of what lies on disk, a file goes as soon as it was sent."""
    monkeypatch.setitem(APP.config, "SPOOL_LIMIT", 10_000)
    monkeypatch.setattr(streaming, "MEMORY", 100)
    monkeypatch.setattr(streaming, "PART", 300)
    parts = []
    monkeypatch.setattr(streaming, "Part", lambda: parts.append(Part()) or parts[-1])
    blocks = [bytes([65 + n]) * 40 for n in range(40)]
    spool = Spool("one")
    for block in blocks:
        assert spool.put(block)
    assert sum(map(len, spool.blocks)) < 200
    assert len(parts) > 3
    assert [spool.take() for _ in range(20)] == blocks[:20]
    assert Share.waiting == {"one": 20 * 40}, "what was sent waits no longer"
    assert parts[0].file.closed
    assert not parts[-1].file.closed
    spool.close()
    assert all(part.file.closed for part in parts)
    assert not spool.put(b"late")
    assert (Share.streams, Share.waiting) == ({}, {})


def test_what_breaks_a_stream_off_comes_behind_what_was_read(nobody):
    def broken():
        yield b"some"
        raise PoolTimeout("away")

    spool = Spool("one")
    spool.fill(broken(), 0)
    taken = spool.taken()
    assert next(taken) == b"some"
    with pytest.raises(PoolTimeout):
        next(taken)


# One snapshot ---------------------------------------------------------------------------------------------------------

EVENT = "00000000-0000-7000-8000-000000000000"

SEVEN = f"""
    insert into users (id, email, name, address) overriding system value
    select n, 'one' || n || '@one.test', 'One', 'One' from generate_series(1, 7) as n;
    insert into audios (session_id, ticks, selected_tick, step_count)
    select n, array_fill(-50, array[15]), 1, 1 from generate_series(1, 7) as n;
    insert into projects (id, name, slug) overriding system value
    select n, 'One', 'one' || n from generate_series(1, 7) as n;
    insert into milestones (project_id, name) select 1, 'One' from generate_series(1, 7);
    insert into userstories (id, project_id, ref, subject) overriding system value
    select n, 1, n, 'One' from generate_series(1, 7) as n;
    insert into tasks (project_id, userstory_id, subject) select 1, 1, 'One' from generate_series(1, 7);
    insert into comments (project_id, userstory_id, text) select 1, 1, 'One' from generate_series(1, 7);
    insert into events (id, user_id, description)
    select overlay('{EVENT}' placing n - 1 || '' from 36)::uuid, 'one', 'One' from generate_series(1, 7) as n;
    insert into event_failures (event_id, try, reason) select '{EVENT}', n, 'One' from generate_series(1, 7) as n;
    insert into departments (id, department) select n, 'One' from generate_series(1, 7) as n;
    insert into jobs (id, job) select n, 'One' from generate_series(1, 7) as n;
    insert into employees (id, name, datetime, department_id, job_id)
    select n, 'One', '2021-02-03', n, n from generate_series(1, 7) as n;
    insert into departments_errors (upload_id, line, code, detail, raw)
    select 1, n, '', '', '' from generate_series(1, 7) as n;
    insert into jobs_errors (upload_id, line, code, detail, raw)
    select 1, n, '', '', '' from generate_series(1, 7) as n;
    insert into employees_errors (upload_id, line, code, detail, raw)
    select 1, n, '', '', '' from generate_series(1, 7) as n;
    insert into uploads (table_name, sha256, rows, accepted, rejected)
    select 'jobs', encode(sha256(i::text::bytea), 'hex'), 1, 1, 0 from generate_series(1, 7) as i;
    insert into operations (kind, table_name, actor) select 'upload', 'jobs', 'one' from generate_series(1, 7);
    insert into tokens (id, name, role, sha256) overriding system value
    select n, n, 'reader', encode(sha256(n::text::bytea), 'hex') from generate_series(1, 7) as n;
    insert into history.entries (operation_date, obj_type, obj_id, action, project, actor, new_obj)
    select now(), t.obj_type, o.obj_id, 'update', 1, 'one', '{{}}'
    from generate_series(1, 7) as n, history.tracked as t, (values ('1'), ('"{EVENT}"')) as o (obj_id);
"""
"""Of each kind so many that they are three pages of three."""

REPORTS = "/requirements"
"""What begins so comes from one statement, not page by page."""


def lists():
    """Each list in each of its orders."""
    for (method, path), contract in ENDING.items():
        if method == "GET" and NDJSON in contract.media:
            orders = getattr(contract.query, "orders", {})
            yield from ((path, order) for each in orders for order in (each, f"-{each}"))
            if not orders:
                yield path, ""


LISTS = [*lists()]


@pytest.fixture(scope="module")
def seven(server, template):
    """A pool on a database with seven of each; `empty()` and `fill()` it by a connection of their own."""
    with cloned(server, template) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        tables = connection.execute(
            "select string_agg(format('delete from %s', oid::regclass), ';') from pg_class where relkind = 'r'"
            " and relnamespace = 'public'::regnamespace and relname not in ('schema_migrations', 'quotas')"
        ).fetchone()[0]
        db.open_pool(url, 2)

        def fill():
            connection.execute(SEVEN)
            for noun in OTHERS:
                insert(connection, noun, {"projects": 1, "userstories": 1}, range(1, 8))

        yield SimpleNamespace(
            empty=lambda: connection.execute(f"{tables}; delete from history.entries"),
            fill=fill,
        )
        db.close_pool()


@pytest.mark.parametrize("media", [NDJSON, pytest.param(CSV, marks=pytest.mark.thorough)])
def test_all_of_a_list_is_one_snapshot_in_any_order(seven, monkeypatch, media):
    monkeypatch.setattr(responses, "PAGE_LIMIT", 3)
    monkeypatch.setattr(auth, "guarded", lambda: False)
    asked = []

    def emptied_meanwhile(*args, **parameters):
        rows = [*db.run(*args, **parameters)]
        asked.append(rows)
        if len(asked) == 1:
            seven.empty()
        return iter(rows)

    for path, order in LISTS:
        url = somewhere(path).replace("999999999", "1")
        query = needed("GET", path) | ({"sort": order} if order else {})
        seven.empty()
        seven.fill()
        with monkeypatch.context() as quiet:
            quiet.setattr(responses, "run", db.run)
            calm = APP.test_client().get(url, query_string=query, headers={"Accept": media}).text
        asked.clear()
        with monkeypatch.context() as busy:
            busy.setattr(responses, "run", emptied_meanwhile)
            answer = APP.test_client().get(url, query_string=query, headers={"Accept": media})
            assert answer.text == calm, (path, order)
        assert path.startswith(REPORTS) or len(asked) >= 3, (path, order, calm)
