"""The pool of connections: opened after the fork, every wait bounded, and emptied as soon as one connection is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import RV, AdaptContext, Buffer, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import make_conninfo
from psycopg.errors import _WaitTimeout
from psycopg_pool import ConnectionPool, PoolTimeout

POOL_WAIT = 2.0
"""Seconds a request waits for a connection before it is answered 503."""

CONNECT_TIMEOUT = 3
"""Seconds to reach the server."""

LONGER = 2.0
"""Seconds that an answer may take beyond what the server may compute for it."""

LONG, SILENT = 10.0, 4.0
"""Seconds from which on an answer takes long, and without a word of it after which somebody asks if all is well."""

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


class NoAnswer(psycopg.OperationalError):
    """The server did not refuse, and did not answer either: nobody knows what it did."""


class BoundConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no answer is waited for longer than the server may take for it."""

    answer_within: float | None = None
    """Seconds for each statement, and for each part of one; None: as long as it takes."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        within = self.answer_within if timeout is None else timeout
        try:
            return super().wait(gen if within and within <= LONG else self.listened(gen), interval, within)
        except _WaitTimeout:
            self.close()
            raise NoAnswer("no answer came") from None

    def listened(self, gen: PQGen[RV]) -> PQGen[RV]:
        """An answer that may take long, as if its time was over where the server has none for anybody else either."""
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENT:
                    self.check_there()
                    heard = time.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: RV = end.value
            return answer

    def check_there(self) -> None:
        """Raises _WaitTimeout where the server takes no other connection: it froze, or is gone with its machine.

        One that refuses is there; where it has died, this connection is told so by itself.
        """
        info = self.info
        here: dict[str, Any] = {"host": info.host, "hostaddr": info.hostaddr or None, "port": info.port}
        here |= {"password": info.password, "target_session_attrs": "any"}
        try:
            psycopg.connect(make_conninfo(info.dsn, **here), connect_timeout=CONNECT_TIMEOUT).close()
        except psycopg.errors.ConnectionTimeout as error:
            raise _WaitTimeout from error
        except psycopg.OperationalError:
            pass

    @contextmanager
    def allowed(self, seconds: int) -> Iterator[None]:
        """Let each statement of the transaction that is open take so many seconds, until the block ends."""
        self.execute(f"set local statement_timeout = '{seconds}s'")
        before, self.answer_within = self.answer_within, seconds + LONGER
        try:
            yield
        finally:
            self.answer_within = before


def connect(dsn: str, options: str = OWNER, application_name: str = "") -> BoundConnection:
    """A connection of its own, for the command line, the migrations, the feed, the relay; the caller closes it."""
    connection = BoundConnection.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT,
        cursor_factory=psycopg.RawCursor,
        options=options,
        application_name=application_name,
    )
    configure(connection)
    return connection


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
