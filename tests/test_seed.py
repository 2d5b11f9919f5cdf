"""Sample data: the same for the same numbers, in a real tracker's proportions, taken up where it was broken off."""

import os
import signal
import subprocess
import sys

import psycopg
import pytest

from tests.conftest import ROOT, clone, drop, wait_for
from tests.flask_command import flask

TABLES = ("users", "projects", "milestones", "userstories", "tasks", "comments")

DIGEST = "select md5(string_agg(t::text, '|' order by t.id)) from {} as t"


def command(database, *options):
    return [sys.executable, "-m", "flask", "--app", "app", "seed", *options], os.environ | {"DATABASE_URL": database}


def seed(database, *options):
    return flask(database, "seed", *options)


def ask(database, query):
    with psycopg.connect(database) as connection:
        return connection.execute(query).fetchall()


def digests(database):
    return [ask(database, DIGEST.format(table)) for table in TABLES]


@pytest.fixture
def databases(server, template):
    names = [clone(server, template) for _ in range(2)]
    yield [psycopg.conninfo.make_conninfo(server, dbname=name) for name in names]
    for name in names:
        drop(server, name)


NUMBERS = ("--users", "300", "--projects", "3", "--userstories", "100")


def test_the_same_numbers_make_the_same_rows(databases):
    for database in databases:
        assert seed(database, *NUMBERS).returncode == 0
    assert digests(databases[0]) == digests(databases[1])
    assert seed(databases[0], *NUMBERS).returncode == 0, "again, which changes nothing"
    assert digests(databases[0]) == digests(databases[1])


def test_another_seed_makes_other_rows(databases):
    seed(databases[0], "--users", "50", "--seed", "1")
    seed(databases[1], "--users", "50", "--seed", "2")
    assert digests(databases[0])[0] != digests(databases[1])[0]


def test_there_is_as_much_as_was_asked_for_in_the_proportions_of_a_tracker(database):
    assert seed(database, *NUMBERS).returncode == 0
    count = {table: ask(database, f"select count(*) from {table}")[0][0] for table in TABLES}
    assert (count["users"], count["projects"], count["milestones"], count["userstories"]) == (300, 3, 30, 100)
    assert 400 <= count["tasks"] <= 600
    assert 400 <= count["comments"] <= 600
    refs = ask(database, "select project_id, array_agg(ref order by id) from userstories group by 1 order by 1")
    assert [refs for _, refs in refs] == [[*range(1, 35)], [*range(1, 34)], [*range(1, 34)]]
    assert {ref for (ref,) in ask(database, "select last_ref from project_refs")} == {33, 34}
    assert ask(database, "select 1 from projects as p cross join history.replay(p.id)") == []


@pytest.mark.thorough
def test_more_may_be_asked_for_later(databases):
    seed(databases[0], "--users", "100", "--projects", "1", "--userstories", "20")
    seed(databases[0], "--users", "100", "--projects", "1", "--userstories", "50")
    seed(databases[1], "--users", "100", "--projects", "1", "--userstories", "50")
    stories = "select array_agg((ref, subject, tags, points)::text order by ref) from userstories"
    assert ask(databases[0], stories) == ask(databases[1], stories)


@pytest.mark.thorough
def test_a_run_that_is_broken_off_leaves_whole_slices_and_is_taken_up(database):
    options = ("--users", "200", "--projects", "2", "--userstories", "4000")
    arguments, environment = command(database, *options)
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Whoever runs the tests in the background may have told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: ask(database, "select 1 from userstories limit 1"))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 1
    assert ask(database, "select count(*) from userstories")[0][0] % 500 == 0
    assert seed(database, *options).returncode == 0
    assert ask(database, "select count(*) from userstories") == [(4000,)]
    without = "select 1 from userstories as s where not exists (select from tasks as t where t.userstory_id = s.id)"
    assert ask(database, without) == []


def test_people_loaded_in_bulk_are_one_entry_a_slice(database):
    seed(database, "--users", "15000")
    loads = ask(database, "select new_obj ->> 'rows' from history.entries where obj_type = 'user' order by id")
    assert loads == [("10000",), ("5000",)]


def test_without_numbers_the_demonstration_is_put_in(database):
    assert seed(database).stdout == "The demonstration is in.\n"
    assert ask(database, "select count(*) from users") == [(5,)]


def test_no_people_are_no_people(database):
    assert seed(database, "--users", "0").returncode == 0
    assert seed(database, "--users", "0", "--projects", "1", "--userstories", "10").returncode == 0
    assert ask(database, "select count(*) from users") == [(0,)]
    assert ask(database, "select count(*), count(owner_id) from projects") == [(1, 0)]
    assert ask(database, "select count(*), count(assigned_to) from userstories") == [(10, 0)]


def test_each_slice_of_projects_is_there_with_its_milestones(database):
    assert seed(database, "--projects", "700", "--userstories", "0").returncode == 0
    assert ask(database, "select count(distinct xid) from history.entries where obj_type = 'project'") == [(2,)]
    assert ask(database, "select count(*) from milestones") == [(7000,)]


@pytest.mark.parametrize(
    "options",
    [
        ("--users", "-1"),
        ("--users", "10000001"),
        ("--users", "many"),
        ("--userstories", "5"),
        ("--rows", "5"),
        ("--seed", "9223372036854775807", "--users", "5"),
        ("--seed", "-1", "--users", "5"),
    ],
)
def test_what_cannot_be_seeded_is_refused(module_database, options):
    refused = seed(module_database, *options)
    assert refused.returncode == 2
    assert "Error: " in refused.stderr
    assert ask(module_database, "select count(*) from users") == [(0,)]
