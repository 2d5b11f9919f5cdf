"""Rowhouse beside FastAPI and Flask as others write them, beside the limits, and beside itself among fewer rows.

make bench, or: python -m bench.side_by_side (--help says at what scale, and for how long).
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg

from bench.load import (
    Ask,
    Listener,
    Meter,
    Seen,
    as_fast_as_it_can,
    at_a_constant_rate,
    need,
    postmaster,
    statement_alone,
)
from bench.results import Figures, publish
from bench.servers import PEERS, database_copy, free_port, grown, roomy, started

OURS, ASYNC, ORM, FLASK = "Rowhouse", "FastAPI, async psycopg", "FastAPI, SQLAlchemy", "Flask, SQLAlchemy, gthread"
BARE, ALONE = "bare Flask, a constant, on our worker", "pgbench, the statement alone"

SMALL = 10_000
"""Users beside which many are measured."""

ASKS = 100_000
"""Requests that a run has ready; then it begins again."""


class Scale(NamedTuple):
    """How much is measured, and for how long."""

    users: int
    grown: int
    rounds: int
    seconds: float


# The servers ----------------------------------------------------------------------------------------------------------


def command(name: str, port: int, processes: int) -> list[str]:
    uvicorn = [str(PEERS / "uvicorn"), "--port", str(port), "--log-level", "warning", "--no-access-log"]
    gthread = ["-c", "python:bench.peers.gthread", "-b", f"127.0.0.1:{port}", "-w", str(processes)]
    return {
        OURS: [sys.executable, "-m", "gunicorn"],
        ASYNC: [*uvicorn, "--workers", str(processes), "bench.peers.users_async:app"],
        ORM: [*uvicorn, "--workers", str(processes), "bench.peers.users_orm:app"],
        FLASK: [str(PEERS / "python"), "-m", "gunicorn", *gthread, "bench.peers.users_flask:app"],
        # By gunicorn.conf.py as ours is: the same worker, the same settings and hooks.
        BARE: [sys.executable, "-m", "gunicorn", "bench.peers.bare:app"],
    }[name]


class Server(NamedTuple):
    """One that runs: where it listens, its process, and that of its database."""

    port: int
    pid: int
    database: int

    def meter(self) -> Meter:
        return Meter(self.pid, self.database)


@contextmanager
def serving(name: str, url: str, processes: int = 1) -> Iterator[Server]:
    port = free_port()
    settings = {"WORKERS": str(processes), "NOTIFIER": "no", "RATE_LIMIT": "100000000"}
    with started(command(name, port, processes), url, port, "/openapi.json", **settings) as process:
        yield Server(port, process.pid, postmaster(url))


# What is asked --------------------------------------------------------------------------------------------------------


def by_id(users: int) -> list[Ask]:
    ids = random.choices(range(1, users + 1), k=ASKS)
    return [Ask(id, f"/users/{id}", proof=f'"id":{id},') for id in ids]


def by_email(users: int) -> list[Ask]:
    emails = (f"user{id}.1@example.com" for id in random.choices(range(1, users + 1), k=ASKS))
    return [Ask(email, f"/user?email={email}") for email in emails]


def pages(users: int) -> list[Ask]:
    return [Ask(50, "/users?limit=50")] * 1000


STREETS = ("Maple", "Oak", "Mill", "Church", "Station", "Garden", "Harbour", "Castle", "Willow", "Linden")
"""Some of those in sql/seed/bulk.sql."""


def searches(users: int) -> list[Ask]:
    terms = (f"{random.randint(100, 999)} {random.choice(STREETS)}".lower() for _ in range(ASKS // 10))
    return [Ask(term, f"/users?address={quote(term)}") for term in terms]


def items(body: Any) -> list[Any]:
    """The rows of a page of ours, or of a peer's."""
    return body["items"] if isinstance(body, dict) else body


def is_user(id: int, body: Any) -> bool:
    return body["id"] == id and "@" in body["email"]


def has_email(email: str, body: Any) -> bool:
    return body["email"] == email


def is_page(size: int, body: Any) -> bool:
    ids = [row["id"] for row in items(body)]
    return ids == list(range(ids[0], ids[0] + size))


def was_found(term: str, body: Any) -> bool:
    return all(term in row["address"].lower() for row in items(body)) and len(items(body)) <= 50


