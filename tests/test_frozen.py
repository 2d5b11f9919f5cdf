"""A database that hangs: it refuses nothing and answers nothing. Every request ends all the same, and says why."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil
import pytest
import requests

from db import private_postgres
from tests.conftest import serve, wait_for

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
    postmaster = psutil.Process(int((directory / "postgres/postmaster.pid").read_text().split()[0]))
    processes = [postmaster, *postmaster.children()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


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
