"""Users by id, by e-mail and by the page beside FastAPI and Flask as others write them, and beside the limit.

make bench-reads, or: python -m bench.reads [--users 10000000] [--token]. wrk, 50 connections, random ids.
"""

import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import psycopg
import requests
from psycopg import conninfo

from bench.servers import PEERS, ROOT, database, free_port, wait_for

ROUNDS, SECONDS, CONNECTIONS = 3, 5, 50

LUA = """
math.randomseed(os.time())
request = function() return wrk.format("GET", string.format("{path}", math.random(1, {users}))) end
"""

OURS, ASYNC, ORM, FLASK, BARE = "Rowhouse", "FastAPI async", "FastAPI + ORM", "Flask + ORM, gthread", "bare Flask"

PATHS = {
    "by id": {OURS: "/users/%d", ASYNC: "/users/%d", ORM: "/users/%d", FLASK: "/users/%d", BARE: "/users/%d"},
    "by e-mail": {OURS: "/user?email=user%d.1@example.com", ASYNC: "/user?email=user%d.1@example.com"},
    "page of 50": {OURS: "/users?limit=50", ASYNC: "/users?limit=50&after=0"},
}


def command(name: str, port: int, processes: int) -> list[str]:
    gunicorn = ["-m", "gunicorn", "-c", "/dev/null", "-b", f"127.0.0.1:{port}", "-w", str(processes)]
    uvicorn = [str(PEERS / "uvicorn"), "--port", str(port), "--log-level", "warning", "--no-access-log"]
    return {
        OURS: [sys.executable, "-m", "gunicorn"],
        ASYNC: [*uvicorn, "--workers", str(processes), "bench.peers.users_async:app"],
        ORM: [*uvicorn, "--workers", str(processes), "bench.peers.users_orm:app"],
        FLASK: [str(PEERS / "python"), *gunicorn, "-k", "gthread", "--threads", "10", "bench.peers.users_flask:app"],
        BARE: [sys.executable, *gunicorn, "-k", "gevent", "bench.peers.bare:app"],
    }[name]


@contextmanager
def serving(name: str, url: str, processes: int) -> Iterator[int]:
    """The port of a server, for as long as the block lasts."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rowhouse-bench-") as directory:
        settings = {"DATABASE_URL": url, "DATA_DIR": directory, "PORT": str(port), "WORKERS": str(processes)}
        environment = os.environ | settings | {"LOG_LEVEL": "WARNING", "NOTIFIER": "no"}
        process = subprocess.Popen(
            command(name, port, processes),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/openapi.json")
            yield port
        finally:
            process.terminate()
            process.wait(15)


def rate(port: int, path: str, users: int, headers: dict[str, str]) -> float:
    """200s a second."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA.format(path=path, users=users))
        script.writelines(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
        script.flush()
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "-s", script.name]
        run = ["wrk", *options, f"http://127.0.0.1:{port}"]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


class Verifier(threading.Thread):
    """Checks bodies while the load runs: a wrong one is a failure."""

    def __init__(self, port: int, path: str, users: int) -> None:
        super().__init__(daemon=True)
        self.port, self.path, self.users, self.over, self.checked = port, path, users, threading.Event(), 0

    def run(self) -> None:
        with requests.Session() as session:
            while not self.over.wait(0.02):
                id = random.randint(1, self.users)
                body = session.get(f"http://127.0.0.1:{self.port}{self.path % id}", timeout=30).json()
                assert body["email"] == f"user{id}.1@example.com" if "email" in self.path else body["id"] == id, body
                self.checked += 1


def measured(name: str, port: int, path: str, users: int, headers: dict[str, str]) -> float:
    verifier = Verifier(port, path, users)
    if name != BARE and "page" not in path and "limit" not in path:
        verifier.start()
    found = rate(port, path, users, headers)
    verifier.over.set()
    if verifier.ident:
        verifier.join()
        assert verifier.checked > 10, "nothing could be checked"
    return found


