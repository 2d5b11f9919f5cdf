"""Servers to measure: a private PostgreSQL with seeded data, Rowhouse on it, and its peers beside it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db import embedded, seeding

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-bench" / "bin"


@contextmanager
def database(**rows: int) -> Iterator[str]:
    """The address of a new database with so many users, projects and userstories."""
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory, embedded.server(Path(directory)) as url:
        for _ in seeding.seed(url, seed=1, **rows):
            pass
        yield url


@contextmanager
def serving(command: list[str], database: str, port: int, ready: str) -> Iterator[int]:
    """Run a server on a port until the block ends; the process id of the one that answers."""
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory:
        settings = {"DATABASE_URL": database, "DATA_DIR": directory, "PORT": str(port), "WORKERS": "1"}
        environment = os.environ | settings | {"LOG_LEVEL": "WARNING"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}{ready}")
            yield last_child(process.pid)
        finally:
            process.terminate()
            process.wait(15)


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
        except urllib.error.URLError:
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
