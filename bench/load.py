"""What asks, and what the answers cost: wrk as fast as it can and at a constant rate, pgbench with a statement of ours.

Both are given the requests beforehand, so that asking costs them little, and a second asker checks the bodies.
"""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import psycopg

from db.pool import SERVICE
from db.queries import BLOCK, SQL, VARIABLE

CONNECTIONS = 50

CHECK_EVERY = 0.02
"""Seconds between two answers whose bodies are looked at."""


class Ask(NamedTuple):
    """A request, and what its answer is about: `proof` stands in a right body."""

    key: Any
    path: str
    method: str = "GET"
    body: str = ""
    proof: str = ""


class Seen(NamedTuple):
    """What a run showed: answers a second, and the CPU of each thousand, in seconds, of those who took part."""

    rate: float
    server: float
    database: float
    generator: float


def need(program: str, package: str) -> str:
    """Where a program is. Ends with the name of its package where it is missing."""
    places = [shutil.which(program), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))]
    found = next(filter(None, places), None)
    if not found:
        raise SystemExit(f"There is no {program}: apt install {package}")
    return found


def said(command: list[str], **settings: str) -> str:
    """What a program printed. Ends with its complaint where it fails."""
    ran = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# CPU ------------------------------------------------------------------------------------------------------------------


def spent(pid: int) -> float:
    """CPU seconds of a process and of all below it, those that ended included."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        tasks = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        return own + sum(spent(int(child)) for children in tasks for child in children)
    return 0.0


def spent_asking() -> float:
    """CPU seconds of this process and of the generators that it ran."""
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(each.ru_utime + each.ru_stime for each in used)


def postmaster(url: str) -> int:
    """The process of a private server."""
    with psycopg.connect(url) as connection:
        directory = connection.execute("show data_directory").fetchone()[0]
    return int(Path(directory, "postmaster.pid").read_text().splitlines()[0])


class Meter:
    """What the processes of a run used since it was made."""

    def __init__(self, server: int | None, database: int) -> None:
        self.server, self.database = server, database
        self.before = self.read()

    def read(self) -> list[float]:
        return [spent(self.server) if self.server else 0.0, spent(self.database), spent_asking()]

    def seen(self, rate: float, answers: int) -> Seen:
        used = (after - before for after, before in zip(self.read(), self.before, strict=True))
        return Seen(rate, *(each / answers * 1000 for each in used))


# wrk ------------------------------------------------------------------------------------------------------------------

AS_FAST_AS_IT_CAN = """
    local asks, n = {}, 0
    init = function()
        for line in io.lines("%(asks)s") do
            local method, path, body = line:match("^(.-)\\t(.-)\\t(.-)\\t")
            asks[#asks + 1] = wrk.format(method, path, wrk.headers, body ~= "" and body or nil)
        end
    end
    request = function()
        n = n %% #asks + 1
        return asks[n]
    end
"""

AT_A_CONSTANT_RATE = """
    local ffi = require("ffi")
    ffi.cdef [[
        typedef struct { long s; long ns; } moment;
        int clock_gettime(int clock, moment *at);
        int clock_nanosleep(int clock, int flags, const moment *until, moment *rest);
    ]]
    local place = 0
    setup = function(thread)
        thread:set("place", place)
        place = place + 1
        threads = threads or {}
        threads[place] = thread
    end

    local asks, proofs, n, due = {}, {}, 0, 0
    local every = %(connections)d / %(rate)f
    local moment = ffi.new("moment")
    waits, wrong = {}, 0
    local now = function()
        ffi.C.clock_gettime(1, moment)
        return tonumber(moment.s) + tonumber(moment.ns) / 1e9
    end
    init = function()
        local number = 0
        for line in io.lines("%(asks)s") do
            if number %% %(connections)d == place then
                local method, path, body, proof = line:match("^(.-)\\t(.-)\\t(.-)\\t(.*)$")
                asks[#asks + 1] = wrk.format(method, path, wrk.headers, body ~= "" and body or nil)
                proofs[#proofs + 1] = proof
            end
            number = number + 1
        end
    end
    -- A thread has one connection: while it waits it holds up nobody else, and what is answered is what it asked.
    request = function()
        due = due == 0 and now() + every * place / %(connections)d or due + every
        moment.s, moment.ns = math.floor(due), (due - math.floor(due)) * 1e9
        ffi.C.clock_nanosleep(1, 1, moment, nil)
        n = n %% #asks + 1
        return asks[n]
    end
    response = function(status, headers, body)
        waits[#waits + 1] = math.floor((now() - due) * 1e6)
        if status ~= 200 or not body:find(proofs[n], 1, true) then wrong = wrong + 1 end
    end
    done = function()
        for _, thread in ipairs(threads) do
            print("waits " .. table.concat(thread:get("waits"), " ") .. " wrong " .. thread:get("wrong"))
        end
    end
"""
"""Each wait counts from when the request was due, not from when it could be sent."""


@contextmanager
def script(text: str, asks: list[Ask], headers: dict[str, str], **values: object) -> Iterator[str]:
    """A script of wrk with its requests, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as directory:
        lines, lua = Path(directory, "asks"), Path(directory, "script.lua")
        lines.write_text("".join(f"{ask.method}\t{ask.path}\t{ask.body}\t{ask.proof}\n" for ask in asks))
        given = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
        lua.write_text(given + text % {"asks": lines, "connections": CONNECTIONS, **values})
        yield str(lua)


def wrk(port: int, lua: str, threads: int, seconds: float) -> tuple[str, int, float]:
    """What it said, how many answers it had, and how many a second. A status of another kind is a failure."""
    options = [f"-t{threads}", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "10s", "-s", lua]
    command = [need("wrk", "wrk"), *options, f"http://127.0.0.1:{port}"]
    told = said(command)
    assert "Non-2xx" not in told and "Socket errors" not in told, told[-2000:]
    answers = int(re.search(r"(\d+) requests in", told)[1])
    return told, answers, float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])


class Verifier(threading.Thread):
    """Checks bodies while the load runs: a wrong one is a failure."""

    def __init__(self, port: int, asks: list[Ask], right: Callable[[Any, Any], bool], headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.port, self.asks, self.right, self.headers = port, asks, right, headers
        self.over, self.checked, self.wrong = threading.Event(), 0, ""

    def run(self) -> None:
        client = HTTPConnection("127.0.0.1", self.port, timeout=30)
        for ask in self.asks:
            if self.over.wait(CHECK_EVERY):
                break
            client.request(ask.method, ask.path, ask.body or None, self.headers)
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 200 or not self.right(ask.key, json.loads(body)):
                self.wrong = f"{ask}: {answer.status} {body[:500]!r}"
                break
            self.checked += 1
        client.close()


def as_fast_as_it_can(
    port: int,
    meter: Callable[[], Meter],
    asks: list[Ask],
    right: Callable[[Any, Any], bool],
    seconds: float,
    headers: dict[str, str],
) -> Seen:
    """Ask again as soon as there is an answer, and look at some of the bodies meanwhile."""
    share = min(len(asks) // 10, int(seconds / CHECK_EVERY))
    verifier = Verifier(port, asks[:share], right, headers)
    with script(AS_FAST_AS_IT_CAN, asks[share:], headers) as lua:
        measured = meter()
        verifier.start()
        _, answers, rate = wrk(port, lua, 1, seconds)
    verifier.over.set()
    verifier.join()
    assert not verifier.wrong, verifier.wrong
    assert verifier.checked, "nothing could be checked"
    return measured.seen(rate, answers + verifier.checked)


def at_a_constant_rate(port: int, asks: list[Ask], rate: float, seconds: float) -> tuple[float, float]:
    """Median and p99 in milliseconds since each request was due. Each body is looked at."""
    with script(AT_A_CONSTANT_RATE, asks, {}, rate=rate) as lua:
        told, _, _ = wrk(port, lua, CONNECTIONS, seconds)
    threads = re.findall(r"^waits (.*) wrong (\d+)$", told, re.MULTILINE)
    assert len(threads) == CONNECTIONS and not any(int(wrong) for _, wrong in threads), told[-2000:]
    waits = [int(wait) / 1000 for each, _ in threads for wait in each.split()]
    assert len(waits) > rate * seconds / 2, f"{len(waits)} answers of {rate * seconds:.0f}"
    cuts = quantiles(waits, n=100)
    return cuts[49], cuts[98]


class Listener(threading.Thread):
    """A socket on the channel that takes all it is sent, and counts the changes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.socket, self.changes = socket.create_connection(("127.0.0.1", port)), 0
        self.socket.sendall(UPGRADE)
        assert b" 101 " in self.socket.recv(2**16)
        self.start()

    def run(self) -> None:
        rest = b""
        while got := self.socket.recv(2**20):
            rest += got
            self.changes += rest.count(CHANGE)
            rest = rest[-len(CHANGE) + 1 :]

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.join()
        self.socket.close()


CHANGE = b'"action"'
"""Stands in a frame once, whole or in two pieces."""

UPGRADE = (
    b"GET /ws/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# pgbench --------------------------------------------------------------------------------------------------------------


def statement_alone(url: str, meter: Meter, name: str, users: int, seconds: float, threads: int) -> Seen:
    """A statement of sql/queries by itself, prepared, for random ids: what the database could answer."""
    page, _, block = name.partition(".")
    names = BLOCK.split((SQL / "queries" / f"{page}.sql").read_text())
    # All but the id is empty, and pgbench has no empty variables.
    text = VARIABLE.sub(lambda variable: ":id" if variable[1] == "id" else "''", names[names.index(block) + 1])
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(f"\\set id random(1, {users})\n/* {name} */ {text.strip()};\n")
        file.flush()
        options = ["-n", "-M", "prepared", f"-c{CONNECTIONS}", f"-j{threads}", f"-T{max(1, round(seconds))}"]
        command = [need("pgbench", "postgresql-contrib"), *options, "-f", file.name, url]
        # With the rights and settings of the service.
        told = said(command, PGOPTIONS=SERVICE)
    answers = int(re.search(r"actually processed: (\d+)", told)[1])
    return meter.seen(float(re.search(r"tps = ([\d.]+)", told)[1]), answers)
