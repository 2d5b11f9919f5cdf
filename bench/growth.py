"""What the hot statements cost among ten thousand, a million and ten million users, each with three entries of history.

make bench-growth, or: python -m bench.growth [DIRECTORY], which keeps the data there and takes it up again. Pages
touched come from EXPLAIN, times from the prepared statement executed again and again.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg

from bench.results import put
from bench.servers import grown
from db import Connection, private_postgres, run, seeding
from db.pool import SERVICE, connect
from db.queries import STATEMENTS

SIZES = (10_000, 1_000_000, 10_000_000)

ENTRIES = 3
"""Of the history of each user."""

SLICE = 100_000
"""Users whose history is made in one transaction."""

HISTORY = """
    insert into history.entries (operation_date, obj_type, obj_id, action, actor, request_id, version, old_obj, new_obj)
    select
        date_trunc('month', now()) + ($1::bigint * $2::bigint + u.id) * interval '50 milliseconds',
        'user',
        u.id::text,
        'update',
        'seed',
        md5(u.id::text),
        $1::integer + 1,
        to_jsonb(u) || jsonb_build_object('version', $1::integer, 'text', 'Saved ' || $1::integer || ' times.'),
        to_jsonb(u) || jsonb_build_object('version', $1::integer + 1, 'text', 'Saved ' || $1::integer + 1 || ' times.')
    from users as u
    where u.id between $3::bigint and $4::bigint
    order by u.id
"""
"""The next version of these users, as far as history goes: what it says of one is what a trigger would have written."""


# The data -------------------------------------------------------------------------------------------------------------


@contextmanager
def databases(directory: Path) -> Iterator[dict[int, str]]:
    """The addresses of a database of each size on one private server; what is there already stays."""
    with private_postgres.server(directory) as url:
        yield {size: filled(url, size) for size in SIZES}


def filled(server: str, size: int) -> str:
    """The address of a database with so many users and their history."""
    url = grown(server, size)
    with connect(url) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("set synchronous_commit = off")
        last = "select max(version) from history.entries where obj_type = 'user' and obj_id = $1"
        there = connection.execute(last, [str(size)]).fetchone()[0] or 1
        for version in range(there, ENTRIES + 1):
            for first, last in seeding.slices(size, SLICE):
                connection.execute(HISTORY, [version, size, first, last])
        if there < ENTRIES + 1:
            connection.execute("vacuum analyze")
    return url


# What is measured -----------------------------------------------------------------------------------------------------

LIMIT = 5
"""Seconds that a statement may take, as in the service."""

REPEATS, SECONDS = 5, 0.4
"""Means of what is executed for so many seconds, each time for another row; the least of them is told."""

LATE = 100_000
"""The page of 50 that is far from the first; of fewer users the last."""


def key(size: int) -> str:
    return str(random.randint(1, size))


STATEMENTS_OF: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "by id": ("users.get", lambda size: {"id": key(size)}),
    "by e-mail": ("users.by_email", lambda size: {"email": f"user{key(size)}.1@example.com"}),
    "page 1": ("users.list", lambda size: {"limit": "50"}),
    f"page {LATE:,}": ("users.list", lambda size: {"limit": "50", "after_id": str(min(LATE * 50, size - 50))}),
    "address, in one row of 29,000": ("users.search", lambda size: {"address": f"{random.randint(100, 999)} oak"}),
    "address, in one row of 29": ("users.search", lambda size: {"address": "oak"}),
    "address, in one row of 23": ("users.search", lambda size: {"address": "springfield"}),
    "address, in no row": ("users.search", lambda size: {"address": "qqq"}),
    "the history of one": ("history.list", lambda size: {"noun": "users", "obj_id": key(size)}),
    "one as of a version": ("users.as_of", lambda size: {"id": key(size), "as_of": "3"}),
}


class Cost(NamedTuple):
    """Pages of 8 KiB that were touched, and microseconds."""

    pages: int
    time: float


def cost(connection: Connection, name: str, given: Callable[[], dict[str, Any]]) -> Cost:
    """What a statement costs for parameters that `given` makes up, as the service asks it."""

    def ask() -> None:
        list(run(connection, name, **given()))

    def mean() -> float:
        began, number = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            ask()
            number += 1
        return (time.perf_counter() - began) / number

    means = [mean() for _ in range(REPEATS)]
    return Cost(round(median(pages(connection, name, given()) for _ in range(9))), min(means) * 1e6)


def pages(connection: Connection, name: str, parameters: dict[str, Any]) -> int:
    """The pages that a statement touches once it is planned."""
    statement = STATEMENTS[name].fit(parameters)
    values = statement.values(parameters)
    plan = connection.execute(b"explain (analyze, buffers, format json) " + statement.sql, values).fetchone()[0]
    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


SHAPE = r"""
    select c.relname, pg_relation_size(c.oid) / 8192, c.reltuples
    from pg_class as c
    where c.relname ~ '^(users|users_(pkey|email_key|address_idx)|entries_\d{4}_\d\d(|_obj_type.*))$'
        and pg_relation_size(c.oid) > 8192
    order by c.relname
"""
"""Tables and indexes: their pages of 8 KiB and rows."""


def table(urls: dict[int, str]) -> Iterator[str]:
    costs: dict[str, list[str]] = {work: [] for work in STATEMENTS_OF}
    shapes: dict[str, list[str]] = {}
    for size, url in urls.items():
        with connect(url, SERVICE) as connection:
            connection.execute(f"set statement_timeout = '{LIMIT}s'")
            for work, (name, given) in STATEMENTS_OF.items():
                try:
                    found = cost(connection, name, partial(given, size))
                    costs[work].append(f"{found.pages:,}, {found.time:,.0f}")
                except psycopg.errors.QueryCanceled:
                    costs[work].append(f"over {LIMIT} s")
            for name, count, rows in connection.execute(SHAPE).fetchall():
                shapes.setdefault(name, []).append(f"{count:,}" + (f" for {rows:,.0f} rows" if rows > 0 else ""))
    yield "| statement | " + " | ".join(f"{size:,} users: pages, µs" for size in urls) + " |"
    yield "| --- |" + " --- |" * len(urls)
    for work, told in costs.items():
        yield f"| {work} | " + " | ".join(told) + " |"
    yield ""
    yield "| pages of 8 KiB | " + " | ".join(f"{size:,} users" for size in urls) + " |"
    yield "| --- |" + " --- |" * len(urls)
    for name, told in shapes.items():
        yield f"| {name} | " + " | ".join(told) + " |"


def main() -> None:
    with ExitStack() as stack:
        fresh = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowhouse-growth-"))
        urls = stack.enter_context(databases(Path(sys.argv[1]) if sys.argv[1:] else Path(fresh)))
        lines = [*table(urls)]
    print("\n".join(lines))
    put("make bench-growth", "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
