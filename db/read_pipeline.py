"""Multiplexed reads: one pipeline a process, which all greenlets share for single reading statements.

A check-out from the pool costs more than the statement it is for. An error stays with its statement; those behind it,
up to the sync point, are not run. Whatever is not run, does not come within WAIT, or fails with its connection, is for
the caller to ask of the pool.
"""

import time
from typing import Any, NoReturn

from psycopg.pq import ExecStatus

from db.pipelines import FallBackToPool, Opener, Pipeline, encoded
from db.pool import SERVICE
from db.queries import Statement

WAIT = 1.0
"""Seconds for an answer."""

STATEMENT_TIMEOUT = "250ms"
"""What one statement may take: so long it may hold up those behind it."""

UNFIT_FOR = 60.0
"""Seconds for which a statement that failed or took too long is left to the pool."""

WAITING = 1000
"""Statements that may be under way."""

OPTIONS = f"{SERVICE} -c statement_timeout={STATEMENT_TIMEOUT} -c default_transaction_read_only=on"


class Multiplexer:
    """The shared connection of a process, opened by the first who asks and again after a loss."""

    def __init__(self, dsn: str) -> None:
        self.opener = Opener(dsn, OPTIONS, "rowhouse reads", WAIT)
        self.pipeline: Pipeline | None = None
        self.unfit: dict[str, float] = {}

    def read(self, statement: Statement, values: list[Any]) -> Any:
        """The first row of a reading statement, or None. Raises FallBackToPool where the pool is to be asked."""
        if self.unfit and self.unfit.get(statement.name, 0.0) > time.monotonic():
            raise FallBackToPool("it was not fit lately")
        pipeline = self.ready()
        result = pipeline.ask(statement, encoded(values)).waiter.get()
        if result.status == ExecStatus.PIPELINE_ABORTED:
            raise FallBackToPool("one before it failed")
        if result.status != ExecStatus.TUPLES_OK:
            # It took too long, or failed as it would from the pool, or its plan is of another day.
            pipeline.prepared.pop(statement.name, None)
            self.avoid(statement.name)
        return pipeline.row(statement, result)

    def avoid(self, name: str) -> NoReturn:
        """Leave a statement to the pool for a while."""
        self.unfit[name] = time.monotonic() + UNFIT_FOR
        raise FallBackToPool("it is not fit")

    def ready(self) -> Pipeline:
        """The connection, if there is one; else it is opened for those who come later."""
        pipeline = self.pipeline
        if pipeline and pipeline.usable:
            if len(pipeline.waiting) >= WAITING:
                raise FallBackToPool("too many wait")
            return pipeline
        self.opener.open_later(self.use)
        raise FallBackToPool("it is not connected")

    def use(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
