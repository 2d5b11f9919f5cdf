"""The tests' own tool that starts a service leaves nothing behind when the service does not come up."""

import os
import socket
from contextlib import suppress

import psutil
import pytest

from tests.conftest import serve


@pytest.fixture
def silent():
    """The address of a database that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?connect_timeout=60"


def left_of(served: serve) -> list[int]:
    """The processes of a service that still run."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(pid) == served.process.pid:
                found.append(pid)
    return found


def test_a_service_that_does_not_come_up_is_ended(silent):
    served = serve(silent)
    served.within = 3
    with pytest.raises(AssertionError, match="did not come true"), served:
        pytest.fail("it came up")
    assert (served.process.poll() is None, left_of(served), served.log.exists()) == (False, [], False)


def test_a_service_that_ends_at_once_says_why():
    served = serve("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(AssertionError, match="refused"), served:
        pytest.fail("it came up")
    assert (left_of(served), served.log.exists()) == ([], False)


def test_what_a_killed_service_leaves_is_ended(database):
    served = serve(database)
    with served:
        workers = psutil.Process(served.process.pid).children()
        served.process.kill()
    assert workers
    psutil.wait_procs(workers, 5)
    assert (left_of(served), [process for process in workers if process.is_running()]) == ([], [])
