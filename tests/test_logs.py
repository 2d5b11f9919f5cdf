"""The log: a line stays a line whatever a client sent, and nobody waits for whoever reads it, or does not."""

import fcntl
import json
import logging
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import requests
from pythonjsonlogger.json import JsonFormatter

import logs
from handlers.messages.senders import print_lines
from tests.conftest import ROOT, Service, serve, wait_for

CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F)]
CONTROLS += [*range(0x2066, 0x206A), 0xD800, 0xDBFF, 0xDC00, 0xDFFF]
"""C0, DEL, C1, what ends a line, what turns the direction of text, and halves of characters."""

HARMLESS = "Grüße 世界 👨‍👩‍👧 \\ é \u00a0 ‘’ עברית"
"""What stays as it is: also what joins the parts of one picture, and letters that run from right to left."""


def formatted(formatter, text, error=None):
    record = logging.LogRecord("rowhouse", logging.INFO, "", 0, "%s %s", ("GET", text), error)
    record.path = text
    return formatter.format(record)


def plain():
    return logs.Plain("%(message)s")


@pytest.mark.parametrize("where", ["{}", "x{}y", "{0}{0}", "/a{}b.json"])
def test_no_character_forges_a_line_or_is_obeyed_by_a_terminal(where):
    for code in CONTROLS:
        text = where.format(chr(code))
        for line in (formatted(plain(), text), formatted(JsonFormatter("%(message)s"), text)):
            assert not set(line) & set(map(chr, CONTROLS)), hex(code)
        found = json.loads(formatted(JsonFormatter("%(message)s"), text))
        assert (found["message"], found["path"]) == (f"GET {text}", text)
    assert formatted(plain(), HARMLESS) == f"GET {HARMLESS}"


def test_a_traceback_is_no_line_of_the_log():
    for code in CONTROLS:
        try:
            raise ValueError(f"x{chr(code)}12:00:00 INFO GET /users/1 200")
        except ValueError:
            lines = formatted(plain(), "x", sys.exc_info()).split("\n")
        assert all(line.startswith("    ") for line in lines[1:])
        assert not set("".join(lines)) & set(map(chr, CONTROLS)), hex(code)


def test_an_event_is_one_line_whatever_is_in_it(capfd):
    class Event:
        event_id = "7"

    for code in [code for code in CONTROLS if code]:
        Event.user_id, Event.description = f"a{chr(code)}b", f"c{chr(code)}d"
        print_lines([Event, Event])
        lines = capfd.readouterr().out.removesuffix("\n").split("\n")
        assert len(lines) == 2
        assert re.fullmatch(r"Event 7 has been sent to a\\\w+b: c\\\w+d", lines[0]), lines[0]
    Event.user_id = Event.description = HARMLESS
    print_lines([Event])
    assert capfd.readouterr().out == f"Event 7 has been sent to {HARMLESS}: {HARMLESS}\n"


# Nobody waits --------------------------------------------------------------------------------------------------------


def full_pipe():
    """A pipe that nobody reads, with no room left: (read, write)."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while os.write(write, b"." * 4096):
            pass
    os.set_blocking(write, True)
    return read, write


def no_reader():
    read, write = os.pipe()
    os.close(read)
    return None, write


def stopped_terminal():
    """A terminal whose user pressed Ctrl-S."""
    read, write = pty.openpty()
    os.write(read, b"\x13")
    return read, write


def socket_nobody_reads():
    one, other = socket.socketpair()
    other.setblocking(False)
    with suppress(BlockingIOError):
        while other.send(b"." * 4096):
            pass
    other.setblocking(True)
    return one.detach(), other.detach()


SINKS = {
    "a full pipe": full_pipe,
    "no reader": no_reader,
    "a full disk": lambda: (None, os.open("/dev/full", os.O_WRONLY)),
    "a terminal that stands": stopped_terminal,
    "a socket nobody reads": socket_nobody_reads,
    "closed": lambda: (None, 1000),
}


FAILING = ("no reader", "a full disk", "closed")


@pytest.mark.parametrize("sink", SINKS)
def test_nobody_waits_for_a_reader_and_what_was_dropped_is_counted(sink):
    read, write = SINKS[sink]()
    writer = logs.Writer(write, lambda lines: f"{lines} were dropped\n")
    longest = 0.0
    for _ in range(300):
        began = time.monotonic()
        writer.write("x" * 9_999 + "\n")
        longest = max(longest, time.monotonic() - began)
    began = time.monotonic()
    writer.flush(0.2)
    assert time.monotonic() - began < 2
    assert longest < 0.5
    # What fails is lost as a whole; of what is only not read, as much waits as may.
    wait_for(lambda: writer.dropped == 300 if sink in FAILING else writer.dropped >= 190)
    if sink == "a full pipe":
        seen = bytearray()
        while b"were dropped" not in seen:
            seen += os.read(read, 2**16)
        assert f"{writer.dropped} were dropped".encode() in seen
        assert seen.count(b"x\n") == 300 - writer.dropped


def test_all_that_is_read_is_written_in_order_and_none_dropped():
    read, write = os.pipe()
    fcntl.fcntl(write, 1031, 2**12)  # F_SETPIPE_SZ: less than is written at once
    writer, seen = logs.Writer(write), bytearray()

    def look():
        while not seen.endswith(b"end\n"):
            seen.extend(os.read(read, 2**16))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(5000):
        writer.write(f"line {number}\n")
    writer.write("end\n")
    reader.join(20)
    assert seen.decode().split("\n")[:-2] == [f"line {number}" for number in range(5000)]
    assert writer.dropped == 0


def test_a_fork_writes_nothing_twice_and_its_own_lines():
    read, write = os.pipe()
    writer = logs.Writer(write)
    writer.write("parent\n")
    child = os.fork()
    if not child:
        writer.write("child\n")
        writer.flush()
        os._exit(0)
    os.waitpid(child, 0)
    writer.flush()
    assert sorted(os.read(read, 100).decode().splitlines()) == ["child", "parent"]


@contextmanager
def served(database, **streams):
    """A service with these as its standard output and error."""
    running = serve(database)
    running.process = subprocess.Popen([sys.executable, "-m", "gunicorn"], cwd=ROOT, env=running.environment, **streams)
    try:
        url = f"http://127.0.0.1:{running.port}"
        wait_for(lambda: reachable(url) or running.process.poll() is not None)
        assert running.process.poll() is None
        yield Service(url, database)
    finally:
        running.process.terminate()
        assert running.process.wait(15) == 0
        running.directory.cleanup()


def reachable(url):
    with suppress(requests.RequestException):
        return requests.get(f"{url}/health/live", timeout=5).status_code == 200


@pytest.mark.thorough
@pytest.mark.parametrize("sink", SINKS)
def test_a_service_answers_whoever_reads_its_log(database, sink):
    read, write = SINKS[sink]()
    streams = {"stdout": write, "stderr": write}
    if sink == "closed":
        streams = {"preexec_fn": lambda: [os.close(fd) for fd in (0, 1, 2)]}
    with served(database, **streams) as service:
        for _ in range(300 if "terminal" in sink else 150):
            assert service.get("/" + "x" * 4000).status_code == 404
        count = r"^rowhouse_log_lines_dropped_total (\S+)"
        if sink != "closed":
            found = lambda: re.search(count, service.get("/metrics").text, re.MULTILINE)  # noqa: E731
            wait_for(lambda: found() and float(found()[1]) > 0)
        if sink == "a full pipe":
            seen = bytearray()
            while b"lines of the log were dropped" not in seen:
                seen += os.read(read, 2**16)
