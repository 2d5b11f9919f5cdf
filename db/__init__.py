"""What the service says to PostgreSQL: `read`, `write`, `stream`, `transaction`. It knows nothing of HTTP.

Each takes the name of a statement in sql/queries and its parameters by name; a parameter not given is empty.
Rows are tuples with names: `row.version`, `row.body`. Errors are psycopg's.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import islice
from typing import Any

import psycopg
from gevent.monkey import is_module_patched
from psycopg.rows import namedtuple_row
from psycopg.types.numeric import Int8BinaryLoader

from db.cooperate import next_turn
from db.pipelines import FallBackToPool
from db.pool import SERVICE, BoundConnection, NoAnswer, Pool, PoolTimeout, connect
from db.queries import STATEMENTS
from db.read_pipeline import Multiplexer
from db.write_pipelines import Writers

Connection = psycopg.Connection[tuple]

COPY_SLICE = 250
"""Rows after which a COPY lets other requests have a turn."""

actor: ContextVar[tuple[str, str]] = ContextVar("actor", default=("", ""))
"""Who acts, and in which request, for history: a name and a request id."""

project: ContextVar[str] = ContextVar("project", default="")
"""The only project that may be seen, by its id; empty for all there is. Row-level security holds statements to it."""

as_of: ContextVar[str] = ContextVar("as_of", default="")
"""The moment as of which tables are read, in ISO 8601; empty for the present."""

_bound: ContextVar[BoundConnection | None] = ContextVar("bound", default=None)

STREAM_SLICE = 100
"""Rows that `stream` has in memory at once."""

DUMP_SLICE = 1000
"""Rows that `dumped` has in memory at once."""

_pool: Pool | None = None
_multiplexer: Multiplexer | None = None
_writers: Writers | None = None


def open_pool(dsn: str, size: int, statement_timeout: int = 5) -> None:
    """Open the process's pool of `size` connections, and where greenlets serve the pipelines that most goes through.

    A statement may take `statement_timeout` seconds unless it is given more.
    They connect in the background: a database may come later.
    """
    global _pool, _multiplexer, _writers
    _pool = Pool(dsn, size, statement_timeout)
    _pool.open()
    if is_module_patched("socket"):
        _multiplexer, _writers = Multiplexer(dsn), Writers(dsn, statement_timeout)


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
    statement = STATEMENTS[name].fit(parameters)
    values = statement.values(parameters)
    cursor = connection.cursor(row_factory=namedtuple_row)
    # A list that is filtered is planned for its values (see sql/README.md), what is held to a project with its
    # policies, what reads the past with its views; all else keeps one prepared plan.
    return cursor.execute(statement.sql, values, prepare=None if statement.kept and not restricted() else False)


def restricted() -> bool:
    """Whether what this context reads is held to a project or to a moment."""
    return bool(project.get() or as_of.get())


def unrestrict() -> None:
    """Let this context read all there is, as it is now."""
    project.set("")
    as_of.set("")


def bound() -> bool:
    """Whether this context is within a transaction, or restricted: it cannot share a connection."""
    return bool(_bound.get() or restricted())


def read(name: str, /, **parameters: Any) -> Any:
    """The first row of a reading statement, or None; asked once more where its connection turns out to be lost."""
    statement = STATEMENTS[name].fit(parameters)
    if _multiplexer and statement.kept and not bound():
        values = statement.values(parameters)
        try:
            return _multiplexer.read(statement, values)
        except FallBackToPool:
            pass
    try:
        return read_from_pool(name, parameters)
    except psycopg.OperationalError as error:
        if not is_connection_lost(error) or isinstance(error, NoAnswer) or _bound.get():
            raise
        return read_from_pool(name, parameters)


def read_from_pool(name: str, parameters: dict[str, Any]) -> Any:
    with lend() as connection, connection.pipeline() if restricted() else nullcontext():
        restrict(connection)
        rows = run(connection, name, **parameters)
    return next(rows, None)


def restrict(connection: Connection) -> None:
    """Hold all that follows in this transaction to the project and the moment of this context, if it has them."""
    if project.get():
        run(connection, "access.bind", project=project.get())
    if as_of.get():
        run(connection, "history.look_back", moment=as_of.get())


def write(name: str, /, **parameters: Any) -> Any:
    """The first row of a changing statement, or None; committed when this returns, unless within a `transaction`."""
    if _writers and not bound():
        statement = STATEMENTS[name]
        values = statement.values(parameters)
        with suppress(FallBackToPool):
            return _writers.write(statement, values, actor.get())
    # A pipeline is one round trip and one transaction: history learns who acts, and the connection keeps nothing of it.
    with lend() as connection, connection.pipeline():
        set_actor(connection)
        restrict(connection)
        rows = run(connection, name, **parameters)
    return next(rows, None)


def stream(name: str, /, statement_timeout: int, **parameters: Any) -> Generator[Any, None, None]:
    """The rows of a reading statement as they are found, a few at a time: any number goes through little memory.

    It holds a connection until its rows are read or it is closed, and at most for `statement_timeout` seconds: nothing
    that waits for a client may read it (handlers/http/streaming.py reads ahead).
    """
    with pool().lend() as connection, connection.transaction(), connection.allowed(statement_timeout):
        restrict(connection)
        yield from streamed(connection, name, **parameters)


def streamed(connection: Connection, name: str, /, **parameters: Any) -> Iterator[Any]:
    """As `stream`, on this connection."""
    statement = STATEMENTS[name]
    values = statement.values(parameters)
    return connection.cursor(row_factory=namedtuple_row).stream(statement.sql, values, size=STREAM_SLICE)


class Cancellable:
    """The connections that some work has just now, so that it can be broken off from outside."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.lock = threading.Lock()

    @contextmanager
    def watched(self, connection: Connection) -> Iterator[None]:
        with self.lock:
            self.connections.append(connection)
        try:
            yield
        finally:
            with self.lock:
                self.connections.remove(connection)

    def cancel(self) -> None:
        """Have the server break off what these connections do."""
        with self.lock:
            for connection in self.connections:
                with suppress(psycopg.Error):  # it is asked again, or has gone by itself
                    connection.cancel_safe(timeout=CANCEL_WAIT)


