"""Long work: done while the client waits, or with `Prefer: respond-async` by a thread of its own, as an operation."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import psycopg
from flask import Flask, Response, abort, current_app, g, request

import db
from db import actor
from handlers import problems
from handlers.answers import answer

log = logging.getLogger("rowhouse")

Row = TypeVar("Row")

LOOK_EVERY = 0.5
"""Seconds between two looks at how far an operation is, and whether it shall be broken off."""

LIMIT = 4
"""Operations that a process carries out at once."""

TELL_EVERY = 500
"""Rows after which somebody is told."""


class Progress(Protocol):
    """Told of so many rows more, and of how many in all once that is known."""

    def __call__(self, rows: int, of: int | None = None) -> None: ...


def unseen(rows: int, of: int | None = None) -> None:
    """Progress that nobody looks at."""


running: set[object] = set()
"""What goes on in this process: the ids of operations, and work whose client waits."""


class Done(NamedTuple):
    """What came of long work: an answer in the making."""

    status: int
    body: dict[str, Any]
    location: str | None = None

    def response(self) -> Response:
        response = answer(json.dumps(self.body, ensure_ascii=False), self.status)
        if self.location:
            response.headers["Location"] = self.location
        return response


def told(rows: Iterator[Row], progress: Progress) -> Iterator[Row]:
    """The rows, while somebody is told how many there were."""
    number = 0
    for number, row in enumerate(rows, 1):
        yield row
        if number % TELL_EVERY == 0:
            progress(TELL_EVERY)
    progress(number % TELL_EVERY)


def respond_async() -> bool:
    """Whether the client does not wait (RFC 7240)."""
    preferred = request.headers.get("Prefer", "").lower().replace(";", ",").split(",")
    return "respond-async" in (each.strip() for each in preferred)


class Canceled(Exception):
    """Somebody asked for the operation to be broken off."""


@contextmanager
def counted() -> Iterator[None]:
    """Counts work whose client waits among what goes on: each has a connection of the pool."""
    work = object()
    running.add(work)
    try:
        yield
    finally:
        running.discard(work)


def perform(kind: str, table: str, work: Callable[[Progress], Done]) -> Response:
    """Do the work and answer it, or begin it and answer 202 where the client does not wait. 503 if too much goes on."""
    if len(running) >= LIMIT:
        abort(503, f"{LIMIT} operations are going on.")
    if not respond_async():
        with counted():
            return work(unseen).response()
    operation = Operation(kind, table)
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    threading.Thread(target=operation.carry_out, args=(app, work), daemon=True).start()
    response = Done(202, json.loads(operation.look()), f"/operations/{operation.id}").response()
    response.headers["Preference-Applied"] = "respond-async"
    return response


class Operation:
    """Work that a thread carries out; another writes down how far it is. Its connection's lock says that it lives."""

    def __init__(self, kind: str, table: str) -> None:
        self.actor, self.kind = actor.get(), kind
        self.connection = db.alone("operation")
        who, request_id = self.actor
        self.id = next(
            db.run(self.connection, "operations.begin", kind=kind, table=table, actor=who, request_id=request_id)
        ).id
        db.run(self.connection, "operations.hold", id=self.id)
        self.request_id = g.request_id
        self.done = 0
        self.total: int | None = None
        self.canceled = False
        self.ended = threading.Event()
        self.lent = db.Lent()
        running.add(self.id)

    def look(self) -> bytes:
        """The operation as it is answered."""
        body: bytes = db.read("operations.get", id=self.id, kinds=self.kind).body
        return body

    def progress(self, rows: int, of: int | None = None) -> None:
        self.done += rows
        self.total = of if of is not None else self.total
        if self.canceled:
            raise Canceled

    def counts(self) -> dict[str, Any]:
        return {"id": self.id, "done": self.done, "total": "" if self.total is None else self.total}

    def carry_out(self, app: Flask, work: Callable[[Progress], Done]) -> None:
        """Do the work, and write down what came of it."""
        actor.set(self.actor)
        db.lent.set(self.lent)
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        state, done = "succeeded", None
        try:
            with app.app_context():
                g.request_id = self.request_id
                try:
                    done = work(self.progress)
                except Exception as error:  # whatever it is, the operation tells of it
                    state = "canceled" if self.canceled else "failed"
                    response = problems.of(error) if state == "failed" else None
                    done = Done(response.status_code, response.get_json()) if response else None
        finally:
            self.ended.set()
            watcher.join()
            self.finish(state, done)

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
            if wanted:
                self.canceled = True
                self.lent.cancel()

    def finish(self, state: str, done: Done | None) -> None:
        running.discard(self.id)
        with suppress(psycopg.OperationalError), self.connection:
            db.run(
                self.connection,
                "operations.finish",
                **self.counts(),
                state=state,
                status=done.status if done else "",
                location=(done.location if done else None) or "",
                result=json.dumps(done.body) if done else "",
            )