def compare(url: str, users: int, work: str, processes: int) -> None:
    """Rates side by side, and ratios by round."""
    paths = PATHS[work]
    rates: dict[str, list[float]] = {name: [] for name in paths}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(serving(name, url, processes)) for name in paths}
        for round in range(ROUNDS + 1):
            for name, port in ports.items():
                found = measured(name, port, paths[name], users, {})
                if round:
                    rates[name].append(found)
    ours = rates.pop(OURS)
    print(f"| {work}, {processes} | {OURS} | {spread(ours)} | |")
    for name, theirs in rates.items():
        ratio = median(own / other for own, other in zip(ours, theirs, strict=True))
        print(f"| | {name} | {spread(theirs)} | {ratio:.2f} |", flush=True)


def guarded(url: str) -> tuple[str, str]:
    """A copy of the database that lets nobody in without a token, and one."""
    name, secret = "guarded", "rh_measured"
    with psycopg.connect(url, autocommit=True) as connection:
        source = connection.info.dbname
    with psycopg.connect(conninfo.make_conninfo(url, dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {source}")
    copy = conninfo.make_conninfo(url, dbname=name)
    with psycopg.connect(copy, autocommit=True) as connection:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        connection.execute("insert into tokens (name, role, sha256) values (%s, 'reader', %s)", [name, digest])
    return copy, secret


def compare_with_token(url: str, users: int) -> None:
    """The rate with a token beside that where none is needed."""
    copy, secret = guarded(url)
    os.environ["RATE_LIMIT"] = "100000000"
    rates: tuple[list[float], list[float]] = ([], [])
    headers = ({}, {"Authorization": f"Bearer {secret}"})
    with serving(OURS, url, 1) as free, serving(OURS, copy, 1) as fenced:
        for round in range(ROUNDS + 1):
            for port, given, found in zip((free, fenced), headers, rates, strict=True):
                seen = rate(port, PATHS["by id"][OURS], users, given)
                if round:
                    found.append(seen)
    ratio = median(own / other for other, own in zip(*rates, strict=True))
    print(f"| by id with a token, 1 | {OURS} | {spread(rates[1])} | |")
    print(f"| | {OURS}, none needed | {spread(rates[0])} | {ratio:.2f} |", flush=True)


def spread(values: list[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


SOAK = 3_000_000
"""Answers of a soak."""

KILL = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'rowhouse reads'
"""


def soak() -> None:
    """Read through the shared connection while it is killed again and again: no answer goes to another request."""
    import gevent

    from db.multiplex import Multiplexer, Unanswered
    from db.queries import STATEMENTS

    with database(users=10_000, projects=0, userstories=0) as url:
        shared, over, counts = Multiplexer(url), [], {"right": 0, "left to the pool": 0}
        statements = [STATEMENTS["users.get"], STATEMENTS["users.by_email"]]

        def read() -> None:
            while not over:
                id = random.randint(1, 10_000)
                by_id = random.random() < 0.5
                statement = statements[not by_id]
                given = {"id": id, "email": f"user{id}.1@example.com"}
                try:
                    body = shared.read(statement, [given.get(name, "") for name in statement.parameters]).body
                except Unanswered:
                    counts["left to the pool"] += 1
                    gevent.sleep(0.001)
                    continue
                assert (b'"id":%d,' % id if by_id else b'"user%d.1@example.com"' % id) in body, (id, body)
                counts["right"] += 1

        readers = [gevent.spawn(read) for _ in range(50)]
        kills = 0
        while counts["right"] < SOAK:
            gevent.sleep(random.uniform(0.05, 1.5))
            with psycopg.connect(url, autocommit=True) as connection:
                kills += connection.execute(KILL).fetchone()[0]
        over.append(True)
        gevent.joinall(readers, raise_error=True)
        right, left = counts.values()
        print(f"{right:,} right answers, none wrong; {left:,} left to the pool, in {kills} kills")


def main() -> None:
    users = int(sys.argv[sys.argv.index("--users") + 1]) if "--users" in sys.argv else 1_000_000
    with database(users=users, projects=0, userstories=0) as url:
        print(f"{users:,} users, {CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s each way in turn\n")
        print("| work, processes | server | answers/s | Rowhouse is x times |\n| --- | --- | --- | --- |")
        if "--token" not in sys.argv:
            for work, processes in (("by id", 1), ("by id", 2), ("by e-mail", 1), ("page of 50", 1)):
                compare(url, users, work, processes)
        compare_with_token(url, users)


if __name__ == "__main__":
    soak() if "--soak" in sys.argv else main()
