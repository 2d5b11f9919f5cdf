"""`flask --app app …` as a process of its own, forked from one that has loaded the application: a tenth of the time."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

one_at_a_time = threading.Lock()


def flask(database: str, *words: str, stdout=None, **settings: str) -> subprocess.CompletedProcess:
    """What a command does, prints and ends with; its standard input is empty."""
    environment = os.environ | {"DATABASE_URL": database} | settings
    with one_at_a_time, ExitStack() as ends:
        stdin = ends.enter_context(Path(os.devnull).open())
        out, err = (ends.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        told = json.dumps([words, environment]).encode()
        socket.send_fds(loaded(), [told], [each.fileno() for each in (stdin, stdout or out, err)])
        status = int(loaded().recv(100))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status), out.read(), err.read())


@cache
def loaded() -> socket.socket:
    """The way to a process that has loaded the application; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(240)
    with theirs:
        command = [sys.executable, "-m", "tests.flask_command", str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True)
    atexit.register(process.wait, 10)
    atexit.register(ours.close)
    return ours


def fork_each(theirs: socket.socket) -> None:
    from app import create_app

    create_app()
    while True:
        told, fds, *_ = socket.recv_fds(theirs, 2**20, 3)
        if not told:
            return None
        if not (child := os.fork()):
            return run(fds, *json.loads(told))
        for fd in fds:
            os.close(fd)
        theirs.send(str(os.waitpid(child, 0)[1]).encode())


def run(fds: list[int], words: list[str], environment: dict[str, str]) -> None:
    """Be a command, which ends as any process of Python does."""
    from flask.cli import main

    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["flask", "--app", "app", *words]
    main()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as way:
        fork_each(way)
