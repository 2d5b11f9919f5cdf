"""Writers: a few pipelines a process, each lent to one changing statement at a time.

A statement and what tells history who acts are one message and one transaction. What no pipeline can do, or is free
for, is for the caller to do through the pool.
"""

from typing import Any

import psycopg
from gevent.lock import BoundedSemaphore
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from db.pipelines import FallBackToPool, Opener, Pipeline, encoded
from db.pool import LONGER, SERVICE
from db.queries import STATEMENTS, Statement

PIPELINES = 4
"""Pipelines of a process, each a connection."""

BUSY_FOR = 0.05
"""Seconds to wait for one that others have; some may wait for a lock, but not all others shall."""

OF_ANOTHER_DAY = ("0A000", "26000")
"""SQLSTATEs of a plan that is no longer the statement's: the statement was not run."""


class Writers:
    """The pipelines of a process, opened by those who find too few."""

    def __init__(self, dsn: str, statement_timeout: int) -> None:
        options = f"{SERVICE} -c statement_timeout={statement_timeout}s"
        self.opener = Opener(dsn, options, "rowhouse writes", statement_timeout + LONGER)
        self.free: list[Pipeline] = []
        self.room = BoundedSemaphore(PIPELINES)

    def write(self, statement: Statement, values: list[Any], actor: tuple[str, str]) -> Any:
        """The first row of a changing statement, or None; committed when this returns.

        Raises FallBackToPool where nothing was done and the pool is to be asked; psycopg.OperationalError where the
        connection was lost and nobody knows; psycopg's errors of the statement.
        """
        given, acting = encoded(values), encoded([*actor])
        pipeline = self.take()
        try:
            pipeline.add(STATEMENTS["history.act"], acting)
            asked = pipeline.ask(statement, given)
            try:
                result = asked.waiter.get()
            except FallBackToPool as error:
                raise psycopg.OperationalError(str(error)) from error
        finally:
            self.give_back(pipeline)
        return self.row(pipeline, statement, result)

    def row(self, pipeline: Pipeline, statement: Statement, result: Any) -> Any:
        if result.status == ExecStatus.PIPELINE_ABORTED:
            raise FallBackToPool("history could not be told")
        if result.status == ExecStatus.FATAL_ERROR:
            error = error_from_result(result)
            if error.sqlstate in OF_ANOTHER_DAY:
                pipeline.prepared.clear()
                raise FallBackToPool(str(error))
            raise error
        return pipeline.row(statement, result)

    def take(self) -> Pipeline:
        """A pipeline that nobody has. Raises FallBackToPool where there is none."""
        if not self.room.acquire(timeout=BUSY_FOR):
            raise FallBackToPool("all pipelines are busy")
        while self.free:
            pipeline = self.free.pop()
            if pipeline.usable:
                return pipeline
        self.room.release()
        self.opener.open_later(self.free.append)
        raise FallBackToPool("no pipeline is there yet")

    def give_back(self, pipeline: Pipeline) -> None:
        if pipeline.usable:
            self.free.append(pipeline)
        self.room.release()
