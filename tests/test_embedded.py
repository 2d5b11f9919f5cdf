"""The private PostgreSQL: whatever was killed, and whatever it left, the next start works; nobody else is signalled."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from db import private_postgres
from tests.conftest import comes_up, free_port, wait_for
from tests.test_running import postmaster, start


@pytest.fixture(scope="module")
def directory():
    # Not pytest's own, whose path is longer than a socket's may be and closed to PostgreSQL's user.
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as found:
        yield Path(found)


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def end(*pids: int) -> None:
    """kill -9, and wait until they are gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, pids)))


@contextmanager
def crashed(directory: Path, *, orphans: bool = False):
    """A data directory whose keeper and server were killed; with orphans a process of the server goes on."""
    url, keeper = private_postgres.keep(directory)
    with psycopg.connect(url) as connection:
        backend = connection.info.backend_pid
        if orphans:
            os.kill(backend, signal.SIGSTOP)
        # The keeper first: it would start the server again.
        keeper.kill()
        keeper.wait()
        end(int(postmaster(directory)))
        assert alive(backend) or not orphans
        yield directory / "postgres"
        wait_for(lambda: not alive(backend))


def works(directory: Path, within: float = 20) -> None:
    """A server starts there soon, answers, and stops as it should."""
    began = time.monotonic()
    url, keeper = private_postgres.keep(directory)
    try:
        assert time.monotonic() - began < within
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) > 0 from users").fetchone() == (True,)
    finally:
        private_postgres.release(keeper)
    assert keeper.returncode == 0
    assert private_postgres.processes(directory / "postgres") == []


@pytest.fixture
def bystander():
    """A living process that dies of any signal, as PostgreSQL's user where there is one."""
    user = {"user": "pgserver"} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "300"], **user) as process:
        yield process
        assert process.poll() is None, "it was signalled"
        process.kill()


LINES = "{pid}\n{data}\n1700000000\n5432\n{data}\n\n  1234567     65536\nready   \n"

FOUND = {
    "another living process": lambda pid, data: LINES.format(pid=pid, data=data),
    "absent": lambda pid, data: None,
    "empty": lambda pid, data: "",
    "garbage": lambda pid, data: "\0\xff\nno\n" * 9,
    "half": lambda pid, data: f"{pid}\n{data}\n",
    "a word": lambda pid, data: LINES.format(pid="postgres", data=data),
    "a dead process": lambda pid, data: LINES.format(pid=2**22 - 1, data=data),
    "the first process": lambda pid, data: LINES.format(pid=1, data=data),
    "the starter": lambda pid, data: LINES.format(pid=os.getpid(), data=data),
    "a negative number": lambda pid, data: LINES.format(pid=-pid, data=data),
    "a group": lambda pid, data: LINES.format(pid=0, data=data),
    "a huge number": lambda pid, data: LINES.format(pid=10**30, data=data),
    "as it was left": lambda pid, data: (data / "postmaster.pid").read_text(),
}
"""What the file of a server that was killed may hold by the next start."""


def some(cases, normal=1):
    """The first cases; the others are walked by `make thorough`."""
    marks = [()] * normal + [pytest.mark.thorough] * (len(cases) - normal)
    return [pytest.param(case, marks=mark) for case, mark in zip(cases, marks, strict=True)]


PATHS = [
    """a, b 'c' "d" $HOME `e` \\f #?&%20=@:;*[g]é\u3000""",
    *(
        "a,b",
        "a b",
        "a'b",
        'a"b',
        "$HOME",
        "`a`",
        "a\\",
        "a\\b",
        "-a",
        " a ",
        "a%20b",
        "a?b&c=d#e",
        "[a]",
        "é",
        "a" * 120,
        "~",
    ),
]
"""What a shell, a list of directories and an address would each read something in."""


@pytest.mark.parametrize("path", some(PATHS))
def test_a_server_starts_whatever_its_directory_is_called(path):
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as found:
        works(Path(found) / path)
        works(Path(found) / path)
        assert [each.name for each in Path(found).iterdir()] == [path], "nothing is made beside it"


@pytest.mark.thorough
@pytest.mark.parametrize("found", some(FOUND))
def test_no_number_in_a_file_is_believed(directory, bystander, found):
    with crashed(directory, orphans=True) as data:
        text = FOUND[found](bystander.pid, data)
        for name in (data / "postmaster.pid", data / ".s.PGSQL.5432.lock"):
            name.unlink(missing_ok=True)
            if text is not None:
                name.write_text(text, "latin-1")
        works(directory)


