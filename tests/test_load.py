"""The crowd of locustfile.py, sent as README says, to a service that is right, and to some that are not."""

import csv
import os
import subprocess

import psycopg
import pytest

from tests.conftest import ROOT, free_port, make_token, serve
from tests.flask_command import flask

pytestmark = pytest.mark.thorough

ASKED = {
    ("GET", "/users/{id}"),
    ("GET", "/users/{id} unchanged"),
    ("GET", "/users/{id} since it was due"),
    ("GET", "/users?address="),
    ("POST", "/users"),
    ("PATCH", "/users/{id}"),
    ("DELETE", "/users/{id}"),
    ("GET", "/userstories/{id}"),
    ("PATCH", "/userstories/{id}"),
    ("WS", "/ws/events since the PATCH"),
    ("GET", "/projects/{id}/userstories"),
    ("POST", "/upload/departments"),
    ("POST", "/undo"),
    ("POST", "/events"),
    ("POST", "/events until Processed"),
    ("GET", "/events/{id}"),
}
"""What each kind of the crowd asks for, at least once a run."""


@pytest.fixture(scope="module", autouse=True)
def made():
    """The crowd's own environment, as make makes it: Locust and its packages come from an index."""
    done = subprocess.run(["make", ".venv-bench/made"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Locust cannot be installed here: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def crowded(module_database):
    """A service with what the crowd needs, and its token. The notifier runs beside it."""
    assert flask(module_database, "seed", "--users", "2000", "--projects", "1", "--userstories", "1000").returncode == 0
    with psycopg.connect(module_database, autocommit=True) as connection:
        tokens = {role: make_token(connection, role=role) for role in ("reader", "writer")}
    with serve(module_database, NOTIFIER="") as service:
        yield service, tokens


@pytest.fixture
def load(tmp_path):
    def load(host: str, **settings: str) -> tuple[int, str, dict[tuple[str, str], dict[str, str]]]:
        """The exit status of `make load`, what it said, and the figures of its report by method and name."""
        report = tmp_path / "report"
        told = {"HOST": host, "TIME": "6s", "USERS": "20", "REPORT": str(report)} | settings
        command = ["make", "--no-print-directory", "load", *(f"{name}={value}" for name, value in told.items())]
        # Not as a part of the make that runs the tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if not report.exists():
            return ran.returncode, ran.stdout + ran.stderr, {}
        assert "<html" in (report / "report.html").read_text()
        with (report / "requests.csv").open() as file:
            rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}
        return ran.returncode, ran.stdout + ran.stderr, rows

    return load


def counted(database: str) -> list[tuple[int]]:
    tables = ("users", "userstories", "departments")
    with psycopg.connect(database) as connection:
        return [connection.execute(f"select count(*) from {table}").fetchone() for table in tables]


def test_the_crowd_asks_for_all_and_leaves_what_was_there(crowded, load):
    service, tokens = crowded
    before = counted(service.database)
    status, said, rows = load(service.url, TOKEN=tokens["writer"])
    assert status == 0, said
    assert {key for key, row in rows.items() if key[1] != "Aggregated"} == ASKED, said
    assert {row["Failure Count"] for row in rows.values()} == {"0"}
    assert counted(service.database) == before


def test_one_kind_alone_needs_no_more_than_to_read(crowded, load):
    service, tokens = crowded
    kinds = ("SEARCHERS", "EDITORS", "BOARDS", "WRITERS", "UPLOADERS", "NOTIFIERS", "LISTENERS", "OPEN")
    status, said, rows = load(service.url, TOKEN=tokens["reader"], TIME="3s", **dict.fromkeys(kinds, "0"))
    assert status == 0, said
    assert {name for _, name in rows} == {"/users/{id}", "/users/{id} unchanged", "Aggregated"}


def test_readers_at_a_constant_rate_ask_as_often_whatever_the_answers_take(crowded, load):
    service, tokens = crowded
    kinds = ("READERS", "SEARCHERS", "EDITORS", "BOARDS", "WRITERS", "UPLOADERS", "NOTIFIERS", "LISTENERS")
    settings = dict.fromkeys(kinds, "0") | {"RATE": "50", "TIME": "6s", "USERS": "2"}
    status, said, rows = load(service.url, TOKEN=tokens["reader"], **settings)
    assert status == 0, said
    assert 150 <= int(rows["GET", "/users/{id} since it was due"]["Request Count"]) <= 310


def test_what_is_too_slow_or_fails_too_often_is_said_and_is_the_exit_status(crowded, load):
    service, tokens = crowded
    status, said, _ = load(service.url, TOKEN=tokens["writer"], TIME="3s", MAX_P95="0.1")
    assert (status, "GET /users/{id}: 95 % within" in said) == (2, True), said


def test_failures_of_one_kind_are_one_line(database, load):
    """However many there are, and whatever else each of them says."""
    assert flask(database, "seed", "--users", "100", "--projects", "1", "--userstories", "1000").returncode == 0
    with psycopg.connect(database, autocommit=True) as connection:
        token = make_token(connection, role="writer")
    with serve(database, RATE_LIMIT="20") as service:
        status, said, rows = load(service.url, TOKEN=token, TIME="3s", MAX_FAILURES="0.5")
        assert status == 2, said
        assert int(rows["", "Aggregated"]["Failure Count"]) > 50
        assert "% failed, not 0.5 %" in said
        assert said.count("/problems/too-many-requests") <= len(ASKED), said


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"TOKEN": ""}, "{host} wants a token: make load TOKEN=…, made by flask token create"),
        ({"TOKEN": "rh_wrong"}, "{host} wants a good token: make load TOKEN=…, made by flask token create"),
        (
            {"TOKEN": "reader"},
            "TOKEN may not do that: the crowd needs one with the role writer, of no project (/events).",
        ),
        ({"HOST": "nobody"}, "Nothing answers at {host}: [Errno 111] Connection refused. Start it: make run"),
        ({"HOST": "127.0.0.1"}, "What is at 127.0.0.1 is not this service."),
        ({"RATE": "fast"}, "RATE=fast must be a number."),
    ],
)
def test_why_there_is_no_load_is_said_in_a_line(crowded, load, settings, why):
    service, tokens = crowded
    host = {"": service.url, "nobody": f"http://127.0.0.1:{free_port()}"}.get(settings.get("HOST", ""), "127.0.0.1")
    token = settings.get("TOKEN", "writer")
    status, said, rows = load(host, **settings | {"TOKEN": tokens.get(token, token), "HOST": host})
    assert (status, rows) == (2, {})
    assert said.splitlines()[0] == why.format(host=host)
    assert [line for line in said.splitlines()[1:] if not line.startswith("make:")] == []


def test_without_people_or_stories_one_is_told_how_to_make_them(database, load):
    make = 'make seed ARGS="--users 100000 --projects 1 --userstories 1000"'
    with serve(database) as service:
        assert load(service.url)[1].splitlines()[0] == f"There are no people: {make}"
        assert flask(database, "seed", "--users", "10").returncode == 0
        assert load(service.url)[1].splitlines()[0] == f"No project has 1000 stories: {make}"
