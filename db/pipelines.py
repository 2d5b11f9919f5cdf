"""Pipelines: connections in pipeline mode, heard between greenlets: an answer costs one switch, to whoever asked.

psycopg's own way through a pipeline takes a process much longer: it waits for each step by itself. What was asked in
one turn of the loop goes out together, with one sync point at its end: one message to the server, and one transaction
there. Its answers are handed out when that has ended.
"""

import time
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import gevent
import psycopg
from gevent.hub import Waiter
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus

from db.pool import connect
from db.queries import Statement

BATCH = 8
"""Statements that are sent at once: the server works on them while the loop takes others in."""

AGAIN_AFTER = 1.0
"""Seconds after a connection that could not be made until the next is tried."""

READ, WRITE = 1, 2
"""What a loop watches a socket for."""


class FallBackToPool(Exception):
    """The statement was not run, or came to nothing: it is to be asked of the pool."""


class PendingQuery:
    """A statement under way: who waits for its result, since when, and the result once it is there."""

    __slots__ = ("at", "result", "waiter")

    def __init__(self) -> None:
        self.waiter = Waiter()
        self.at = time.monotonic()
        self.result: Any = None


class Prepared:
    """A statement that is being prepared; nobody waits for that."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


SYNC, UNHEEDED = object(), object()
"""A sync point; a statement whose result nobody waits for."""


class Pipeline:
    """A connection, and who waits for its answers: `wait` seconds at most, then it is given up."""

    def __init__(self, dsn: str, options: str, application_name: str, wait: float) -> None:
        self.connection = connect(dsn, options, application_name)
        self.pgconn: Any = self.connection.pgconn
        self.pgconn.nonblocking = 1
        self.pgconn.enter_pipeline_mode()
        self.waiting: deque[Any] = deque()
        self.answered: list[PendingQuery] = []
        self.prepared: dict[str, bytes] = {}
        self.numbers = count()
        self.unsent = 0
        self.failed = self.lost = False
        self.wait = wait
        self.loop = gevent.get_hub().loop
        self.transformer = Transformer(self.connection)
        self.rows: dict[str, Any] = {}
        self.readable = self.loop.io(self.pgconn.socket, READ)
        self.writable = self.loop.io(self.pgconn.socket, WRITE)
        self.clock = self.loop.timer(wait / 2, wait / 2)
        self.readable.start(self.hear)
        self.clock.start(self.look)

    @property
    def usable(self) -> bool:
        return not self.failed and not self.lost

    def row(self, statement: Statement, result: Any) -> Any:
        """The first row of a result, or None."""
        if not result.ntuples:
            return None
        row = self.rows.get(statement.name)
        if row is None:
            names = [result.fname(column).decode() for column in range(result.nfields)]
            kind: Any = namedtuple("Row", names)  # type: ignore[misc]
            row = self.rows[statement.name] = kind._make
        self.transformer.set_pgresult(result)
        return self.transformer.load_row(0, row)

    def ask(self, statement: Statement, values: list[bytes]) -> PendingQuery:
        """Ask a statement; its `waiter` gets the result. Raises FallBackToPool."""
        asked = PendingQuery()
        self.add(statement, values, asked)
        self.unsent += 1
        if self.unsent == BATCH:
            self.send()
        elif self.unsent == 1:
            # At the end of this turn of the loop, for all that was asked in it.
            self.loop.run_callback(self.send)
        return asked

    def add(self, statement: Statement, values: list[bytes], whose: object = UNHEEDED) -> None:
        """Put a statement before the next that is asked. Raises FallBackToPool."""
        try:
            name = self.prepared.get(statement.name)
            if name is None:
                name = self.prepared[statement.name] = b"s%d" % next(self.numbers)
                self.pgconn.send_prepare(name, statement.sql)
                self.waiting.append(Prepared(statement.name))
            self.pgconn.send_query_prepared(name, values)
        except psycopg.Error as error:
            self.fail(error)
            raise FallBackToPool(str(error)) from error
        self.waiting.append(whose)

    def send(self) -> None:
        """Send what was asked, and the sync point that ends it; the rest when there is room."""
        if not self.unsent or not self.usable:
            return
        self.unsent = 0
        try:
            self.pgconn.pipeline_sync()
            self.waiting.append(SYNC)
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
        """In the hub: take each result for whoever asked."""
        ended = False
        try:
            self.pgconn.consume_input()
            while self.usable and not self.pgconn.is_busy():
                result = self.pgconn.get_result()
                if result is not None:
                    self.take(result)
                elif ended:  # for the second time: of all that was asked, or with the connection
                    break
                ended = result is None
            if not self.lost and self.pgconn.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection is lost")
        except psycopg.Error as error:
            self.lose(error)

    def take(self, result: Any) -> None:
        """Take a result by what is next: where that is a sync point, the transaction before it has ended, or failed."""
        if result.status == ExecStatus.PIPELINE_SYNC:
            self.waiting.popleft()
            self.hand_out()
        elif not self.waiting:  # the server's last word
            pass
        elif self.waiting[0] is SYNC:  # the transaction did not end well: nothing of it is there
            for asked in self.answered:
                asked.result = result
        else:
            self.keep(result, self.waiting.popleft())

    def hand_out(self) -> None:
        """Give those who asked within a transaction what they wait for."""
        answered, self.answered = self.answered, []
        for asked in answered:
            asked.waiter.switch(asked.result)

    def keep(self, result: Any, whose: object) -> None:
        """Keep a result until its transaction has ended; forget a statement that could not be prepared."""
        if isinstance(whose, PendingQuery):
            whose.result = result
            self.answered.append(whose)
        elif isinstance(whose, Prepared) and result.status != ExecStatus.COMMAND_OK:
            self.prepared.pop(whose.name, None)

    def look(self) -> None:
        """In the hub, now and then: an answer that does not come is not waited for."""
        first = next(self.all_asked(), None)
        if first and time.monotonic() - first.at > self.wait:
            self.lose(TimeoutError("no answer came"))

    def all_asked(self) -> Iterator[PendingQuery]:
        """Those who wait, first come first."""
        return (each for each in [*self.answered, *self.waiting] if isinstance(each, PendingQuery))

    def lose(self, error: Exception) -> None:
        """In the hub: the connection is gone, and nobody is left waiting."""
        if self.lost:
            return
        self.lost = True
        for watcher in (self.readable, self.writable, self.clock):
            watcher.stop()
            watcher.close()
        self.connection.close()
        for asked in self.all_asked():
            asked.waiter.throw(FallBackToPool(str(error)))
        self.waiting.clear()
        self.answered.clear()


class Opener:
    """Opens pipelines in the background, one at a time, and none soon after one that could not be opened."""

    def __init__(self, dsn: str, options: str, application_name: str, wait: float) -> None:
        self.dsn, self.options, self.application_name, self.wait = dsn, options, application_name, wait
        self.opening = False
        self.not_before = 0.0

    def open_later(self, use: Callable[[Pipeline], object]) -> None:
        """Have one opened, unless one is being opened or it is too soon; it is given to `use`."""
        if not self.opening and time.monotonic() >= self.not_before:
            self.opening = True
            gevent.spawn(self.open, use)

    def open(self, use: Callable[[Pipeline], object]) -> None:
        try:
            use(Pipeline(self.dsn, self.options, self.application_name, self.wait))
        except psycopg.Error:
            self.not_before = time.monotonic() + AGAIN_AFTER
        finally:
            self.opening = False


def encoded(values: list[Any]) -> list[bytes]:
    """Values as libpq sends them. Raises FallBackToPool for one that psycopg must judge."""
    found = []
    for value in values:
        if not isinstance(value, str | int):
            raise FallBackToPool("only texts and integers are sent here")
        try:
            found.append(str(value).encode())
        except UnicodeEncodeError:
            raise FallBackToPool("it is no text") from None
    if b"\0" in b"".join(found):
        raise FallBackToPool("libpq would cut it off at its NUL")
    return found
