"""Long work: done while the client waits, or with `Prefer: respond-async` by a thread of its own, as an operation."""

import json
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import psycopg
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import ClientDisconnected

import db
from db import actor
from handlers import problems
from handlers.answers import answer
from handlers.places import Place
from handlers.progress import Canceled, Progress

log = logging.getLogger("rowhouse")

LOOK_EVERY = 0.5
"""Seconds between two looks at how far an operation is, and whether it shall be broken off."""


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


def respond_async() -> bool:
    """Whether the client does not wait (RFC 7240)."""
    preferred = request.headers.get("Prefer", "").lower().replace(";", ",").split(",")
    return "respond-async" in (each.strip() for each in preferred)


def perform(kind: str, table: str, work: Callable[[Progress], Done]) -> Response:
    """Do the work and answer it, or begin it and answer 202 where the client does not wait. 503 if too much goes on."""
    with ExitStack() as stack:
        place = g.pop("place", None) or Place()
        stack.callback(place.leave)
        if not respond_async():
            return for_client(work).response()
        operation = Operation(kind, table, place)
        stack.pop_all()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    threading.Thread(target=operation.carry_out, args=(app, work), daemon=True).start()
    response = Done(202, json.loads(operation.look()), f"/operations/{operation.id}").response()
    response.headers["Preference-Applied"] = "respond-async"
    return response


def for_client(work: Callable[[Progress], Done]) -> Done:
    """Do the work while its client waits; it is broken off once the client has gone."""
    client = request.environ.get("gunicorn.socket")
    gone, ended, lent = threading.Event(), threading.Event(), db.Lent()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY):
            if has_gone(client):
                gone.set()
                lent.cancel()

    def progress(rows: int, of: int | None = None) -> None:
        if gone.is_set():
            raise Canceled

    watched = db.lent.set(lent)
    threading.Thread(target=watch, daemon=True).start()
    try:
        return work(progress)
    except (Canceled, psycopg.errors.QueryCanceled):
        if gone.is_set():
            raise ClientDisconnected from None
        raise
    finally:
        ended.set()
        db.lent.reset(watched)


def has_gone(client: Any) -> bool:
    """Whether the other side of a connection was closed. What it sent before that stays where it is."""
    try:
        # Not gevent's own recv(), which would wait, and be in the way of who reads the next request.
        return not client._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Operation:
    """Work that a thread carries out; another writes down how far it is. Its connection's lock says that it lives."""

    def __init__(self, kind: str, table: str, place: Place) -> None:
        self.actor, self.project, self.kind, self.place = actor.get(), db.project.get(), kind, place
        who, self.request_id = self.actor
        with ExitStack() as stack:
            self.connection = stack.enter_context(db.alone("operation"))
            asked = {"kind": kind, "table": table, "actor": who, "request_id": self.request_id}
            self.id = next(db.run(self.connection, "operations.begin", **asked)).id
            db.run(self.connection, "operations.hold", id=self.id)
            stack.pop_all()
        self.done = 0
        self.total: int | None = None
        self.canceled = False
        self.ended = threading.Event()
        self.lent = db.Lent()

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
        db.project.set(self.project)
        db.lent.set(self.lent)
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        state, done = "failed", None
        try:
            with app.app_context():
                g.request_id = self.request_id
                try:
                    done = work(self.progress)
                    state = "succeeded"
                except Exception as error:  # whatever it is, the operation tells of it
                    state = "canceled" if self.canceled else "failed"
                    response = problems.of(error) if state == "failed" else None
                    done = Done(response.status_code, response.get_json()) if response else None
        finally:
            self.place.leave()
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
        """Write down what came of it: where its connection is lost, through the pool."""
        outcome = {
            **self.counts(),
            "state": state,
            "status": done.status if done else "",
            "location": (done.location if done else None) or "",
            "result": json.dumps(done.body) if done else "",
        }
        try:
            with self.connection:
                db.run(self.connection, "operations.finish", **outcome)
        except psycopg.Error as lost:
            log.error("operation %s: %s", self.id, lost)
            with suppress(psycopg.Error):  # without its lock it counts as failed
                db.write("operations.finish", **outcome)
