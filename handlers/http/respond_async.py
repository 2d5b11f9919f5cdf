"""Long work: done while its client waits, or with `Prefer: respond-async` by a thread of its own, as an operation."""

import json
import socket
import threading
from contextlib import ExitStack
from typing import Any

import psycopg
from flask import Flask, Response, current_app, g, request

import db
from handlers.bulk.operation import LOOK_EVERY, Outcome, RunningOperation, Work
from handlers.bulk.progress import Canceled
from handlers.http import problems
from handlers.http.places import Place
from handlers.http.problems import ProblemException
from handlers.http.responses import answer


def prefers_async() -> bool:
    """Whether the client does not wait (RFC 7240). One with a token of one project does: it sees no operations."""
    if db.project.get():
        return False
    preferred = request.headers.get("Prefer", "").lower().replace(";", ",").split(",")
    return "respond-async" in (each.strip() for each in preferred)


def run_or_enqueue(kind: str, table: str, work: Work) -> Response:
    """Do the work and answer it, or begin it and answer 202 where the client does not wait. 503 if too much goes on."""
    with ExitStack() as stack:
        place = g.pop("place", None) or Place()
        stack.callback(place.leave)
        if not prefers_async():
            return response_of(run_for_client(work))
        operation = RunningOperation(kind, table)
        stack.pop_all()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    threading.Thread(target=carry_out, args=(app, operation, work, place), daemon=True).start()
    response = response_of(Outcome(202, json.loads(operation.look()), f"/operations/{operation.id}"))
    response.headers["Preference-Applied"] = "respond-async"
    return response


def response_of(outcome: Outcome) -> Response:
    response = answer(json.dumps(outcome.body, ensure_ascii=False), outcome.status)
    if outcome.location:
        response.headers["Location"] = outcome.location
    if outcome.etag:
        response.headers["ETag"] = outcome.etag
    return response


def carry_out(app: Flask, operation: RunningOperation, work: Work, place: Place) -> None:
    """Run an operation to its end, its failure told as a request's would be."""

    def failure(error: Exception) -> Outcome:
        response = problems.of(error)
        return Outcome(response.status_code, response.get_json())

    with app.app_context():
        g.request_id = operation.request_id
        operation.run(work, failure, finally_=place.leave)


def run_for_client(work: Work) -> Outcome:
    """Do the work while its client waits; it is broken off once the client has gone."""
    client = request.environ.get("gunicorn.socket")
    gone, ended, lent = threading.Event(), threading.Event(), db.Cancellable()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY):
            if has_gone(client):
                gone.set()
                lent.cancel()

    def progress(rows: int, of: int | None = None) -> None:
        if gone.is_set():
            raise Canceled

    watched, asked = db.lent.set(lent), db.before_commit.set(lambda: progress(0))
    threading.Thread(target=watch, daemon=True).start()
    try:
        return work(progress)
    except (Canceled, psycopg.errors.QueryCanceled):
        if gone.is_set():
            raise ProblemException(
                "client-left", "The client closed its side of the connection before the answer."
            ) from None
        raise
    finally:
        ended.set()
        db.lent.reset(watched)
        db.before_commit.reset(asked)


def has_gone(client: Any) -> bool:
    """Whether the other side of a connection was closed. What it sent before that stays where it is.

    Who has closed its sending half alone, and still reads, cannot be told from who is gone until something is sent.
    """
    try:
        # Not gevent's own recv(), which would wait, and be in the way of who reads the next request.
        return not client._sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
