"""Multiplexed reads: whoever asks gets their own answer or is sent to the pool, whatever happens to the connection."""

import random
import signal
import threading
import time

import gevent
import psutil
import psycopg
import pytest
import requests

from db.pipelines import BATCH, FallBackToPool
from db.queries import Statement
from db.read_pipeline import STATEMENT_TIMEOUT, WAIT, Multiplexer
from tests.conftest import serve, wait_for

TWICE = Statement(
    "test.twice", b"select $1::bigint as id, $1 || ' twice' as text, to_json($1::bigint) as body", ("id",)
)
SLOW = Statement("test.slow", b"select 1 as one from pg_sleep(1)", ())
WRONG = Statement("test.wrong", b"select 1 / $1::integer as one", ())


@pytest.fixture
def shared(database):
    found = Multiplexer(database)
    until(lambda: twice(found, 1))
    yield found
    if found.pipeline and not found.pipeline.lost:
        found.pipeline.lose(OSError("the test is over"))


def until(fact) -> None:
    """Wait until a fact holds, while greenlets work."""
    with gevent.Timeout(20):
        while not fact():
            gevent.sleep(0.01)  # asks again


def twice(shared: Multiplexer, id: int) -> bool:
    """Whether the answer came; it must be the right one."""
    try:
        row = shared.read(TWICE, [id])
    except FallBackToPool:
        return False
    assert (row.id, row.text, row.body) == (id, f"{id} twice", str(id).encode())
    return True


def crowd(shared: Multiplexer, readers: int = 50, reads: int = 200) -> list[int]:
    """How many answers each of so many greenlets got."""

    def read() -> int:
        return sum(twice(shared, random.randint(1, 10**12)) for _ in range(reads))

    found = [gevent.spawn(read) for _ in range(readers)]
    gevent.joinall(found, timeout=60, raise_error=True)
    return [each.value for each in found]


def backends(database: str) -> list[int]:
    with psycopg.connect(database) as connection:
        named = "select pid from pg_stat_activity where application_name = 'rowhouse reads' and datname = %s"
        return [pid for (pid,) in connection.execute(named, [connection.info.dbname])]


def test_each_gets_their_own_answer(shared, database):
    assert crowd(shared) == [200] * 50
    assert len(backends(database)) == 1


def test_no_row_is_none_and_null_is_none(shared):
    assert shared.read(Statement("test.none", b"select 1 as one where false", ()), []) is None
    assert shared.read(Statement("test.null", b"select null::text as one, true as two", ()), []) == (None, True)


def test_an_error_stays_with_its_statement(shared):
    def divide(by: int) -> None:
        with pytest.raises(FallBackToPool):
            shared.read(WRONG, [by])

    wrong = gevent.spawn(divide, 0)
    answered = crowd(shared, 20, 50)
    wrong.get(timeout=5)
    # Whoever was sent together with it, and behind it, is for the pool; nobody else, and nobody twice.
    assert sum(answered) >= 20 * 50 - BATCH
    assert crowd(shared, 20, 50) == [50] * 20
    with pytest.raises(FallBackToPool, match="not fit"):
        shared.read(WRONG, [1])


def test_what_was_not_run_for_anothers_error_is_asked_again(shared):
    """Its statement is still prepared, and as fit as before."""
    twice(shared, 1)
    before = dict(shared.pipeline.prepared)

    def divide() -> None:
        with pytest.raises(FallBackToPool):
            shared.read(WRONG, [0])

    wrong = gevent.spawn(divide)
    behind = [gevent.spawn(twice, shared, id) for id in range(BATCH - 2)]
    gevent.joinall([wrong, *behind], timeout=5, raise_error=True)
    assert [each.value for each in behind] == [False] * (BATCH - 2)
    assert twice(shared, 7)
    assert before.items() <= shared.pipeline.prepared.items()


