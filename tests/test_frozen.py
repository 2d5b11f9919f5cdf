"""A database that hangs: it refuses nothing and answers nothing. Every request ends all the same, and says why."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psutil
import psycopg
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus

from db import private_postgres
from tests.conftest import first, serve, stopped, wait_for
from tests.test_changes import EVENTS, changes, told
from tests.test_feed import channel

WITHIN = 25
"""Seconds for each: waits for a connection and for one answer, 1 s and 2 s more, on a busy machine."""

ASKED = [
    ("GET", "/users/1", {}),
    ("GET", "/users?address=main", {}),
    ("GET", "/users", {"headers": {"Accept": "text/csv"}}),
    ("GET", "/projects/1/tree", {}),
    ("GET", "/history", {"headers": {"Accept": "application/x-ndjson"}}),
    ("GET", "/backup/jobs", {}),
    ("GET", "/requirements/quarter?year=2021", {}),
    ("POST", "/users/search", {"json": {"id": 1}}),
    ("POST", "/departments", {"json": {"id": 7, "department": "Seven"}}),
    ("POST", "/departments", {"json": {"id": 8, "department": "Eight"}, "headers": {"Idempotency-Key": "eight"}}),
    ("PATCH", "/users/1", {"json": {"version": 1, "text": "x"}}),
    ("DELETE", "/users/2?version=1", {}),
    ("DELETE", "/users/3?version=1", {"headers": {"Prefer": "respond-async"}}),
    ("POST", "/batch", {"json": {"jobs": [{"id": 1, "job": "One"}]}}),
    ("GET", "/health/ready", {}),
]
"""Each way to the database: the pipelines, the pool, a transaction, a stream, a snapshot, a connection of its own."""


@contextmanager
def frozen(directory):
    """PostgreSQL of this directory stands still within the block."""
    processes = stopped(int((directory / "postgres/postmaster.pid").read_text().split()[0]))
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def looked(service):
    """Seconds since the service last looked for changes, by its metrics; None where nobody listens."""
    lines = service.get("/metrics").text.splitlines()
    at = float(next(line.split()[-1] for line in lines if line.startswith("rowhouse_feed_looked_timestamp_seconds ")))
    return time.time() - at if at < float("inf") else None


def test_it_tells_how_long_ago_it_looked_for_changes(private):
    wait_for(lambda: looked(private) is None)
    assert "feed_seconds" not in private.get("/health/ready").json()
    with channel(private):
        wait_for(lambda: private.get("/health/ready").json()["feed_seconds"] < 0.5)
        wait_for(lambda: looked(private) < 0.5)
        with frozen(private.directory):
            wait_for(lambda: looked(private) > 2)
    wait_for(lambda: private.get("/health/ready").status_code == 200)
    wait_for(lambda: looked(private) is None)


@pytest.mark.thorough
def test_it_tells_so_though_all_who_listened_were_cut_off(private):
    """Until it has looked again: else an alert would go out with the connections."""
    with channel(private) as ws:
        wait_for(lambda: looked(private) < 0.5)
        with frozen(private.directory):
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            wait_for(lambda: looked(private) > 8)
            for _ in range(2):
                assert looked(private) > 8, "somebody tries to come again"
                with suppress(ConnectionClosed, InvalidStatus, OSError), channel(private):
                    pass
    wait_for(lambda: looked(private) is None, 30)


def test_who_listens_is_told_and_misses_nothing(private):
    project = private.post("/projects", json={"name": "Two"}).json()["id"]
    with (
        channel(private, project=project) as ws,
        closing(told(private, EVENTS, project=project)) as events,
    ):
        next(events), next(events)
        with frozen(private.directory):
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert ws.close_code == 1013
            assert not [*changes(events)]
        wait_for(lambda: private.get("/health/ready").status_code == 200)
        made = private.post(f"/projects/{project}/milestones", json={"name": "Missed"}).json()["id"]
        with channel(private, project=project, since=ws.subscribed) as again:
            assert again.listen()["object"]["obj_id"] == made


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    directory = tmp_path_factory.mktemp("frozen") / "data"
    with private_postgres.server(directory) as url, serve(url, STATEMENT_TIMEOUT="2", WORKERS="1") as service:
        service.directory = directory
        service.post("/projects", json={"name": "One"})
        yield service


def asked(service, method, path, options):
    began = time.monotonic()
    answer = requests.request(method, service.url + path, timeout=2 * WITHIN, **options)
    return answer, time.monotonic() - began


def test_every_request_ends_while_the_database_hangs(private):
    for method, path, options in ASKED:  # what is asked for the first time may be found otherwise
        if method == "GET":
            asked(private, method, path, options)
    with frozen(private.directory), ThreadPoolExecutor(len(ASKED)) as crowd:
        alone = requests.get(private.url + "/ping", timeout=5)
        answers = [crowd.submit(asked, private, *each) for each in ASKED]
        found = [answer.result() for answer in answers]
    assert alone.status_code == 200
    for (method, path, _), (answer, seconds) in zip(ASKED, found, strict=True):
        assert answer.status_code in (503, 504), (method, path, answer.text)
        assert seconds < WITHIN, (method, path, seconds)
    wait_for(lambda: private.get("/health/ready").status_code == 200)
    for method, path, options in ASKED:
        answer, _ = asked(private, method, path, options)
        assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.thorough
def test_who_catches_up_is_told(private):
    """In the midst of a long answer, of which the server may take a minute."""
    with channel(private) as ws:
        pass
    private.post("/projects", json={"name": "Three"})
    with psycopg.connect(private.database) as holder:
        holder.execute("lock table history.entries in access exclusive mode")
        with channel(private, since=ws.subscribed) as again, frozen(private.directory):
            with pytest.raises(ConnectionClosed):
                again.recv(WITHIN)
            assert again.close_code == 1013
    wait_for(lambda: private.get("/health/ready").status_code == 200)
    with channel(private, since=ws.subscribed) as again:
        assert again.listen()["object"]["obj_type"] == "project"


AT_LENGTH = [
    ("POST", "/upload/jobs", {"data": b"7,Seven\n", "headers": {"Content-Type": "text/csv"}}),
    ("POST", "/backup/jobs", {}),
    ("POST", "/restore/jobs", {"json": {}}),
]
"""Long work, which the server may take ten minutes for."""


@pytest.mark.parametrize(
    ("method", "path", "options"), first(1, AT_LENGTH), ids=lambda each: each if "/" in str(each) else ""
)
def test_long_work_that_waits_ends_while_the_database_hangs(private, method, path, options):
    """A lock holds it up, so that it is in the midst of a statement."""
    assert private.post("/backup/jobs").status_code == 201
    with psycopg.connect(private.database) as holder, ThreadPoolExecutor(1) as aside:
        holder.execute("lock table jobs in access exclusive mode")
        answer = aside.submit(asked, private, method, path, options)
        waiting = "select count(*) from pg_locks where not granted"
        wait_for(lambda: holder.execute(waiting).fetchone()[0] == 1)
        with frozen(private.directory):
            found, seconds = answer.result()
            assert (found.status_code, seconds < WITHIN) == (503, True), (found.text, seconds)
    wait_for(lambda: private.get("/health/ready").status_code == 200)
    assert private.get("/jobs/7").status_code == 404
