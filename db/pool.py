"""The pool of connections: opened after the fork, every wait bounded, and emptied as soon as one connection is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg_pool import ConnectionPool, PoolTimeout

POOL_WAIT = 2.0
"""Seconds a request waits for a connection before it is answered 503."""

CONNECT_TIMEOUT = 3
"""Seconds to reach the server."""

SETTINGS = {
    "timezone": "UTC",
    "jit": "off",
    "statement_timeout": "5s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",
    "client_connection_check_interval": "2s",
}
"""What every connection of the service begins with: no statement, lock or open transaction holds others up for long."""


ROLE = "rowhouse_service"
"""What the service works as: it owns nothing (sql/schema/12_roles.sql)."""

OWNER = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
"""SETTINGS as libpq's options, with the rights of whoever connects."""

SERVICE = f"{OWNER} -c role={ROLE}"
"""The same, with the rights of the service."""


class IntegerDumper(Dumper):
    """Sends an int without a type: the statement's own cast decides, and one plan serves 7 and 7,000,000,000."""

    def dump(self, obj: int) -> Buffer:
        return b"%d" % obj


class Bytes(Loader):
    """Leaves json as the bytes PostgreSQL made of it: the service passes them on untouched."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def configure(context: AdaptContext) -> None:
    """Prepare a connection for named statements."""
    context.adapters.register_dumper(int, IntegerDumper)
    context.adapters.register_loader("json", Bytes)


def connect(dsn: str, options: str = OWNER, application_name: str = "") -> "psycopg.Connection[tuple]":
    """A connection of its own, for the command line, the migrations, the feed, the relay; the caller closes it."""
    connection = psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT,
        cursor_factory=psycopg.RawCursor,
        options=options,
        application_name=application_name,
    )
    configure(connection)
    return connection


class Pool(ConnectionPool):
    """psycopg's pool, which forgets all its connections when one of them turns out to be lost."""

    def __init__(self, dsn: str, size: int, statement_timeout: int) -> None:
        super().__init__(
            dsn,
            min_size=1,
            max_size=size,
            open=False,
            timeout=POOL_WAIT,
            # A server that is away is asked again by the next request, not after a delay that doubles each time.
            reconnect_timeout=0,
            configure=configure,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT,
                "cursor_factory": psycopg.RawCursor,
                "application_name": "rowhouse",
                "options": f"{SERVICE} -c statement_timeout={statement_timeout}s",
            },
        )

    @contextmanager
    def lend(self) -> "Iterator[psycopg.Connection[tuple]]":
        """A connection for as long as the block lasts. Raises PoolTimeout after POOL_WAIT seconds."""
        with self.connection() as connection:
            try:
                yield connection
            except psycopg.OperationalError:
                if connection.broken:
                    self.drain()
                raise


__all__ = ["Pool", "PoolTimeout", "connect"]
