"""Honest traffic beside hostile traffic: how long it waits, and whether all it wrote is there.

make bench-hostile. Honest: 4 clients that read users and write events with a token, each at a constant rate. Hostile,
for 60 s: heads and bodies that do not end, clients that do not read, bodies too large or too deep, bombs, wrong tokens,
broken frames, requests within requests, and a token that asks for more than it may.
"""

import base64
import gzip
import os
import random
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
from statistics import quantiles

import psycopg
import requests

from bench.servers import ROOT, database, free_port, memory, wait_for

IDLE, SECONDS = 20, 60
USERS, CLIENTS, PAUSE = 100_000, 4, 0.02
HALF_OPEN = 200

IDLE_FLOOD = 3_000
"""Connections that say nothing; each process holds 1,000."""

QUOTA = 15_000
"""Requests of a token a minute: the honest ask 12,000."""


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


# The hostile ----------------------------------------------------------------------------------------------------------

AGAIN = 0.05
"""Seconds between two tries of each kind."""

DEEP = b'{"a":' * 100_000
LONG = b'{"session_id":1,"ticks":[' + b"1," * 500_000 + b"1]}"
REJECTS = b"\r\n--" * 5_000_000
BOMB = gzip.compress(b"x" * 200_000_000)
UPGRADE = (
    "GET /ws/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
INNER = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def raw(port: int, *texts: bytes, pause: float = 0.0) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        for text in texts:
            client.sendall(text)
            time.sleep(pause)
        client.settimeout(0.2)
        client.recv(1000)


def post(port: int, path: str, data: bytes, media: str, token: str) -> None:
    headers = {"Content-Type": media, "Authorization": f"Bearer {token}"}
    requests.post(f"http://127.0.0.1:{port}{path}", data=data, headers=headers, timeout=30)


def kinds(port: int, token: str) -> dict[str, Callable[[], object]]:
    """What is done again and again."""
    held = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    head = f"POST /events HTTP/1.1\r\n{held}Content-Type: application/json\r\n"
    unread = f"GET /users?limit=1000 HTTP/1.1\r\n{held}\r\n".encode()
    chunked = f"{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{INNER}".encode()
    return {
        "wrong tokens": lambda: post(port, "/events", b"{}", "application/json", f"rh_{random.random()}"),
        "bodies too deep": lambda: post(port, "/events", DEEP, "application/json", token),
        "bodies too large": lambda: post(port, "/events", b" " * 5_000_000, "application/json", token),
        "long lists": lambda: post(port, "/audios", LONG, "application/json", token),
        "reject floods": lambda: post(port, "/upload/jobs?mode=dry-run", REJECTS, "text/csv", token),
        "gzip bombs": lambda: post(port, "/upload/jobs?mode=dry-run&max_errors=1", BOMB, "application/gzip", token),
        "Avro that is none": lambda: post(
            port, "/restore/jobs", b"Obj\x01" + os.urandom(5000), "application/avro", token
        ),
        "bodies that trickle": lambda: raw(
            port, f"{head}Content-Length: 900\r\n\r\n".encode(), *[b" "] * 20, pause=0.1
        ),
        "broken frames": lambda: raw(port, UPGRADE.encode(), os.urandom(200)),
        "requests within requests": lambda: raw(port, chunked),
        "answers not read": lambda: raw(port, unread, pause=1),
        "SQL": lambda: get(port, token, "/users?address=';drop table users;--"),
        "twenty at once beyond the quota": lambda: [get(port, token, "/users/1") for _ in range(20)],
    }


def get(port: int, token: str, path: str) -> None:
    requests.get(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30)


def again_and_again(act: Callable[[], object], over: threading.Event, counts: "Counter[str]", kind: str) -> None:
    while not over.wait(AGAIN):
        with suppress(OSError, requests.RequestException):
            act()
        counts[kind] += 1


def hold_half_open(port: int, over: threading.Event) -> None:
    """Connections whose head never ends, a header more each second."""
    clients: list[socket.socket] = []
    while not over.wait(1):
        clients += [socket.create_connection(("127.0.0.1", port), 5) for _ in range(HALF_OPEN - len(clients))]
        for client in [*clients]:
            try:
                client.sendall(b"X-Slow: x\r\n" if client in clients and random.random() < 0.9 else b"X-")
            except OSError:
                clients.remove(client)
    for client in clients:
        client.close()


def slow_requests(port: int, token: str) -> dict[str, list[str]]:
    """What is asked for and then read slowly, or not at all: heads of requests."""
    tail = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    upgrade = UPGRADE.partition("\r\nHost: x\r\n")[2]
    resume = f"GET /ws/events?since={first_place(port, tail + upgrade)}{tail}{upgrade}"
    return {
        "slow trees": [f"GET /projects/1/tree{tail}\r\n"] * 20,
        "slow resumers": [resume] * 16,
        "idle floods": [""] * IDLE_FLOOD,
    }


def first_place(port: int, tail: str) -> str:
    """The cursor from which all that history has was missed."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(f"GET /ws/events{tail}".encode())
        came = b""
        while b'"cursor": "' not in came or not came.endswith(b"}"):
            came += client.recv(1000)
    cursor = came.rpartition(b'"cursor": "')[2].partition(b'"')[0]
    feed = base64.urlsafe_b64decode(cursor).split(b"|")[0]
    return base64.urlsafe_b64encode(feed + b"|3:3:||0").decode()


def hold_slow(port: int, heads: list[str], over: threading.Event, counts: "Counter[str]", kind: str) -> None:
    """As many clients as heads, each of which takes 2,000 bytes every 3 s; who is cut off comes again."""
    clients: dict[int, socket.socket] = {}
    while not over.wait(3):
        for number, head in enumerate(heads):
            try:
                if number not in clients:
                    clients[number] = slow_client(port, head)
                    counts[kind] += 1
                elif not clients[number].recv(2000, socket.MSG_DONTWAIT):
                    clients.pop(number).close()
            except BlockingIOError:
                pass
            except OSError:
                clients.pop(number, socket.socket()).close()


def slow_client(port: int, head: str) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(5)
    client.connect(("127.0.0.1", port))
    client.sendall(head.encode())
    return client


# The comparison -------------------------------------------------------------------------------------------------------


def attack(port: int, token: str, chosen: list[str]) -> None:
    """Do all that is hostile, or what is chosen of it, for as long as the honest are measured."""
    over, counts = threading.Event(), Counter[str]()
    threading.Thread(target=hold_half_open, args=(port, over), daemon=True).start()
    for kind, act in kinds(port, token).items():
        if not chosen or kind in chosen:
            threading.Thread(target=again_and_again, args=(act, over, counts, kind), daemon=True).start()
    for kind, heads in slow_requests(port, token).items():
        if not chosen or kind in chosen:
            threading.Thread(target=hold_slow, args=(port, heads, over, counts, kind), daemon=True).start()
    time.sleep(SECONDS)
    over.set()
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()), f"and {HALF_OPEN} half-open", flush=True)
    os._exit(0)  # whoever still waits for an answer


def honest(url: str, token: str, seconds: float) -> list[Honest]:
    over = threading.Event()
    crowd = [Honest(url, token, over) for _ in range(CLIENTS)]
    for client in crowd:
        client.start()
    time.sleep(seconds)
    over.set()
    for client in crowd:
        client.join(60)
    return crowd


def summary(crowd: list[Honest]) -> tuple[float, str]:
    waits = [wait for client in crowd for wait in client.waits]
    cuts = quantiles(waits, n=100)
    failures = sum((client.failures for client in crowd), Counter())
    return cuts[
        98
    ], f"{len(waits)} requests, p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms, {failures or 'no failure'}"


def workers(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, name in names.items() if "gunicorn" in name]


def main() -> None:
    with database(users=USERS, projects=1, userstories=5_000) as dsn, tempfile.TemporaryDirectory() as directory:
        port = free_port()
        settings = {"DATABASE_URL": dsn, "DATA_DIR": directory, "PORT": str(port), "WORKERS": "2", "NOTIFIER": "no"}
        environment = (
            os.environ | settings | {"LOG_LEVEL": "WARNING", "RATE_LIMIT": str(QUOTA), "CONNECTIONS_LIMIT": "1000"}
        )
        command = [sys.executable, "-m", "gunicorn"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}/ping")
            good, evil = (made(environment, name) for name in ("honest", "hostile"))
            measure(f"http://127.0.0.1:{port}", port, dsn, server.pid, good, evil)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(15)


def made(environment: dict[str, str], name: str) -> str:
    command = [sys.executable, "-m", "flask", "--app", "app", "token", "create", name, "--role", "admin"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def measure(url: str, port: int, dsn: str, pid: int, good: str, evil: str) -> None:
    honest(url, good, 5)
    alone, told = summary(honest(url, good, IDLE))
    print(f"alone:            {told}")
    users = counted(dsn)
    before = {worker: memory(worker, "VmRSS") for worker in workers(pid)}
    # In a process of their own: the honest shall wait for the service, not for Python's lock.
    command = [sys.executable, "-m", "bench.hostile", "--attack", str(port), evil, *sys.argv[1:]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as attackers:
        crowd = honest(url, good, SECONDS)
        told, _ = attackers.communicate(timeout=60)
    hostile = told.strip()
    beside, told = summary(crowd)
    print(f"beside hostility: {told}; p99 {beside / alone:.1f} times")
    print(f"hostile: {hostile}")
    after = {worker: memory(worker, "VmRSS") for worker in workers(pid)}
    kept = before.keys() == after.keys() and all(after[each] - before[each] <= 30 for each in before)
    failures = any(client.failures for client in crowd)
    print(f"verdict: {'held' if kept and beside <= 2 * alone and not failures else 'NOT HELD'}")
    growth = ", ".join(f"{before[worker]:.0f} to {after[worker]:.0f} MiB" for worker in before if worker in after)
    print(f"processes: {'the same' if before.keys() == after.keys() else 'OTHERS'}; memory {growth}")
    with psycopg.connect(dsn) as connection:
        written = [id for client in crowd for id in client.written]
        found = connection.execute("select count(*) from events where id = any(%s::uuid[])", [written]).fetchone()
    print(f"written: {len(written)} acknowledged, {found[0]} there; users: {users} before, {counted(dsn)} after")


def counted(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select count(*) from users").fetchone()[0]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--attack"]:
        attack(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main()
