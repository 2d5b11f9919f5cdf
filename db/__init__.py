"""What the service says to PostgreSQL: `read`, `write`, `transaction`. It knows nothing of HTTP.

Each takes the name of a statement in sql/queries and its parameters by name; a parameter not given is empty.
Rows are tuples with names: `row.version`, `row.body`. Errors are psycopg's.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from db.pool import Pool, PoolTimeout, connect
from db.queries import STATEMENTS

Connection = psycopg.Connection[tuple]

COPY_SLICE = 500
"""Rows after which a COPY lets other requests have a turn."""

_pool: Pool | None = None


def open_pool(dsn: str, size: int) -> None:
    """Open the process's pool of `size` connections. It connects in the background: a database may come later."""
    global _pool
    _pool = Pool(dsn, size)
    _pool.open()


def close_pool() -> None:
    """Give all connections back to the server."""
    global _pool
    if _pool:
        _pool.close()
    _pool = None


def pool() -> Pool:
    """The process's pool. Raises RuntimeError before it is open."""
    if _pool is None:
        raise RuntimeError("the pool is not open")
    return _pool


def run(connection: Connection, name: str, /, **parameters: Any) -> Iterator[Any]:
    """The rows of a named statement on this connection."""
    statement = STATEMENTS[name]
    values = [parameters.get(parameter, "") for parameter in statement.parameters]
    cursor = connection.cursor(row_factory=namedtuple_row)
    # A list is planned for its values (see sql/README.md); all else keeps one prepared plan.
    return cursor.execute(statement.sql, values, prepare=False if is_list(name) else None)


@cache
def is_list(name: str) -> bool:
    return name.endswith((".list", ".errors"))


def read(name: str, /, **parameters: Any) -> Any:
    """The first row of a reading statement, or None; asked once more where its connection turns out to be lost."""
    try:
        return write(name, **parameters)
    except psycopg.OperationalError as error:
        if not lost(error):
            raise
        return write(name, **parameters)


def write(name: str, /, **parameters: Any) -> Any:
    """The first row of a statement, or None; committed when this returns."""
    with pool().lend() as connection:
        return next(run(connection, name, **parameters), None)


@contextmanager
def transaction(statement_timeout: str) -> Iterator[Connection]:
    """Several statements as one transaction, for bulk work; each may take `statement_timeout` ("10min")."""
    with pool().lend() as connection, connection.transaction():
        connection.execute(f"set local statement_timeout = '{statement_timeout}'")
        yield connection


def copy(connection: Connection, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Send rows through a named COPY … FROM STDIN."""
    with connection.cursor().copy(STATEMENTS[name].sql) as copying:
        for number, row in enumerate(rows):
            copying.write_row(row)
            if number % COPY_SLICE == 0:
                time.sleep(0)


def lost(error: psycopg.Error) -> bool:
    """Whether an error means that the connection is gone, rather than that the statement was wrong."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError) and not isinstance(error, PoolTimeout)
    return error.sqlstate.startswith(("08", "57P"))


def explain(dsn: str, name: str, parameters: dict[str, Any]) -> list[str]:
    """The plan of a named statement as it ran, line by line; whatever it changed is rolled back."""
    statement = STATEMENTS[name]
    with connect(dsn) as connection, connection.transaction(force_rollback=True):
        values = [parameters.get(parameter, "") for parameter in statement.parameters]
        return [line for (line,) in connection.execute(b"explain (analyze, buffers) " + statement.sql, values)]
