"""A clock that was set back: what comes later for an object stays later, and what is to be sent is sent."""

import psycopg
import pytest

import db
from db.pool import connect
from tests.test_versions import FEW, NOUNS, Row, deleted, inserted, truncated

HOUR = "interval '1 hour'"


@pytest.fixture(scope="module")
def psql(module_database):
    with psycopg.connect(module_database, autocommit=True) as connection:
        yield connection


def set_back(row):
    """All that was so far was an hour later than the clock says by now."""
    row.run("set session_replication_role = replica")
    row.run(f"update {{noun}} set updated_at = updated_at + {HOUR}, created_at = created_at + {HOUR}")
    row.run(
        f"update history.entries set operation_date = operation_date + {HOUR},"
        f" old_obj = old_obj || jsonb_build_object('updated_at', (old_obj ->> 'updated_at')::timestamptz + {HOUR}),"
        f" new_obj = new_obj || jsonb_build_object('updated_at', (new_obj ->> 'updated_at')::timestamptz + {HOUR})"
    )
    row.run("reset session_replication_role")


def told(row):
    """What history has of a row, in the order in which it was made: (action, version, operation_date)."""
    return row.run(
        "with kind as (select obj_type from history.tracked where relation = '{noun}'::regclass)"
        " select action, version, operation_date from history.entries"
        " where obj_type = (select obj_type from kind) and (obj_id = %s or obj_id is null)"
        " and id >= (select min(id) from history.entries where obj_type = (select obj_type from kind) and obj_id = %s)"
        " order by id",
        row.key,
        row.key,
    ).fetchall()


@pytest.mark.parametrize(
    "noun", [noun if noun in FEW else pytest.param(noun, marks=pytest.mark.thorough) for noun in NOUNS]
)
def test_what_comes_later_for_an_object_has_a_later_date(psql, noun):
    row = Row(psql, noun)
    for change in (
        row.save,
        lambda: deleted(row),
        lambda: inserted(row),
        lambda: truncated(row),
        lambda: inserted(row),
    ):
        set_back(row)
        change()
        row.save()
        dates = [date for *_, date in told(row)]
        assert dates == sorted({*dates}), [action for action, *_ in told(row)]
    for action, version, date in told(row):
        found = row.as_of(date.isoformat())
        assert (found and found[0]) == (None if action in ("delete", "truncate") else version), (action, version)


@pytest.mark.parametrize("end", [deleted, truncated])
def test_what_a_load_brings_back_is_there_from_then_on(psql, end):
    row = Row(psql, "departments")
    end(row)
    set_back(row)
    with psql.transaction():
        psql.execute("set local app.load = 'a load'")
        psql.execute("insert into departments (id, department, version) values (%s, 'anew', 100)", [row.id])
    *_, (ended, _, gone), (_, _, back) = told(row)
    assert back > gone and ended == ("delete" if end is deleted else "truncate")
    assert row.as_of(gone.isoformat()) is None
    assert row.as_of(back.isoformat())[0] == 100
    row.save()
    assert [row.as_of(version)[0] for version in (100, 101)] == [100, 101]


def test_a_table_without_dates_has_them_in_order(psql):
    psql.execute("create table undated (id integer primary key, n integer); select history.track('undated')")
    psql.execute("insert into undated values (1, 1)")
    psql.execute(f"update history.entries set operation_date = operation_date + {HOUR} where obj_type = 'undated'")
    psql.execute("update undated set n = 2; delete from undated; insert into undated values (1, 1)")
    found = psql.execute("select operation_date from history.entries where obj_type = 'undated' order by id").fetchall()
    assert found == sorted({*found}) and len(found) == 4


def test_a_date_that_somebody_made_up_moves_nothing(psql):
    row = Row(psql, "users")
    row.run("set session_replication_role = replica")
    row.run("update users set updated_at = '2999-01-01Z' where id = %s", int(row.id))
    row.run("reset session_replication_role")
    row.save()
    (late,) = row.run("select operation_date > '2900-01-01' from history.entries order by id desc limit 1").fetchone()
    assert not late


# What is to be sent --------------------------------------------------------------------------------------------------


def test_what_is_due_is_sent_whatever_the_clock_said_when_it_was_dated(database):
    with connect(database) as connection:
        connection.execute("insert into events (user_id, description) values ('ann', 'a'), ('bob', 'b'), ('eve', 'c')")
        claimed = [row.event_id for row in db.run(connection, "outbox.claim", limit=10, seconds=60)]
        db.run(connection, "outbox.failed", event_id=claimed[1], seconds=60, most=5, reason="x")
        assert [*db.run(connection, "outbox.claim", limit=10, seconds=60)] == []
        db.run(connection, "outbox.reckon")
        assert [*db.run(connection, "outbox.claim", limit=10, seconds=60)] == [], "the clock was not set back"
        later = ", ".join(f"{date} = {date} + {HOUR}" for date in ("relay_at", "retry_at", "dated_at"))
        connection.execute(f"update outbox set {later}")
        db.run(connection, "outbox.reckon")
        assert [row.event_id for row in db.run(connection, "outbox.claim", limit=10, seconds=60)] == claimed
        found = db.run(connection, "outbox.first", user_ids=["ann", "bob", "eve"], limit=10)
        assert [row.event_id for row in found] == claimed
        assert next(db.run(connection, "outbox.waiting", most=10)).seconds >= 0


def test_a_line_goes_by_the_order_in_which_events_were_queued(database):
    """Ids say when an event was made, by the clock: a later one may be smaller."""
    with connect(database) as connection:
        for number in (3, 1, 2):
            connection.execute(
                "insert into events (id, user_id, description) values ($1::uuid, 'ann', $2)",
                [f"00000000-0000-0000-0000-00000000000{number}", str(number)],
            )
        found = db.run(connection, "outbox.first", user_ids=["ann"], limit=10)
        assert [row.description for row in found] == ["3", "1", "2"]
        claimed = db.run(connection, "outbox.claim", limit=10, seconds=60)
        assert [row.description for row in claimed] == ["3", "1", "2"]
