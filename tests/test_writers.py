"""Writers: a change is done once or not at all, told to history, and acknowledged after its commit."""

import random
from contextlib import suppress

import gevent
import psycopg
import pytest

from db.pipelines import FallBackToPool
from db.queries import STATEMENTS, Statement
from db.write_pipelines import PIPELINES, Writers

ADD = Statement("test.add", b"insert into jobs (id, job) values ($1::integer, $2) returning id, job", ("id", "job"))
RENAME = Statement("test.rename", b"update jobs set job = $2 where id = $1::integer returning id", ("id", "job"))
ACTOR = ("Ann", "request 7")


@pytest.fixture
def writers(database):
    found = Writers(database, statement_timeout=5)
    while len(found.free) < PIPELINES:
        busy = [found.free.pop() for _ in [*found.free]]
        with pytest.raises(FallBackToPool):
            found.take()
        with gevent.Timeout(20):
            while found.opener.opening:
                gevent.sleep(0.01)  # asks again
        found.free += busy
    yield found
    for pipeline in found.free:
        pipeline.lose(OSError("the test is over"))


@pytest.fixture
def connection(database):
    with psycopg.connect(database, autocommit=True) as found:
        yield found


def test_a_change_answers_with_its_row_once_it_is_committed(writers, connection):
    assert writers.write(ADD, [1, "Cook"], ACTOR) == (1, "Cook")
    assert connection.execute("select id, job from jobs").fetchall() == [(1, "Cook")]


def test_what_finds_no_row_is_none(writers):
    assert writers.write(RENAME, [1, "Cook"], ACTOR) is None


def test_history_knows_who_acted_and_nobody_acts_for_the_next(writers, connection):
    writers.free = writers.free[:1]
    connection.execute("insert into jobs (id, job) values (1, 'Cook')")
    writers.write(RENAME, [1, "Chef"], ACTOR)
    writers.write(RENAME, [1, "Baker"], ("Bob", "request 8"))
    told = connection.execute("select actor, request_id from history.entries where action = 'update' order by id")
    assert told.fetchall() == [ACTOR, ("Bob", "request 8")]


def test_an_error_is_psycopgs_and_leaves_the_line_usable(writers, connection):
    writers.write(ADD, [1, "Cook"], ACTOR)
    for _ in range(2 * PIPELINES):
        with pytest.raises(psycopg.errors.UniqueViolation) as raised:
            writers.write(ADD, [1, "Cook"], ACTOR)
        assert raised.value.diag.constraint_name == "jobs_pkey"
    assert len(writers.free) == PIPELINES
    assert writers.write(ADD, [2, "Baker"], ACTOR) == (2, "Baker")


def test_a_commit_that_fails_is_no_success(writers, connection):
    connection.execute("""
        create function refuse() returns trigger language plpgsql as $$ begin raise check_violation; end $$;
        create constraint trigger late after insert on jobs deferrable initially deferred
            for each row execute function refuse()
    """)
    with pytest.raises(psycopg.errors.CheckViolation):
        writers.write(ADD, [1, "Cook"], ACTOR)
    assert connection.execute("select count(*) from jobs").fetchone() == (0,)
    assert writers.write(RENAME, [1, "Cook"], ACTOR) is None


def test_a_plan_of_another_day_is_for_the_pool_and_made_anew(writers, connection):
    returning = Statement(
        "test.all", b"insert into jobs (id, job) values ($1::integer, 'Cook') returning jobs", ("id",)
    )
    writers.free = writers.free[:1]
    assert writers.write(returning, [1], ACTOR)
    connection.execute("alter table jobs add column level integer")
    try:
        writers.write(returning, [2], ACTOR)
    except FallBackToPool:
        assert connection.execute("select count(*) from jobs where id = 2").fetchone() == (0,)
    assert writers.write(returning, [3], ACTOR)


def until_waiting(connection, writers: int) -> None:
    """Wait until so many wait for a lock, while greenlets work."""
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'rowhouse writes' and wait_event_type = 'Lock'"
    )
    with gevent.Timeout(20):
        while connection.execute(waiting).fetchone() != (writers,):
            gevent.sleep(0.01)  # asks again


def test_one_that_waits_for_a_lock_holds_up_no_other(writers, connection):
    writers.write(ADD, [1, "Cook"], ACTOR)
    with psycopg.connect(writers.opener.dsn) as locking:
        locking.execute("select from jobs where id = 1 for update")
        waiting = [gevent.spawn(writers.write, RENAME, [1, "Chef"], ACTOR) for _ in range(PIPELINES - 1)]
        until_waiting(connection, PIPELINES - 1)
        assert [writers.write(ADD, [id, "Baker"], ACTOR).id for id in range(2, 50)] == [*range(2, 50)]
        # With all pipelines waiting, the pool is asked; soon, and nothing was done.
        waiting.append(gevent.spawn(writers.write, RENAME, [1, "Chef"], ACTOR))
        until_waiting(connection, PIPELINES)
        with gevent.Timeout(1), pytest.raises(FallBackToPool):
            writers.write(ADD, [99, "Baker"], ACTOR)
    gevent.joinall(waiting, timeout=10, raise_error=True)
    assert connection.execute("select count(*) from jobs where id = 99").fetchone() == (0,)


def test_a_lock_that_does_not_come_is_not_waited_for(writers, connection):
    writers.write(ADD, [1, "Cook"], ACTOR)
    with psycopg.connect(writers.opener.dsn) as locking:
        locking.execute("select from jobs where id = 1 for update")
        with gevent.Timeout(10), pytest.raises(psycopg.errors.LockNotAvailable):
            writers.write(RENAME, [1, "Chef"], ACTOR)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", b"bytes", None])
def test_what_a_line_cannot_carry_is_for_the_pool(writers, value):
    with pytest.raises(FallBackToPool):
        writers.write(ADD, [1, value], ACTOR)
    assert len(writers.free) == PIPELINES


def test_what_was_acknowledged_is_there_once_whatever_is_killed(writers, connection):
    done, over = [], []

    def write(numbers: range) -> None:
        for id in numbers:
            if over:
                return
            try:
                done.append(writers.write(ADD, [id, "Cook"], ACTOR).id)
            except FallBackToPool:
                gevent.sleep(0.001)  # asks again
            except psycopg.OperationalError:  # nobody knows
                pass

    clients = [gevent.spawn(write, range(start, 10**9, 8)) for start in range(1, 9)]
    for _ in range(10):
        gevent.sleep(random.uniform(0.02, 0.2))  # any moment
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'rowhouse writes' and datname = current_database()"
        )
    over.append(True)
    gevent.joinall(clients, timeout=30, raise_error=True)
    there = {id for (id,) in connection.execute("select id from jobs")}
    assert len(done) > 100
    assert len(set(done)) == len(done)
    assert set(done) <= there


def test_every_changing_statement_can_be_carried(writers):
    """That the service's own statements can be prepared on a pipeline, with the rights it has."""
    for name in ("users.create", "events.create", "userstories.change", "tasks.remove"):
        statement = STATEMENTS[name]
        values = ["{}" if parameter == "body" else "1" for parameter in statement.parameters]
        with suppress(psycopg.errors.IntegrityError, psycopg.errors.DataError):
            writers.write(statement, values, ACTOR)
