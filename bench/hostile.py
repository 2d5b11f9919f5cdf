"""Honest traffic beside hostile traffic: how long it waits, and whether all it wrote is there.

make bench-hostile: rounds, in each the honest alone and then beside all attackers; of a figure the median of the rounds
counts. The honest are 4 clients that read users and write events, each 50 requests a second. The attackers, in a
process of their own on the same machine:

- again and again, 20 times a second at most, each with a token of its own (`repeated`): tokens that are none; JSON too
  deep, too large (5 MB) and too full (500,000 numbers); 5,000,000 rows that are refused; gzip of 200 MB; Avro that is
  none; bodies that trickle and end early; broken WebSocket frames; requests within requests; an answer that is not
  read; SQL in a parameter; a hundred requests at once, beyond the quota;
- at once, and again where they are cut off (`held`): 200 heads that do not end, 3,000 connections that say nothing (a
  process holds 1,000), 20 that read a tree and 16 that resume the channel, 2,000 bytes every 3 s.

An attack counts where it was answered as it should be. The bench ends with 0 only where each kind was counted in each
round, no honest request failed, their p99 was at most twice what it is alone, the events that they wrote are those that
are there, users are as before, and the processes are the same, with no more than 30 MiB more than before.

`python -m bench.hostile "gzip bombs" …` measures beside these kinds alone.
"""

import base64
import gzip
import hashlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import psycopg
import requests
from websockets.sync.client import connect

from bench.servers import ROOT, database, free_port, memory, wait_for

ROUNDS, ALONE, BESIDE = 3, 20, 40
USERS, CLIENTS, PAUSE = 100_000, 4, 0.02

QUOTA = 4_000
"""Requests of a token a minute: one of the honest asks 3,000."""

SLOWER, GROWN = 2, 30
"""How many times the p99 alone, and how many MiB more than before, are held to be bearable."""

SETTLE = 10
"""Seconds in which a process must have given back what it took."""


class Honest(threading.Thread):
    """Reads and writes at a constant rate; keeps what was acknowledged."""

    def __init__(self, url: str, token: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.over, self.headers = url, over, {"Authorization": f"Bearer {token}"}
        self.waits: list[float] = []
        self.written: list[str] = []
        self.failures: Counter[str] = Counter()

    def run(self) -> None:
        with requests.Session() as session:
            due = time.monotonic()
            while not self.over.is_set():
                due += PAUSE
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    self.ask(session)
                except (requests.RequestException, AssertionError) as error:
                    self.failures[repr(error)[:80]] += 1
                # From when it was due: whoever waits for answers does not see a stall.
                self.waits.append(time.monotonic() - due)

    def ask(self, session: requests.Session) -> None:
        if random.random() < 0.2:
            event = {"user_id": "honest", "description": "Written beside hostile traffic"}
            answer = session.post(f"{self.url}/events", json=event, headers=self.headers, timeout=30)
            assert answer.status_code == 201, answer.text
            self.written.append(answer.json()["event_id"])
        else:
            id = random.randint(1, USERS)
            answer = session.get(f"{self.url}/users/{id}", headers=self.headers, timeout=30)
            assert answer.json()["id"] == id, answer.text


# The attackers --------------------------------------------------------------------------------------------------------

AGAIN, TAKE = 0.05, 3
"""Seconds between two tries of what is repeated, and between two reads of what is held."""

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)

SILENT = 0
"""The status of what gets no answer."""


class Repeated(NamedTuple):
    """What is done again and again: what is sent, and the status it should be answered with."""

    act: Callable[[], int]
    status: int


class Held(NamedTuple):
    """So many connections: what is sent on each at first and then every `TAKE` seconds, and how the answer begins."""

    number: int
    head: str = ""
    more: str = ""
    answer: bytes = b""