@pytest.mark.thorough
def test_a_server_of_another_directory_is_let_be(directory):
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as other, private_postgres.server(Path(other)) as url:
        with crashed(directory) as data:
            (data / "postmaster.pid").write_text((Path(other) / "postgres/postmaster.pid").read_text())
            works(directory)
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.thorough
@pytest.mark.parametrize("found", ["as it was left", "absent", "empty", "garbage", "another living process"])
def test_a_server_that_was_left_alive_is_taken_over_or_replaced(directory, bystander, found):
    _, keeper = private_postgres.keep(directory)
    pid = int(postmaster(directory))
    keeper.kill()
    keeper.wait()
    data = directory / "postgres"
    text = FOUND[found](bystander.pid, data)
    if text is None:
        (data / "postmaster.pid").unlink()
    else:
        (data / "postmaster.pid").write_text(text, "latin-1")
    assert alive(pid)
    works(directory)
    assert not alive(pid)


@pytest.mark.thorough
def test_a_data_directory_is_made_whole_or_not_at_all():
    for seconds in (0.3, 0.6, 0.9, 1.2, 1.5, 1.8):
        with tempfile.TemporaryDirectory(prefix="rowhouse-") as name:
            command = [sys.executable, "-m", "db.private_postgres", name]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as keeper:
                time.sleep(seconds)  # any moment
                end(*[child.pid for child in psutil.Process(keeper.pid).children(recursive=True)], keeper.pid)
            works(Path(name), within=20)


SMALL_DISK = ["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "none"]

KILLED = [*itertools.permutations(["postgres", "keeper", "workers", "master"])]


@pytest.mark.thorough
@pytest.mark.parametrize(("order", "pause"), [*zip(KILLED, itertools.cycle([0, 0.7]), strict=False)])
def test_after_kill_9_of_everything_in_any_order_the_next_start_works_at_once(directory, order, pause):
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    with start(directory, PORT=port, WORKERS="2") as process:
        comes_up(url, process)
        assert process.poll() is None, process.communicate()
        children = psutil.Process(process.pid).children()
        keeper = [each.pid for each in children if "db.private_postgres" in each.cmdline()]
        groups = {
            "master": lambda: [process.pid],
            "workers": lambda: [each.pid for each in children if each.pid not in keeper],
            "keeper": lambda: keeper,
            "postgres": lambda: [int(found) for found in [postmaster(directory)] if found],
        }
        for name in order:
            for pid in groups[name]():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(pause)  # any moment
        process.communicate(timeout=15)
    with start(directory, PORT=port, WORKERS="2") as process:
        comes_up(url, process, within=15)
        assert process.poll() is None, process.communicate()
    assert private_postgres.processes(directory / "postgres") == []


@pytest.mark.thorough
def test_a_keeper_or_server_that_dies_is_replaced_and_a_full_disk_waited_out():
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as name:
        mounted = subprocess.run([*SMALL_DISK, name], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be had: {mounted.stderr.decode().strip()}")
        directory, port = Path(name), str(free_port())
        url = f"http://127.0.0.1:{port}"
        said: list[str] = []
        try:
            with start(directory, PORT=port) as process:
                threading.Thread(target=lambda: said.extend(process.stdout)).start()
                comes_up(url)
                keeper = next(
                    each for each in psutil.Process(process.pid).children() if "db.private_postgres" in each.cmdline()
                )
                end(keeper.pid)
                with (directory / "fill").open("wb", buffering=0) as file, suppress(OSError):
                    while file.write(bytes(2**16)):
                        pass
                end(int(postmaster(directory)))
                wait_for(lambda: "No space left on device" in "".join(said))
                assert requests.get(f"{url}/health/ready", timeout=5).json()["reasons"] == ["database"]
                assert requests.get(f"{url}/health/live", timeout=5).status_code == 200
                (directory / "fill").unlink()
                comes_up(url, within=20)
                process.terminate()
                process.wait(15)
        finally:
            still = private_postgres.processes(directory / "postgres")
            subprocess.run(["umount", name], check=True)
    assert still == []
    assert "The supervisor of the private PostgreSQL ended and is started again." in "".join(said)
