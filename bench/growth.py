"""What the hot statements cost among ten thousand, a million and ten million users, each with three entries of history.

make bench-growth, or: python -m bench.growth [DIRECTORY], which keeps the data there and takes it up again. Pages
touched come from EXPLAIN, times from the prepared statement executed again and again.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.servers import grown
from db import embedded, seeding
from db.pool import connect

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
    with embedded.server(directory) as url:
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
        connection.execute("vacuum analyze")
    return url


def main() -> None:
    with ExitStack() as stack:
        fresh = stack.enter_context(tempfile.TemporaryDirectory(prefix="rowhouse-growth-"))
        urls = stack.enter_context(databases(Path(sys.argv[1]) if sys.argv[1:] else Path(fresh)))
        print(urls)


if __name__ == "__main__":
    main()
