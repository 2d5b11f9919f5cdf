"""The months' partitions of history: made while the service runs, keeping nobody waiting, and no feed loses by it."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest

import db
from db import partitions, schema
from db.feed import Cursor, Feed, Subscription, asked
from db.pool import connect
from handlers.messages.notifier import notify
from handlers.messages.senders import by_line
from tests.conftest import first, serve, wait_for
from tests.test_users import person

ENTRY = (
    "insert into history.entries (operation_date, obj_type, obj_id, action, actor)"
    " values ({date}, 'thing', '1', 'create', 'x') returning id"
)
LEFT = "select count(*) from history.entries_default"
ALL = "select id, xid::text, operation_date, obj_id, version, old_obj, new_obj from history.entries order by id"
MONTHS_AGO = "date_trunc('month', now(), 'UTC') - interval '{} months'"


@pytest.fixture
def psql(database):
    with connect(database) as connection:
        yield connection


def put(connection, date):
    """An entry as a trigger would write it while the clock says so."""
    return connection.execute(ENTRY.format(date=date)).fetchone()[0]


def left(connection):
    return connection.execute(LEFT).fetchone()[0]


def months(connection):
    found = connection.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'history.entries'::regclass"
    )
    return {name.removeprefix("history.entries_") for (name,) in found}


def drop_months(connection):
    """As at the turn of a month for which nobody made a partition."""
    for name in months(connection) - {"default"}:
        connection.execute(f"drop table history.entries_{name}")


@contextmanager
def reading(database):
    """A long reader: it holds what pg_dump does."""
    with psycopg.connect(database) as connection:
        connection.execute("lock table history.entries in access share mode")
        yield connection


class Place:
    """Where a reader of the feed is, and how often it saw each entry."""

    def __init__(self, connection):
        self.connection, self.seen = connection, Counter()
        self.cursor = Cursor("", next(db.run(connection, "feed.present")).snapshot)

    def read(self):
        present = next(db.run(self.connection, "feed.present", since=self.cursor.snapshot))
        asking = self.cursor._replace(until=present.snapshot)
        rows = [*db.run(self.connection, "feed.changes", **asked(asking, present.dated_from))]
        self.seen.update(row.id for row in rows)
        self.cursor = Cursor("", present.snapshot)
        return present.dated_from, [row.id for row in rows]


@pytest.fixture
def years(psql):
    """A database with the partitions of two years, of which all but this month's and those to come are closed."""
    for month in range(1, 25):
        psql.execute(f"select history.create_partitions(0, {MONTHS_AGO.format(month)})")
    psql.execute("select history.close_partitions(now() + interval '1 day')")
    return psql


# Made in time --------------------------------------------------------------------------------------------------------


def test_150_days_on_without_a_start_all_that_fell_into_the_default_is_in_its_month(database, psql, monkeypatch):
    place = Place(psql)
    monkeypatch.setattr(partitions, "EVERY", 0.1)
    stop = threading.Event()
    days = threading.Thread(target=notify, args=(database, "", "", by_line, [1], stop))
    with psql.transaction():
        made = [put(psql, f"now() + interval '{day} days'") for day in range(0, 151, 5)]
    before = psql.execute(ALL).fetchall()
    assert left(psql) > 5
    days.start()
    try:
        wait_for(lambda: not left(psql))
        late = put(psql, "now() + interval '400 days'")
        wait_for(lambda: not left(psql))
    finally:
        stop.set()
        days.join(10)
    assert psql.execute(ALL).fetchall()[: len(before)] == before
    place.read()
    assert place.seen == Counter([*made, late])


def test_months_are_made_before_they_begin(psql):
    psql.execute("select history.create_partitions(at => '2031-11-30T23:59:59Z')")
    assert {"2031_11", "2031_12", "2032_01", "2032_02"} <= months(psql)
    assert not {"2031_10", "2032_03"} & months(psql)
    assert psql.execute("select history.create_partitions(at => '2031-12-01Z')").fetchall() == [("entries_2032_03",)]
    assert psql.execute("select history.create_partitions(at => '2031-12-01Z')").fetchall() == []


LOOKS = """
    select
        array(select pg_get_indexdef(indexrelid) from pg_index where indrelid = c.oid order by 1),
        array(select conname || pg_get_constraintdef(oid) from pg_constraint where conrelid = c.oid order by 1),
        c.relacl::text
    from pg_class as c
    where c.oid = $1::regclass
"""


def test_a_partition_that_was_made_is_like_any_other(psql):
    within = "for values from ('2001-01-01Z') to ('2001-02-01Z')"
    psql.execute(f"create table history.entries_2001_01 partition of history.entries {within}")
    psql.execute("select history.create_partitions(0, '2031-11-30Z')")
    made, other = (str(psql.execute(LOOKS, [f"history.entries_{name}"]).fetchone()) for name in ("2031_11", "2001_01"))
    assert made.replace("2031_11", "2001_01") == other