CANCEL_WAIT = 2.0
"""Seconds for the server to take a wish to cancel."""

lent: ContextVar[Cancellable | None] = ContextVar("lent", default=None)
"""Who watches the transactions of this context, if anybody does."""


before_commit: ContextVar[Callable[[], None] | None] = ContextVar("before_commit", default=None)
"""What is asked before the work of this context is kept, if anything is: it may raise to have it taken back."""


def keep() -> None:
    """Say that the work of this context is about to be kept."""
    if ask := before_commit.get():
        ask()


def watched(connection: Connection) -> AbstractContextManager[None]:
    """Lets whoever watches this context know of a connection, for as long as the block lasts."""
    watcher = lent.get()
    return watcher.watched(connection) if watcher else nullcontext()


def dedicated_connection(application_name: str) -> Connection:
    """A connection outside of the pool, with the rights of the service; the caller closes it."""
    return connect(str(pool().conninfo), SERVICE, application_name)


@contextmanager
def snapshot(statement_timeout: int | None = None) -> Iterator[Connection]:
    """Make all that is read within the block one moment's; nothing can be written."""
    with pool().lend() as connection, watched(connection), connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        with connection.allowed(statement_timeout) if statement_timeout else nullcontext():
            restrict(connection)
            yield connection


@contextmanager
def transaction(statement_timeout: int | None = None) -> Iterator[Connection]:
    """Make all that is read and written within the block one transaction; a statement may take so many seconds."""
    with ExitStack() as stack:
        connection = stack.enter_context(lend())
        stack.enter_context(watched(connection))
        stack.enter_context(connection.transaction())
        if statement_timeout:
            stack.enter_context(connection.allowed(statement_timeout))
        set_actor(connection)
        restrict(connection)
        token = _bound.set(connection)
        try:
            yield connection
            keep()
        finally:
            _bound.reset(token)


def dumped(connection: Connection, name: str) -> Generator[tuple[Any, ...], None, None]:
    """The rows of a reading statement on this connection as Python has them, any number through little memory.

    Close it before its transaction ends.
    Moments are integers, microseconds since 2000: what PostgreSQL sends, and takes through `copy` as bigint.
    """
    cursor = connection.cursor(binary=True)
    cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)
    yield from cursor.stream(STATEMENTS[name].sql, size=DUMP_SLICE)


@contextmanager
def lend() -> Iterator[BoundConnection]:
    """The connection of the transaction we are in, or one of the pool's."""
    if bound := _bound.get():
        yield bound
        return
    with pool().lend() as connection:
        yield connection


def set_actor(connection: Connection) -> None:
    """Tell history who acts, for the rest of this transaction."""
    name, request_id = actor.get()
    run(connection, "history.act", actor=name, request_id=request_id)


def copy(connection: Connection, name: str, rows: Iterable[tuple[Any, ...]], types: Sequence[str]) -> None:
    """Send rows of these PostgreSQL types through a named COPY … FROM STDIN in binary: a tenth of the work of text."""
    with connection.cursor().copy(STATEMENTS[name].sql) as copying:
        copying.set_types(types)
        for number, row in enumerate(rows):
            copying.write_row(row)
            if number % COPY_SLICE == 0:
                next_turn()


def copy_lines(connection: Connection, name: str, lines: Iterator[str]) -> None:
    """Send lines of text, each with its end, through a named COPY … FROM STDIN."""
    with connection.cursor().copy(STATEMENTS[name].sql) as copying:
        while some := "".join(islice(lines, COPY_SLICE)):
            copying.write(some)
            next_turn()


def is_connection_lost(error: psycopg.Error) -> bool:
    """Whether an error means that the connection is gone, rather than that the statement was wrong."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError) and not isinstance(error, PoolTimeout)
    return error.sqlstate.startswith(("08", "57P"))


def explain(dsn: str, name: str, parameters: dict[str, Any]) -> list[str]:
    """The plan of a named statement as it ran, line by line; whatever it changed is rolled back."""
    statement = STATEMENTS[name].fit(parameters)
    values = statement.values(parameters)
    lines: list[str] = []
    with connect(dsn) as connection:
        for _ in ("to read the catalog", "to measure"):
            with connection.transaction(force_rollback=True):
                cursor = connection.execute(b"explain (analyze, buffers) " + statement.sql, values)
                lines = [line for (line,) in cursor]
    return lines
