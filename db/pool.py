"""The pool of connections: opened after the fork, every wait bounded, and emptied as soon as one connection is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, AdaptContext, Buffer, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.errors import _WaitTimeout
from psycopg_pool import ConnectionPool, PoolTimeout

POOL_WAIT = 2.0
"""Seconds a request waits for a connection before it is answered 503."""

CONNECT_TIMEOUT = 3
"""Seconds to reach the server."""

LONGER = 2.0
"""Seconds that an answer may take beyond what the server may compute for it."""

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


class NoAnswer(psycopg.OperationalError):
    """The server did not refuse, and did not answer either: nobody knows what it did."""


class BoundConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no answer is waited for longer than the server may take for it."""

    answer_within = 0.0
    """Seconds for each statement, and for each part of one."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, self.answer_within if timeout is None else timeout)
        except _WaitTimeout:
            self.close()
            raise NoAnswer("no answer came") from None

    @contextmanager
    def allowed(self, seconds: int) -> Iterator[None]:
        """Let each statement of the transaction that is open take so many seconds, until the block ends."""
        self.execute(f"set local statement_timeout = '{seconds}s'")
        before, self.answer_within = self.answer_within, seconds + LONGER
        try:
            yield
        finally:
            self.answer_within = before


class Pool(ConnectionPool[BoundConnection]):
    """psycopg's pool, which forgets all its connections when one of them turns out to be lost."""

    def __init__(self, dsn: str, size: int, statement_timeout: int) -> None:
        def bound(connection: BoundConnection) -> None:
            configure(connection)
            connection.answer_within = statement_timeout + LONGER

        super().__init__(
            dsn,
            connection_class=BoundConnection,
            min_size=1,
            max_size=size,
            open=False,
            timeout=POOL_WAIT,
            # A server that is away is asked again by the next request, not after a delay that doubles each time.
            reconnect_timeout=0,
            configure=bound,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT,
                "cursor_factory": psycopg.RawCursor,
                "application_name": "rowhouse",
                "options": f"{SERVICE} -c statement_timeout={statement_timeout}s",
            },
        )

    @contextmanager
    def lend(self) -> Iterator[BoundConnection]:
        """A connection for as long as the block lasts. Raises PoolTimeout after POOL_WAIT seconds."""
        with self.connection() as connection:
            try:
                yield connection
            except psycopg.OperationalError:
                if connection.broken:
                    self.drain()
                raise


__all__ = ["Pool", "PoolTimeout", "connect"]