def test_a_statement_that_was_not_prepared_for_anothers_error_is_prepared_later(shared):
    new = Statement("test.new", b"select $1::bigint as id", ("id",))

    def ask(statement: Statement) -> None:
        with pytest.raises(FallBackToPool):
            shared.read(statement, [0])

    gevent.joinall([gevent.spawn(ask, WRONG), gevent.spawn(ask, new)], timeout=5, raise_error=True)
    assert shared.read(new, [7]) == (7,)


def test_a_slow_statement_is_broken_off_and_left_to_the_pool(shared):
    began = time.monotonic()

    def ask() -> None:
        with pytest.raises(FallBackToPool):
            shared.read(SLOW, [])

    slow = gevent.spawn(ask)
    gevent.sleep(0)
    assert sum(crowd(shared, 10, 10)) >= 10 * 10 - BATCH
    slow.get(timeout=5)
    assert 0.2 < time.monotonic() - began < 3, STATEMENT_TIMEOUT
    began = time.monotonic()
    with pytest.raises(FallBackToPool):
        shared.read(SLOW, [])
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 1.5, None])
def test_what_it_cannot_carry_is_for_the_pool(shared, value):
    with pytest.raises(FallBackToPool):
        shared.read(TWICE, [value])
    assert twice(shared, 7)


def test_it_cannot_write(shared, database):
    write = Statement("test.write", b"insert into jobs (id, job) values (1, 'Cook') returning id", ())
    with pytest.raises(FallBackToPool):
        shared.read(write, [])
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)


def test_a_lost_connection_leaves_nobody_waiting_and_is_made_anew(shared, database):
    readers = gevent.spawn(crowd, shared, 50, 400)
    for _ in range(5):
        gevent.sleep(0.05)  # any moment
        with psycopg.connect(database, autocommit=True) as connection:
            for pid in backends(database):
                connection.execute("select pg_terminate_backend(%s)", [pid])
    assert sum(readers.get(timeout=60)) > 0
    until(lambda: twice(shared, 1))
    assert crowd(shared, 10, 10) == [10] * 10


def test_a_server_that_says_nothing_is_not_waited_for(shared, database):
    (pid,) = backends(database)
    frozen = psutil.Process(pid)
    try:
        frozen.send_signal(signal.SIGSTOP)
    except psutil.AccessDenied:
        pytest.skip("the server belongs to somebody else")
    began = time.monotonic()
    try:
        assert crowd(shared, 10, 1) == [0] * 10
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert time.monotonic() - began < 3 * WAIT
    until(lambda: twice(shared, 1))


def test_a_server_that_is_away_is_not_waited_for():
    away = Multiplexer("postgresql://127.0.0.1:1/nowhere")
    for _ in range(3):
        with pytest.raises(FallBackToPool):
            away.read(TWICE, [1])
        gevent.sleep(0.01)  # any moment


@pytest.mark.thorough
def test_no_request_notices_what_happens_to_the_connections(database):
    """Every answer is right and good while the shared connection is killed again and again."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "insert into users (email, name, address, image) "
            "select 'person' || i || '@example.com', 'P', 'A', 'http://x' from generate_series(1, 200) as i"
        )
    with serve(database, WORKERS="1") as service:
        over, checked = threading.Event(), []

        def read() -> None:
            with requests.Session() as session:
                while not over.is_set():
                    id = random.randint(1, 200)
                    answer = session.get(f"{service.url}/users/{id}", timeout=10)
                    assert answer.status_code == 200, answer.text
                    assert (answer.json()["id"], answer.json()["email"]) == (id, f"person{id}@example.com")
                    checked.append(id)

        readers = [threading.Thread(target=read) for _ in range(8)]
        for reader in readers:
            reader.start()
        try:
            wait_for(lambda: backends(database))
            for _ in range(10):
                time.sleep(0.2)  # any moment
                with psycopg.connect(database, autocommit=True) as connection:
                    for pid in backends(database):
                        connection.execute("select pg_terminate_backend(%s)", [pid])
        finally:
            over.set()
            for reader in readers:
                reader.join(60)
        assert len(checked) > 500
