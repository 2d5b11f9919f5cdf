"""Servers to measure: a private PostgreSQL with seeded data, Rowhouse on it, and its peers beside it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from db import private_postgres, seeding
from db.pool import connect
from db.schema import create_database, migrate

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-bench" / "bin"


@contextmanager
def database(**rows: int) -> Iterator[str]:
    """The address of a new database with so many users, projects and userstories."""
    with (
        tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory,
        private_postgres.server(Path(directory)) as url,
    ):
        for _ in seeding.seed(url, seed=1, **rows):
            pass
        yield url


@contextmanager
def roomy(directory: Path) -> Iterator[str]:
    """The address of a private server in this directory with room for the connections of several servers at once."""
    with private_postgres.server(directory) as url, connect(url) as connection:
        connection.execute("alter system set max_connections = 300")
    with private_postgres.server(directory) as url:
        yield url


def on(server: str, name: str) -> str:
    """The address of another database of a private server."""
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def grown(server: str, users: int) -> str:
    """The address of a database with so many users on a private server; what is there already stays."""
    create_database(server, f"grown_{users}")
    url = on(server, f"grown_{users}")
    migrate(url)
    with connect(url) as connection:
        last = "select from users where email_key(email) = $1"
        if not connection.execute(last, [f"user{users}.1@example.com"]).fetchone():
            for _ in seeding.seed(url, users=users, projects=0, userstories=0, seed=1):
                pass
            connection.execute("set statement_timeout = 0")
            connection.execute("vacuum analyze users")
    return url


@contextmanager
def database_copy(url: str, name: str) -> Iterator[str]:
    """The address of a copy of a database that nobody uses just now, for as long as the block lasts."""
    source = urlsplit(url).path[1:]
    with connect(on(url, "postgres")) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute(f"drop database if exists {name} with (force)")
        connection.execute(f"create database {name} template {source} strategy file_copy")
        try:
            yield on(url, name)
        finally:
            connection.execute(f"drop database {name} with (force)")


@contextmanager
def started(
    command: list[str], database: str, port: int, ready: str, **settings: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a server on a port until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory:
        ours = {"DATABASE_URL": database, "DATA_DIR": directory, "PORT": str(port), "WORKERS": "1"}
        environment = os.environ | ours | {"LOG_LEVEL": "WARNING"} | settings
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}{ready}")
            yield process
        finally:
            process.terminate()
            process.wait(15)


@contextmanager
def serving(command: list[str], database: str, port: int, ready: str) -> Iterator[int]:
    """Run a server on a port until the block ends; the process id of the one that answers."""
    with started(command, database, port, ready) as process:
        yield last_child(process.pid)


def rowhouse(database: str, port: int) -> "Iterator[int]":
    return serving([sys.executable, "-m", "gunicorn"], database, port, "/ping")  # type: ignore[return-value]


def fastapi(module: str, database: str, port: int) -> "Iterator[int]":
    command = [str(PEERS / "uvicorn"), f"bench.peers.{module}:app", "--port", str(port), "--log-level", "warning"]
    return serving([*command, "--no-access-log"], database, port, "/openapi.json")  # type: ignore[return-value]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:  # refused, or not answered in time
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)


def last_child(pid: int) -> int:
    """The youngest descendant of a process: a pre-forking server's worker, or the process itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return last_child(int(children[-1])) if children else pid


def memory(pid: int, field: str = "VmHWM") -> float:
    """A process's memory in MiB: VmRSS now, VmHWM at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
