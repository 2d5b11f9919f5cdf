"""Multiplexed reads: one pipelined connection a process, which all greenlets share for single reading statements.

A check-out from the pool costs more than the statement it is for. Here a greenlet adds its statement to those of
others, and the reader hands each answer to whoever asked. What was asked in one turn of the loop goes out together,
with one sync point at its end: one message to the server, and one transaction there. An error stays with its statement;
those behind it, up to the sync point, are not run. Whatever is not run, does not come within WAIT, or fails with its
connection, is for the caller to ask of the pool.
"""

import time
from collections import deque, namedtuple
from collections.abc import Callable
from itertools import count
from typing import Any, NoReturn

import gevent
import psycopg
from gevent.hub import Waiter
from psycopg.pq import ConnStatus, ExecStatus

from db.pool import SERVICE, connect
from db.queries import Statement

WAIT = 1.0
"""Seconds for an answer."""

STATEMENT_TIMEOUT = "250ms"
"""What one statement may take: so long it may hold up those behind it."""

AGAIN_AFTER = 1.0
"""Seconds after a loss until the next connection is tried."""

READ, WRITE = 1, 2
"""What a loop watches a socket for."""

UNFIT_FOR = 60.0
"""Seconds for which a statement that failed or took too long is left to the pool."""

BATCH = 8
"""Statements that are sent at once: the server works on them while the loop takes others in."""

WAITING = 1000
"""Statements that may be under way."""

OPTIONS = f"{SERVICE} -c statement_timeout={STATEMENT_TIMEOUT} -c default_transaction_read_only=on"

LOADERS: dict[int, Callable[[bytes], Any]] = {
    16: lambda value: value == b"t",
    20: int,
    21: int,
    23: int,
    25: bytes.decode,
    114: bytes,
    1043: bytes.decode,
}
"""What reads a value, by the OID of its type: boolean, integers, texts, and json as PostgreSQL made it."""


class Unanswered(Exception):
    """The statement could not be answered here: it is to be asked of the pool."""


class Shape:
    """A statement's row: its names, and what reads its values."""

    def __init__(self, result: Any) -> None:
        names = [result.fname(column).decode() for column in range(result.nfields)]
        self.row: Any = namedtuple("Row", names)  # type: ignore[misc]
        self.loaders = [LOADERS[result.ftype(column)] for column in range(result.nfields)]

    def read(self, result: Any) -> Any:
        values = [result.get_value(0, column) for column in range(result.nfields)]
        return self.row(
            *[None if value is None else load(value) for value, load in zip(values, self.loaders, strict=True)]
        )


class Asked:
    """A statement under way: who waits for its result, and since when."""

    __slots__ = ("at", "waiter")

    def __init__(self) -> None:
        self.waiter = Waiter()
        self.at = time.monotonic()


