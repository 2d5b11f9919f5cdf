"""A real PostgreSQL, a real service, and small words to speak to both."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import psycopg
import pytest
import requests
from psycopg import Connection, conninfo, sql

from db import private_postgres, schema

ROOT = Path(__file__).parent.parent
TEMPLATE = f"rowhouse_test_{os.getpid()}"

numbers = count(1)

QUICK = {"test_accept", "test_access", "test_backups", "test_csvfile", "test_house", "test_lean", "test_openapi"}
QUICK |= {"test_refusals", "test_sql"}
"""Modules of which `make quick` runs what needs no PostgreSQL: laws, parsers, fields and files."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        thorough = item.get_closest_marker("thorough")
        if item.path.stem in QUICK and "server" not in item.fixturenames and not thorough:
            item.add_marker("quick")


class Service:
    """A running service: `service.get("/users/1")` answers with requests' Response."""

    def __init__(self, url: str, database: str) -> None:
        self.url, self.database = url, database
        self.session = requests.Session()

    def request(self, method: str, path: str, **options: object) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=30, **options)

    def raw(self) -> socket.socket:
        """A connection to say what no client would."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), 15)

    def get(self, path: str, **options: object) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: object) -> requests.Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: object) -> requests.Response:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: object) -> requests.Response:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: object) -> requests.Response:
        return self.request("DELETE", path, **options)


def wait_for(fact: Callable[[], object], within: float = 20) -> None:
    """Wait until a fact holds; fail if it does not within so many seconds."""
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)  # asks again


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/ready", timeout=5).status_code == 200
    except (requests.ConnectionError, requests.Timeout):
        return False


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL to make databases on: DATABASE_URL's, or a private one."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as directory, private_postgres.server(Path(directory)) as url:
        yield url


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """An up-to-date database that others are cloned from."""
    schema.create_database(server, TEMPLATE)
    schema.migrate(conninfo.make_conninfo(server, dbname=TEMPLATE))
    yield TEMPLATE
    drop(server, TEMPLATE)


def drop(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def clone(server: str, template: str) -> str:
    name = f"{template}_{next(numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return name


@contextmanager
def cloned(server: str, template: str) -> Iterator[str]:
    """The address of a database like another, for as long as the block lasts."""
    name = clone(server, template)
    try:
        yield conninfo.make_conninfo(server, dbname=name)
    finally:
        drop(server, name)


def make_token(connection: Connection, name: str = "", role: str = "admin", project: int | None = None) -> str:
    """A token, made as `flask token create` does, only faster."""
    secret = f"rh_{os.urandom(16).hex()}"
    connection.execute(
        "insert into tokens (name, role, sha256, project) values (%s, %s, %s, %s)",
        [name or secret, role, hashlib.sha256(secret.encode()).hexdigest(), project],
    )
    return secret


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """The address of a database of the test's own."""
    with cloned(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database(server: str, template: str) -> Iterator[str]:
    """The address of a database that the tests of a module share."""
    with cloned(server, template) as url:
        yield url


@pytest.fixture(scope="session")
def service(server: str, template: str) -> Iterator[Service]:
    """A service that all tests share: each makes what it needs, under names of its own."""
    with cloned(server, template) as url, serve(url, WORKERS="2") as found:
        yield found


class serve:
    """A service on a database, by gunicorn as in earnest, for as long as the block lasts. Its log is in `log`."""

    within = 60.0
    """Seconds in which it must come up."""

    def __init__(self, database: str, **settings: str) -> None:
        self.database, self.port = database, free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="rowhouse-")
        self.log = Path(self.directory.name) / "log"
        self.environment = os.environ | {
            "DATABASE_URL": database,
            "DATA_DIR": self.directory.name,
            "PORT": str(self.port),
            "WORKERS": "1",
            "NOTIFIER": "no",
            **settings,
        }

    def __enter__(self) -> Service:
        command = [sys.executable, "-m", "gunicorn"]
        url = f"http://127.0.0.1:{self.port}"
        self.service = Service(url, self.database)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(lambda: answers(url) or self.process.poll() is not None, self.within)
            assert self.process.poll() is None, self.log.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self.service

    def __exit__(self, *_: object) -> None:
        """End it, and whatever of it does not end by itself."""
        self.service.session.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.directory.cleanup()


def shown_by_psql(service: Service, statement: str, **variables: object) -> str:
    """What psql prints for a named statement on a service's database, as a DBA would ask it."""
    shown = subprocess.run(["sql/show", statement], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    command = ["psql", "-XAt", "-v", "ON_ERROR_STOP=1", *options, service.database]
    return subprocess.run(command, input=shown, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def psql(service: Service) -> Callable[..., str]:
    """psql on the shared service: psql("users.get", id=1) is what it prints."""
    return partial(shown_by_psql, service)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A text nobody else uses: unique("ann") is "ann7"."""
    return lambda prefix: f"{prefix}{next(numbers)}x{os.getpid()}"
