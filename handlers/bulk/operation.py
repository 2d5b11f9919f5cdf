"""An operation: long work of a thread, with how far it is and what came of it where anybody may read it."""

import json
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import psycopg

import db
from db import actor
from handlers.bulk.progress import Canceled, Progress

log = logging.getLogger("rowhouse")

LOOK_EVERY = 0.5
"""Seconds between two looks at how far an operation is, and whether it shall be broken off."""


class Outcome(NamedTuple):
    """What came of long work: an answer in the making."""

    status: int
    body: dict[str, Any]
    location: str | None = None
    etag: str | None = None


Work = Callable[[Progress], Outcome]


class RunningOperation:
    """Work that a thread carries out; another writes down how far it is. Its connection's lock says that it lives."""

    def __init__(self, kind: str, table: str) -> None:
        self.actor, self.project, self.kind = actor.get(), db.project.get(), kind
        who, self.request_id = self.actor
        with ExitStack() as stack:
            self.connection = stack.enter_context(db.dedicated_connection("operation"))
            asked = {"kind": kind, "table": table, "actor": who, "request_id": self.request_id}
            self.id = next(db.run(self.connection, "operations.begin", **asked)).id
            db.run(self.connection, "operations.hold", id=self.id)
            stack.pop_all()
        self.done = 0
        self.total: int | None = None
        self.canceled = self.ending = False
        self.ended = threading.Event()
        self.lent = db.Cancellable()

    def look(self) -> bytes:
        """The operation as it is answered."""
        body: bytes = db.read("operations.get", id=self.id, kinds=self.kind).body
        return body

    def progress(self, rows: int, of: int | None = None) -> None:
        self.done += rows
        self.total = of if of is not None else self.total
        if self.canceled:
            raise Canceled

    def end(self) -> None:
        """From now on it is too late to break it off. Raises Canceled where somebody wanted that before."""
        if not self.ending:
            self.canceled = next(db.run(self.connection, "operations.end", id=self.id), None) is None
            self.progress(0)
            self.ending = True

    def counts(self) -> dict[str, Any]:
        return {"id": self.id, "done": self.done, "total": "" if self.total is None else self.total}

    def run(self, work: Work, failure: Callable[[Exception], Outcome], finally_: Callable[[], None]) -> None:
        """Do the work, and write down what came of it, `failure` of its error; first do `finally_`."""
        actor.set(self.actor)
        db.project.set(self.project)
        db.lent.set(self.lent)
        db.before_commit.set(self.end)
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        state, outcome = "failed", None
        try:
            outcome = work(self.progress)
            self.end()
            state = "succeeded"
        except Exception as error:  # whatever it is, the operation tells of it
            state = "canceled" if self.canceled else "failed"
            outcome = failure(error) if state == "failed" else None
        finally:
            finally_()
            self.ended.set()
            watcher.join()
            self.finish(state, outcome)

    def watch(self) -> None:
        """Write down how far the work is; break off what it does where somebody wants it."""
        while not self.ended.wait(LOOK_EVERY):
            try:
                row = next(db.run(self.connection, "operations.progress", **self.counts()))
                wanted = row.canceled
            except psycopg.Error as error:
                # Without this connection the lock is gone, and the operation counts as failed.
                log.error("operation %s: %s", self.id, error)
                wanted = True
            if wanted and not self.ending:
                self.canceled = True
                self.lent.cancel()

    def finish(self, state: str, outcome: Outcome | None) -> None:
        """Write down what came of it: where its connection is lost, through the pool."""
        members = {
            **self.counts(),
            "state": state,
            "status": outcome.status if outcome else "",
            "location": (outcome.location if outcome else None) or "",
            "result": json.dumps(outcome.body) if outcome else "",
        }
        try:
            with self.connection:
                db.run(self.connection, "operations.finish", **members)
        except psycopg.Error as lost:
            log.error("operation %s: %s", self.id, lost)
            with suppress(psycopg.Error):  # without its lock it counts as failed
                db.write("operations.finish", **members)