def connected(port: int) -> socket.socket:
    """A connection that can hold little of what is sent to it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(5)
    try:
        client.connect(("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    return client


def raw(port: int, *pieces: bytes, pause: float = 0.0, answers: int = 1) -> int:
    """Send pieces as they are; the status of the last of so many answers."""
    with connected(port) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(pause)
        came = b""
        while came.count(b"HTTP/1.1 ") < answers and (some := client.recv(1000) if answers else b""):
            came += some
    return int(came.rpartition(b"HTTP/1.1 ")[2][:3] or SILENT)


def repeated(port: int, tokens: dict[str, str]) -> dict[str, Repeated]:
    """The kinds that are done again and again."""
    url = f"http://127.0.0.1:{port}"

    def head(kind: str, line: str, *more: str) -> bytes:
        fields = ["Host: localhost", f"Authorization: Bearer {tokens[kind]}", *more]
        return "\r\n".join([f"{line} HTTP/1.1", *fields, "", ""]).encode()

    def posted(kind: str, path: str, body: bytes, status: int, media: str = "application/json") -> Repeated:
        headers = {"Content-Type": media, "Authorization": f"Bearer {tokens.get(kind, 'rh_none')}"}
        return Repeated(lambda: requests.post(url + path, data=body, headers=headers, timeout=30).status_code, status)

    json_of = "Content-Type: application/json"
    trickle = head("bodies that trickle", "POST /events", json_of, "Content-Length: 900")
    frames = head("broken frames", "GET /ws/events", *UPGRADE.splitlines())
    inner = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    outer = head("requests within requests", "POST /events", json_of, "Content-Length: 4", "Transfer-Encoding: chunked")
    unread = head("answers not read", "GET /users?limit=1000")
    address = head("SQL", "GET /users?address=%27;drop%20table%20users;--", "Connection: close")
    hundred = 100 * head("beyond the quota", "GET /users/1")
    upload = "/upload/jobs?mode=dry-run"
    rejects, bomb = b"\r\n--" * 5_000_000, gzip.compress(b"x" * 200_000_000)
    return {
        "wrong tokens": posted("", "/events", b"{}", 401),
        "bodies too deep": posted("bodies too deep", "/events", b'{"a":' * 100_000, 400),
        "bodies too large": posted("bodies too large", "/events", b" " * 5_000_000, 413),
        "long lists": posted("long lists", "/audios", b'{"ticks":[' + b"1," * 500_000 + b"1]}", 422),
        "reject floods": posted("reject floods", upload, rejects, 422, "text/csv"),
        "gzip bombs": posted("gzip bombs", f"{upload}&max_errors=1", bomb, 422, "application/gzip"),
        "Avro that is none": posted(
            "Avro that is none", "/restore/jobs", b"Obj\x01" + os.urandom(5000), 422, "application/avro"
        ),
        "bodies that trickle": Repeated(lambda: raw(port, trickle, *[b" "] * 20, pause=0.1, answers=0), SILENT),
        "broken frames": Repeated(lambda: raw(port, frames + os.urandom(200)), 101),
        "requests within requests": Repeated(lambda: raw(port, outer + inner), 400),
        "answers not read": Repeated(lambda: raw(port, unread, pause=1), 200),
        "SQL": Repeated(lambda: raw(port, address), 200),
        "beyond the quota": Repeated(lambda: raw(port, hundred, answers=100), 429),
    }


def held(port: int, tokens: dict[str, str]) -> dict[str, Held]:
    """The kinds that stay."""
    asked = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {tokens['slow readers']}\r\n"
    since = first_cursor(port, tokens["slow readers"])
    return {
        "half-open heads": Held(200, "GET /users HTTP/1.1\r\nHost: localhost\r\nX-", "Slow: x\r\nX-"),
        "idle connections": Held(3_000),
        "slow trees": Held(20, f"GET /projects/1/tree{asked}\r\n", answer=b"HTTP/1.1 200 "),
        "slow resumers": Held(16, f"GET /ws/events?since={since}{asked}{UPGRADE}\r\n", answer=b"HTTP/1.1 101 "),
    }


def first_cursor(port: int, token: str) -> str:
    """The cursor from which all that history has was missed."""
    headers = {"Authorization": f"Bearer {token}"}
    with connect(f"ws://127.0.0.1:{port}/ws/events", additional_headers=headers, open_timeout=30) as channel:
        cursor = json.loads(channel.recv(30))["cursor"]
    feed = base64.urlsafe_b64decode(cursor).split(b"|")[0]
    return base64.urlsafe_b64encode(feed + b"|3:3:||0").decode()


KINDS = (
    *("wrong tokens", "bodies too deep", "bodies too large", "long lists", "reject floods", "gzip bombs"),
    *("Avro that is none", "bodies that trickle", "broken frames", "requests within requests", "answers not read"),
    *("SQL", "beyond the quota", "half-open heads", "idle connections", "slow trees", "slow resumers"),
)


def repeat(kind: str, what: Repeated, over: threading.Event, counts: "Counter[str]") -> None:
    while not over.wait(AGAIN):
        with suppress(OSError):  # as are those of requests
            counts[kind] += what.act() == what.status


def hold(port: int, kind: str, what: Held, over: threading.Event, counts: "Counter[str]") -> None:
    """As many clients as there should be; who is cut off comes again."""
    clients: dict[int, socket.socket] = {}
    while True:
        for number in range(what.number):
            if over.is_set():
                return
            try:
                if number not in clients:
                    clients[number] = connected(port)
                    clients[number].sendall(what.head.encode())
                    clients[number].setblocking(False)
                    counts[kind] += not what.answer
                    continue
                if what.more:
                    clients[number].sendall(what.more.encode())
                came = clients[number].recv(2000)
                counts[kind] += bool(what.answer) and came.startswith(what.answer)
                if not came:
                    clients.pop(number).close()
            except BlockingIOError:
                pass
            except OSError:
                if number in clients:
                    clients.pop(number).close()
        over.wait(TAKE)


def attack(port: int, tokens: dict[str, str], kinds: list[str]) -> None:
    """Do what is hostile until standard input ends; then say what was counted. Ends with 1 where a kind was not."""
    os.nice(19)  # they have machines of their own: what they compute shall not be taken from the service
    over, counts = threading.Event(), Counter[str]()
    repeats, holds = repeated(port, tokens), held(port, tokens)
    if (spent := "beyond the quota") in kinds:
        # Before anybody else attacks: later a minute may be too short to spend it.
        with suppress(OSError):
            counts[spent] += any(repeats[spent].act() == repeats[spent].status for _ in range(2 * QUOTA // 100))
    for kind in kinds:
        if kind in repeats:
            threading.Thread(target=repeat, args=(kind, repeats[kind], over, counts), daemon=True).start()
        else:
            threading.Thread(target=hold, args=(port, kind, holds[kind], over, counts), daemon=True).start()
    print("begun", flush=True)
    sys.stdin.read()
    over.set()
    print(json.dumps(counts), flush=True)
    os._exit(not all(counts[kind] for kind in kinds))  # whoever still waits for an answer


# The comparison -------------------------------------------------------------------------------------------------------


def honest(url: str, tokens: list[str], seconds: float) -> list[Honest]:
    over = threading.Event()
    crowd = [Honest(url, token, over) for token in tokens]
    for client in crowd:
        client.start()
    time.sleep(seconds)
    over.set()
    for client in crowd:
        client.join(60)
    return crowd


def beside(port: int, tokens: dict[str, str], kinds: list[str], act: Callable[[], list[Honest]]) -> tuple:
    """What the honest met beside the attackers, the attacks that were counted, and how the attackers ended."""
    # In a process of their own: the honest shall wait for the service, not for Python's lock.
    command = [sys.executable, "-m", "bench.hostile", "--attack", str(port), json.dumps(tokens), *kinds]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as attackers:
        try:
            if attackers.stdout.readline() != "begun\n":
                sys.exit("The attackers did not begin.")
            crowd = act()
            told, _ = attackers.communicate(timeout=60)
        finally:
            attackers.kill()
    return crowd, Counter(json.loads(told or "{}")), attackers.returncode


class Waits(NamedTuple):
    """How long a crowd waited, in seconds."""

    number: int
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.number} requests, p50 {self.p50 * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms"


def waits(crowd: list[Honest]) -> Waits:
    found = [wait for client in crowd for wait in client.waits]
    cuts = quantiles(found, n=100)
    return Waits(len(found), cuts[49], cuts[98])


def workers(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, name in names.items() if "gunicorn" in name]


def resident(pid: int) -> dict[int, float]:
    """The least that each process has within some seconds, in MiB."""
    found: dict[int, float] = {}
    for _ in range(SETTLE * 10):
        for worker in workers(pid):
            found[worker] = min(found.get(worker, 1e9), memory(worker, "VmRSS"))
        time.sleep(0.1)
    return found


def users_of(connection: psycopg.Connection) -> tuple:
    """How many users there are, and a digest of all."""
    return connection.execute("select count(*), sum(hashtextextended(u::text, 0)) from users as u").fetchone()


def token(connection: psycopg.Connection, name: str) -> str:
    secret = f"rh_{secrets.token_hex(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    connection.execute("insert into tokens (name, role, sha256) values (%s, 'admin', %s)", [name, digest])
    return secret


def main(kinds: list[str]) -> int:
    if unknown := set(kinds) - {*KINDS}:
        sys.exit(f"There is no {', '.join(unknown)}; there are {', '.join(KINDS)}.")
    with database(users=USERS, projects=1, userstories=5_000) as dsn, tempfile.TemporaryDirectory() as directory:
        port = free_port()
        settings = {"DATABASE_URL": dsn, "DATA_DIR": directory, "PORT": str(port), "WORKERS": "2", "NOTIFIER": "no"}
        limits = {"LOG_LEVEL": "WARNING", "RATE_LIMIT": str(QUOTA), "CONNECTIONS_LIMIT": "1000"}
        command = [sys.executable, "-m", "gunicorn"]
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings | limits, stderr=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}/ping")
            with psycopg.connect(dsn, autocommit=True) as connection:
                faults = measure(port, connection, server.pid, kinds or [*KINDS])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(15)
    print(f"verdict: {'; '.join(faults) or 'held'}")
    return bool(faults)


def measure(port: int, connection: psycopg.Connection, pid: int, kinds: list[str]) -> list[str]:
    """Compare, and say what did not hold."""
    url, faults = f"http://127.0.0.1:{port}", list[str]()
    good = [token(connection, f"honest {number}") for number in range(CLIENTS)]
    evil = {kind: token(connection, kind) for kind in (*KINDS, "slow readers")}
    crowds = honest(url, good, 5)
    before, users = resident(pid), users_of(connection)
    alone, attacked = list[Waits](), list[Waits]()
    for _ in range(ROUNDS):
        crowd = honest(url, good, ALONE)
        alone.append(waits(crowd))
        crowds += crowd
        print(f"alone:  {alone[-1]}", flush=True)
        crowd, counts, ended = beside(port, evil, kinds, lambda: honest(url, good, BESIDE))
        attacked.append(waits(crowd))
        crowds += crowd
        print(f"beside: {attacked[-1]}", flush=True)
        print(f"        {', '.join(f'{counts[kind]:,} {kind}' for kind in kinds)}", flush=True)
        if ended or not all(counts[kind] for kind in kinds):
            faults.append(f"not done: {', '.join(kind for kind in kinds if not counts[kind])} (exit {ended})")
        after = resident(pid)
    times = median(each.p99 for each in attacked) / median(each.p99 for each in alone)
    print(f"medians: p99 alone {median(each.p99 for each in alone) * 1000:.1f} ms, beside ", end="")
    print(f"{median(each.p99 for each in attacked) * 1000:.1f} ms, {times:.1f} times")
    if times > SLOWER:
        faults.append(f"p99 {times:.1f} times what it is alone")
    if failures := sum((client.failures for client in crowds), Counter()):
        faults.append(f"failures: {dict(failures)}")
    print(f"memory: {', '.join(f'{before[each]:.0f} to {after.get(each, 0):.0f} MiB' for each in before)}")
    if before.keys() != after.keys():
        faults.append("the processes are others")
    elif any(after[each] - before[each] > GROWN for each in before):
        faults.append("memory was kept")
    written = {id for client in crowds for id in client.written}
    found = connection.execute("select id::text from events where user_id = 'honest'").fetchall()
    print(f"events: {len(written)} acknowledged, {len(found)} there; users: {users[0]}, then {users_of(connection)[0]}")
    if written != {id for (id,) in found}:
        faults.append("the events are not those that were acknowledged")
    if users != users_of(connection):
        faults.append("users have changed")
    return faults


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        attack(int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main(sys.argv[1:]))