class Prepared:
    """A statement that is being prepared; nobody waits for that."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Line:
    """A connection in pipeline mode, and who waits for its answers.

    What it hears and sends it does in the hub, between greenlets, so that an answer costs one switch: to whoever asked.
    """

    def __init__(self, dsn: str) -> None:
        self.connection = connect(dsn, OPTIONS, "rowhouse reads")
        self.pgconn: Any = self.connection.pgconn
        self.pgconn.nonblocking = 1
        self.pgconn.enter_pipeline_mode()
        self.waiting: deque[Asked | Prepared] = deque()
        self.prepared: dict[str, bytes] = {}
        self.numbers = count()
        self.result: Any = None
        self.unsent = 0
        self.failed = self.lost = False
        self.loop = gevent.get_hub().loop
        self.readable = self.loop.io(self.pgconn.socket, READ)
        self.writable = self.loop.io(self.pgconn.socket, WRITE)
        self.clock = self.loop.timer(WAIT / 2, WAIT / 2)
        self.readable.start(self.hear)
        self.clock.start(self.look)

    def ask(self, statement: Statement, values: list[bytes]) -> Any:
        """The result of a statement. Raises Unanswered."""
        try:
            name = self.prepared.get(statement.name)
            if name is None:
                name = self.prepared[statement.name] = b"m%d" % next(self.numbers)
                self.pgconn.send_prepare(name, statement.sql)
                self.waiting.append(Prepared(statement.name))
            self.pgconn.send_query_prepared(name, values)
        except psycopg.Error as error:
            self.fail(error)
            raise Unanswered(str(error)) from error
        asked = Asked()
        self.waiting.append(asked)
        self.unsent += 1
        if self.unsent == BATCH:
            self.send()
        elif self.unsent == 1:
            # At the end of this turn of the loop, for all that was asked in it.
            self.loop.run_callback(self.send)
        return asked.waiter.get()

    def send(self) -> None:
        """Send what was asked, and the sync point that ends it; the rest when there is room."""
        if not self.unsent or self.failed or self.lost:
            return
        self.unsent = 0
        try:
            self.pgconn.pipeline_sync()
            if self.pgconn.flush():
                self.writable.start(self.flush)
        except psycopg.Error as error:
            self.fail(error)

    def flush(self) -> None:
        """In the hub: send the rest."""
        try:
            if not self.pgconn.flush():
                self.writable.stop()
        except psycopg.Error as error:
            self.lose(error)

    def fail(self, error: Exception) -> None:
        """Give the connection up: who knows what was sent, nothing that comes now can be told whose it is."""
        self.failed = True
        self.loop.run_callback(self.lose, error)

    def hear(self) -> None:
        """In the hub: hand each answer to whoever asked."""
        try:
            self.pgconn.consume_input()
            while not self.failed and not self.lost and not self.pgconn.is_busy():
                got = self.pgconn.get_result()
                if got is not None:
                    if got.status != ExecStatus.PIPELINE_SYNC:
                        self.result = got
                elif self.result is not None:  # it was the statement's only result
                    result, self.result = self.result, None
                    self.hand(self.waiting.popleft(), result)
                else:  # there is no more
                    break
            if not self.lost and self.pgconn.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection is lost")
        except psycopg.Error as error:
            self.lose(error)

    def hand(self, whose: Asked | Prepared, result: Any) -> None:
        if isinstance(whose, Asked):
            whose.waiter.switch(result)
        elif result.status != ExecStatus.COMMAND_OK:
            self.prepared.pop(whose.name, None)

    def look(self) -> None:
        """In the hub, now and then: an answer that does not come is not waited for."""
        first = next((asked for asked in self.waiting if isinstance(asked, Asked)), None)
        if first and time.monotonic() - first.at > WAIT:
            self.lose(TimeoutError("no answer came"))

    def lose(self, error: Exception) -> None:
        """In the hub: the connection is gone, and nobody is left waiting."""
        if self.lost:
            return
        self.lost = True
        for watcher in (self.readable, self.writable, self.clock):
            watcher.stop()
            watcher.close()
        self.connection.close()
        waiting, self.waiting = self.waiting, deque()
        for asked in waiting:
            if isinstance(asked, Asked):
                asked.waiter.throw(Unanswered(str(error)))


class Multiplexer:
    """The shared connection of a process, opened by the first who asks and again after a loss."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.line: Line | None = None
        self.opening = False
        self.not_before = 0.0
        self.shapes: dict[str, Shape] = {}
        self.unfit: dict[str, float] = {}

    def read(self, statement: Statement, values: list[Any]) -> Any:
        """The first row of a reading statement, or None. Raises Unanswered where the pool is to be asked."""
        if self.unfit and self.unfit.get(statement.name, 0.0) > time.monotonic():
            raise Unanswered("it was not fit lately")
        encoded = [str(value).encode() for value in values]
        if b"\0" in b"".join(encoded):
            raise Unanswered("libpq would cut it off at its NUL")
        line = self.ready()
        result = line.ask(statement, encoded)
        if result.status == ExecStatus.PIPELINE_ABORTED:
            raise Unanswered("one before it failed")
        if result.status != ExecStatus.TUPLES_OK:
            # It took too long, or failed as it would from the pool, or its plan is of another day.
            line.prepared.pop(statement.name, None)
            self.avoid(statement.name)
        return self.row(statement.name, result) if result.ntuples else None

    def row(self, name: str, result: Any) -> Any:
        shape = self.shapes.get(name)
        if shape is None:
            try:
                shape = self.shapes[name] = Shape(result)
            except LookupError:
                self.avoid(name)
        return shape.read(result)

    def avoid(self, name: str) -> NoReturn:
        """Leave a statement to the pool for a while."""
        self.unfit[name] = time.monotonic() + UNFIT_FOR
        raise Unanswered("it is not fit")

    def ready(self) -> Line:
        """The connection, if there is one; else it is opened for those who come later."""
        line = self.line
        if line and not line.failed and not line.lost:
            if len(line.waiting) >= WAITING:
                raise Unanswered("too many wait")
            return line
        if not self.opening and time.monotonic() >= self.not_before:
            self.opening = True
            gevent.spawn(self.open)
        raise Unanswered("it is not connected")

    def open(self) -> None:
        try:
            self.line = Line(self.dsn)
        except psycopg.Error:
            self.not_before = time.monotonic() + AGAIN_AFTER
        finally:
            self.opening = False