def was_changed(asked: tuple[int, int, str], body: Any) -> bool:
    id, version, name = asked
    return (body["id"], body["version"], body["name"]) == (id, version, name)


def is_any(_: object, body: Any) -> bool:
    return bool(body)


class Changes:
    """PATCHes of users, each once, from the version that it is in."""

    def __init__(self, url: str, users: int, runs: int, counted: bool) -> None:
        self.url, self.counted, self.number = url, counted, count(1)
        self.ids = random.sample(range(1, users + 1), users)
        self.share = min(ASKS // 2, users // runs)

    def asks(self, _: int) -> list[Ask]:
        ids = [self.ids.pop() for _ in range(self.share)]
        with psycopg.connect(self.url) as connection:
            found = "select id, version from users where id = any(%s)"
            versions = dict(connection.execute(found, [ids]).fetchall())
        return [self.ask(id, versions[id]) for id in ids]

    def ask(self, id: int, version: int) -> Ask:
        name = f"Saved {next(self.number)}"
        body = {"version": version, "name": name} if self.counted else {"name": name}
        return Ask((id, version + self.counted, name), f"/users/{id}", "PATCH", json.dumps(body))


# The comparisons ------------------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One side of a comparison: its name, its run, which takes no parameters."""

    name: str
    run: Callable[[], Any]


def compare(rounds: int, sides: list[Side]) -> dict[str, list[Any]]:
    """What each side showed in each round, one after the other in each; a first round is left out."""
    seen: dict[str, list[Any]] = {side.name: [] for side in sides}
    for round in range(rounds + 1):
        # Who comes first changes, so that whatever goes on beside it meets all alike.
        for side in sides[::-1] if round % 2 else sides:
            found = side.run()
            if round:
                seen[side.name].append(found)
    return seen


JSON = {"Content-Type": "application/json"}


def side(
    name: str,
    server: Server,
    asks: Callable[[int], list[Ask]],
    right: Callable[[Any, Any], bool],
    scale: Scale,
    users: int = 0,
    headers: dict[str, str] | None = None,
) -> Side:
    def run() -> Seen:
        prepared = asks(users or scale.users)
        return as_fast_as_it_can(server.port, server.meter, prepared, right, scale.seconds, headers or {})

    return Side(name, run)


class Bench:
    """All comparisons over one database; what they show goes to `figures`."""

    def __init__(self, server: str, scale: Scale, figures: Figures) -> None:
        self.server, self.scale, self.figures = server, scale, figures
        self.url = grown(server, scale.users)

    def reads(self) -> None:
        every = {OURS: is_user, ASYNC: is_user, ORM: is_user, FLASK: is_user, BARE: is_any}
        two = {OURS: has_email, ASYNC: has_email}
        self.read("by id, 1 process", 1, by_id, every)
        self.read("by id, 2 processes", 2, by_id, every)
        self.read("by e-mail", 1, by_email, two)
        self.read("page of 50", 1, pages, dict.fromkeys(two, is_page))
        self.read("search by part of an address", 1, searches, dict.fromkeys(two, was_found))

    def read(
        self, work: str, processes: int, asks: Callable[[int], list[Ask]], checks: dict[str, Callable[[Any, Any], bool]]
    ) -> None:
        with ExitStack() as stack:
            sides = [
                side(name, stack.enter_context(serving(name, self.url, processes)), asks, right, self.scale)
                for name, right in checks.items()
            ]
            if BARE in checks:
                sides.append(Side(ALONE, lambda: self.alone(processes)))
            self.figures.rates[work] = compare(self.scale.rounds, sides)

    def alone(self, threads: int) -> Seen:
        meter = Meter(None, postmaster(self.url))
        return statement_alone(self.url, meter, "users.get", self.scale.users, self.scale.seconds, threads)

    def changes(self) -> None:
        """With version, history, and the feed, which somebody listens to; the peer in an equal table without."""
        runs = self.scale.rounds + 1
        with database_copy(self.url, "changed") as ours, database_copy(self.url, "updated") as theirs:
            with psycopg.connect(theirs, autocommit=True) as connection:
                connection.execute("alter table users disable trigger user")
            with serving(OURS, ours) as house, serving(ASYNC, theirs) as peer, Listener(house.port) as listener:
                mine = Changes(ours, self.scale.users, runs, True)
                plain = Changes(theirs, self.scale.users, runs, False)
                sides = [
                    side(OURS, house, mine.asks, was_changed, self.scale, headers=JSON),
                    side(ASYNC, peer, plain.asks, was_changed, self.scale, headers=JSON),
                ]
                self.figures.rates["PATCH"] = compare(self.scale.rounds, sides)
                made = self.scale.seconds * sum(seen.rate for seen in self.figures.rates["PATCH"][OURS])
                assert listener.changes > made, f"{listener.changes} of more than {made:.0f} changes came"

    def waits(self) -> None:
        """p99 at half of what each can, at the same rate, and what the generator itself sees of a constant."""
        most = {name: self.figures.median("by id, 1 process", name) for name in (OURS, ASYNC)}
        same = min(most.values()) / 2
        with ExitStack() as stack:
            servers = {name: stack.enter_context(serving(name, self.url)) for name in (OURS, ASYNC, BARE)}

            def wait(name: str, rate: float) -> Side:
                port = servers[name].port
                asks = by_id(self.scale.users)
                if name == BARE:
                    asks = [ask._replace(proof='"id"') for ask in asks]
                return Side(name, lambda: (*at_a_constant_rate(port, asks, rate, self.scale.seconds), rate))

            own = [wait(OURS, most[OURS] / 2), wait(ASYNC, most[ASYNC] / 2), wait(BARE, max(most.values()) / 2)]
            self.figures.waits["p99 at half of its own maximum"] = compare(self.scale.rounds, own)
            equal = [wait(OURS, same), wait(ASYNC, same)]
            self.figures.waits["p99 at the same rate"] = compare(self.scale.rounds, equal)

    def token(self) -> None:
        """With a token, of a role and counted against its quota, beside where none is needed."""
        secret = "rh_measured"  # noqa: S105
        with database_copy(self.url, "guarded") as copy:
            with psycopg.connect(copy, autocommit=True) as connection:
                digest = hashlib.sha256(secret.encode()).hexdigest()
                connection.execute("insert into tokens (name, role, sha256) values (%s, 'reader', %s)", ["a", digest])
            with serving(OURS, self.url) as free, serving(OURS, copy) as fenced:
                headers = {"Authorization": f"Bearer {secret}"}
                sides = [
                    side(OURS, fenced, by_id, is_user, self.scale, headers=headers),
                    side(NO_TOKEN, free, by_id, is_user, self.scale),
                ]
                self.figures.rates["by id, with a token"] = compare(self.scale.rounds, sides)

    def growth(self) -> None:
        many, few = grown(self.server, self.scale.grown), grown(self.server, SMALL)
        with serving(OURS, many) as large, serving(OURS, few) as small:
            sides = [
                side(OURS, large, by_id, is_user, self.scale, self.scale.grown),
                side(FEW, small, by_id, is_user, self.scale, SMALL),
            ]
            self.figures.rates["by id among many"] = compare(self.scale.rounds, sides)


NO_TOKEN, FEW = "Rowhouse where none is needed", f"Rowhouse among {SMALL:,}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000, help="rows of the table (1,000,000)")
    parser.add_argument("--grown", type=int, help="rows beside which 10,000 are measured (as --users)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, besides a first that is left out (5)")
    parser.add_argument("--seconds", type=float, default=4, help="seconds of a run (4)")
    parser.add_argument("--keep", type=Path, help="a directory for the data, which stays and is taken up again")
    given = parser.parse_args()
    scale = Scale(given.users, given.grown or given.users, given.rounds, given.seconds)
    need("wrk", "wrk")
    need("pgbench", "postgresql-contrib")
    with ExitStack() as stack:
        fresh = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowhouse-bench-"))
        url = stack.enter_context(roomy(given.keep or Path(fresh)))
        with psycopg.connect(url) as connection:
            postgres = connection.info.server_version // 10000
        figures = Figures(**scale._asdict(), postgres=postgres)
        bench = Bench(url, scale, figures)
        for part in (bench.reads, bench.changes, bench.waits, bench.token, bench.growth):
            part()
    publish(figures)


if __name__ == "__main__":
    main()