@pytest.mark.parametrize("date", ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'12000-01-01'"])
def test_what_no_month_can_be_made_for_stays_and_stops_nothing(psql, date):
    put(psql, date)
    put(psql, "'2040-05-05Z'")
    partitions.create(psql)
    assert left(psql) == 1
    assert "2040_05" in months(psql)


# Without keeping anybody waiting -------------------------------------------------------------------------------------


def posts(service, done):
    """Seconds of each POST, until told to stop; all are answered 201."""
    took = []
    while not done.is_set():
        began = time.monotonic()
        answer = service.post("/users", json=person(f"user{time.monotonic_ns()}"))
        took.append(time.monotonic() - began)
        assert answer.status_code == 201, answer.text
    return took


@pytest.mark.thorough
def test_a_start_beside_a_long_reader_keeps_no_writer_waiting(database, psql):
    drop_months(psql)
    done = threading.Event()
    with serve(database) as service, ThreadPoolExecutor(1) as pool:
        drop_months(psql)
        with reading(database):
            took = pool.submit(posts, service, done)
            try:
                assert schema.migrate(database) == []
                with serve(database):
                    pass
            finally:
                done.set()
            assert max(took.result()) < 1.5
        assert left(psql)
        partitions.create(psql)
        assert not left(psql)


def test_writers_and_readers_notice_nothing_while_entries_go_to_their_month(database, psql):
    drop_months(psql)
    psql.execute("create table things (id integer primary key, n integer, version integer default 1)")
    psql.execute("select history.track('things', 'thing')")
    psql.execute("insert into things select i, 0 from generate_series(1, 8) as i")
    done = threading.Event()

    def write(id):
        with psycopg.connect(database, autocommit=True) as connection:
            times = 0
            while not done.is_set():
                connection.execute("update things set n = n + 1 where id = %s", [id])
                times += 1
            return times

    def count():
        with psycopg.connect(database, autocommit=True) as connection:
            counted = [0]
            while not done.is_set():
                counted += connection.execute("select count(*) from history.entries").fetchone()
            return counted

    def follow():
        with connect(database) as connection:
            place = Place(connection)
            started.set()
            while not finished.is_set():
                place.read()
            place.read()
            return place.seen

    started, finished = threading.Event(), threading.Event()
    with ThreadPoolExecutor(10) as pool:
        seen = pool.submit(follow)
        assert started.wait(10)
        writers = [pool.submit(write, id) for id in range(1, 9)]
        counts = pool.submit(count)
        try:
            for _ in range(5):
                wait_for(lambda: left(psql) > 50)
                tried = time.monotonic()
                while left(psql):
                    with suppress(psycopg.errors.LockNotAvailable):
                        partitions.create(psql)
                    assert time.monotonic() - tried < 20
                psql.execute("begin; lock table history.entries in access exclusive mode")
                for name in months(psql) - {"default"}:
                    psql.execute(f"alter table history.entries detach partition history.entries_{name}")
                    psql.execute(f"insert into history.entries select * from history.entries_{name}")
                    psql.execute(f"drop table history.entries_{name}")
                psql.execute("commit")
        finally:
            done.set()
            wait(writers)
            finished.set()
        times = sum(writer.result() for writer in writers)
        assert counts.result() == sorted(counts.result())
    assert psql.execute("select count(*) from history.entries where action = 'update'").fetchone() == (times,)
    ids = psql.execute("select id from history.entries where action = 'update'").fetchall()
    assert seen.result() == Counter(id for (id,) in ids)


def test_one_of_several_makes_them(database, psql):
    drop_months(psql)

    def make(_):
        with connect(database) as connection:
            return partitions.create(connection)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(len(names) for names in pool.map(make, range(4)))[-1] == len(months(psql)) - 1 == 4


# What is recent ------------------------------------------------------------------------------------------------------


READ = "select relname from pg_stat_xact_user_tables where schemaname = 'history' and idx_scan + seq_scan > 0"
WRITES = """
    select c.relname
    from pg_locks as l
    join pg_class as c on c.oid = l.relation and c.relkind = 'r'
    where l.pid = pg_backend_pid()
        and l.mode = 'RowExclusiveLock'
"""


def months_of(connection, statement):
    return {name.split("entries_")[1] for (name,) in connection.execute(statement) if "entries_20" in name}


def test_the_feed_asks_no_month_that_is_over(database, years):
    with connect(database) as connection:
        place = Place(connection)
        made = put(years, "now()")
        with connection.transaction():
            assert place.read()[1] == [made]
            assert len(months_of(connection, READ)) < 6


def test_an_idle_feed_asks_no_month_at_all(database, years, monkeypatch):
    feed, subscription = Feed(database, str.encode, lambda _: None), Subscription(None, lambda _: None)
    monkeypatch.setattr(db, "streamed", lambda *_, **__: pytest.fail("it asked"))
    feed.joining.add(subscription)
    for _ in range(3):
        feed.tick(years)
    assert subscription.place.snapshot


def test_a_load_asks_and_locks_no_month_that_is_over(database, years):
    with connect(database) as connection, connection.transaction():
        connection.execute("set local app.load = 'a load'")
        for id in (1, 2):
            connection.execute(f"insert into departments (id, department) values ({id}, 'name {id}')")
        assert len(months_of(connection, READ)) < 6
        assert len(months_of(connection, WRITES)) < 6
    told = years.execute("select new_obj ->> 'rows' from history.entries where obj_type = 'department'")
    assert told.fetchall() == [("2",)]


def test_what_comes_to_a_month_that_is_over_is_told_all_the_same(years):
    """A clock that was set back by years, or a gap among the partitions, also once it is filled."""
    place = Place(years)
    for date in (MONTHS_AGO.format(20), MONTHS_AGO.format(500), "now()", "now() + interval '9 years'"):
        for _ in range(2):
            made = put(years, date)
            assert place.read()[1] == [made]
            years.execute("select history.create_partitions()")
            assert place.read()[1] == []
    assert place.read()[0] > "2020"


def test_a_month_is_not_closed_while_somebody_writes_to_it(database, psql):
    place = Place(psql)
    later = "now() + interval '90 days'"
    with psycopg.connect(database) as writer:
        made = put(writer, "now()")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            psql.execute(f"select history.close_partitions({later})")
        assert place.read() == ("-infinity", [])
        other = put(psql, "now()")
        assert place.read()[1] == [other]
    assert place.read()[1] == [made]
    psql.execute(f"select history.close_partitions({later})")
    with psycopg.connect(database) as writer:
        late = put(writer, "now()")
        assert place.read()[1] == []
        assert place.read()[0] > "2020"
    assert place.read()[1] == [late]


def test_a_cursor_of_before_a_month_was_closed_resumes(psql):
    places, ids = [], []
    for days in (0, 40, 80):
        places.append(Place(psql))
        ids.append(put(psql, f"now() + interval '{days} days'"))
        psql.execute(f"select history.close_partitions(now() + interval '{days + 35} days')")
        for number, place in enumerate(places):
            place.read()
            assert sorted(place.seen) == ids[number:], days
            assert place.read()[0] > "2020"


DATES = (
    "now()",
    "now()",
    "now() + interval '35 days'",
    "now() + interval '70 days'",
    "now() + interval '150 days'",
    "now() + interval '9 years'",
    "now() - interval '40 days'",
    MONTHS_AGO.format(7),
    MONTHS_AGO.format(300),
)


@pytest.mark.parametrize("seed", first(1, range(6)))
def test_nothing_is_missed_or_told_twice_whatever_the_dates_and_however_long_transactions_run(database, years, seed):
    """Dates from all over, transactions that end in any order or not at all, months made, filled and closed between."""
    chance = random.Random(seed)
    written, committed = {}, []
    with ExitStack() as ends:
        writers = [ends.enter_context(psycopg.connect(database)) for _ in range(5)]
        places = [Place(years)]
        for _ in range(250):
            deed = chance.random()
            writer = chance.choice(writers)
            if deed < 0.45:
                written.setdefault(writer, []).append(put(writer, chance.choice(DATES)))
            elif deed < 0.55:
                committed += written.pop(writer, [])
                writer.commit()
            elif deed < 0.6:
                written.pop(writer, None)
                writer.rollback()
            elif deed < 0.63:
                later = f"now() + interval '{chance.choice((0, 33, 66, 200))} days'"
                with suppress(psycopg.errors.LockNotAvailable):
                    years.execute(
                        f"select history.{chance.choice(('close_partitions(', 'create_partitions(at => '))}{later})"
                    )
            elif deed < 0.66:
                places.append(Place(years))
                places[-1].seen.update(committed)
            else:
                chance.choice(places).read()
        for writer in writers:
            committed += written.pop(writer, [])
            writer.commit()
    while years.execute("select history.create_partitions()").fetchall():
        pass
    years.execute("select history.close_partitions(now() + interval '200 days')")
    for place in places:
        place.read()
        assert place.seen == Counter(committed)
    assert not left(years)


def test_what_was_pruned_leaves_no_late_entries(years):
    place = Place(years)
    put(years, MONTHS_AGO.format(20))
    years.execute("select history.prune(now() - interval '2 months')")
    assert years.execute("select count(*) from history.late_entries").fetchone() == (0,)
    feed = next(db.run(years, "feed.present")).feed
    assert next(db.run(years, "feed.lost", feed=feed, since=place.cursor.snapshot)).reason
