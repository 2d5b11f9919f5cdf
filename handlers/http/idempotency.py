"""Idempotency-Key: a POST that is sent once more is done once, and answered as it was the first time.

The key is kept in the transaction of the data: either both are there or neither.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import wraps
from math import ceil
from typing import Any, BinaryIO

from flask import Flask, Response, abort, current_app, g, request
from werkzeug.exceptions import TooManyRequests

import db
from db.cooperate import next_turn
from handlers.http.auth import current_view
from handlers.http.contract import sends_file
from handlers.http.files import sent_file
from handlers.http.oidc import is_jwt
from handlers.http.problems import ProblemException

HEADER = "Idempotency-Key"

KEY_LIMIT = 255
"""Characters of a key."""

BLOCK = 2**20
"""Bytes of a file that are read at once."""

KEPT = ("Content-Type", "Location", "ETag", "Link")
"""The headers that are sent again."""


def init_app(app: Flask) -> None:
    """Let every POST of this app that changes something take an Idempotency-Key: of a search no answer is kept."""
    for rule in app.url_map.iter_rules():
        view: Any = app.view_functions[rule.endpoint]
        if is_once(rule, view):
            app.view_functions[rule.endpoint] = once(view)


def is_once(rule: Any, view: Any) -> bool:
    """Whether a route takes the header."""
    return "POST" in (rule.methods or ()) and view.role != "reader" and not view.contract.told_once


def once(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view, done once for each key.

    400 for a bad key, 409 while the first is running, 422 for another body, 429 where too many are kept.
    """

    @wraps(view)
    def answer(**arguments: Any) -> Any:
        key = request.headers.get(HEADER)
        return view(**arguments) if key is None else first_answer(key, lambda: view(**arguments))

    return answer


def first_answer(key: str, make: Callable[[], Response]) -> Response:
    if not (1 <= len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()):
        abort(400, f"The {HEADER} must be 1 to {KEY_LIMIT} visible ASCII characters.")
    asked = fingerprint()
    # An issuer may give one name rights that differ: an answer is told again only to who could have got it.
    key = f"{reach()}/{key}"
    with db.transaction():
        if not db.read("idempotency.lock", key=key).mine:
            raise ProblemException("key-in-progress", f"The first request with this {HEADER} is still running.")
        if first := db.read("idempotency.get", key=key):
            if first.fingerprint != asked:
                raise ProblemException("key-reused", f"This {HEADER} was used for another request.")
            return Response(first.body, first.status, json.loads(first.headers))
        check_room()
        response = make()
        if not response.is_streamed:
            headers = {name: response.headers[name] for name in KEPT if name in response.headers}
            db.write(
                "idempotency.keep",
                key=key,
                fingerprint=asked,
                status=response.status_code,
                headers=json.dumps(headers),
                body=response.get_data(as_text=True),
            )
        return response


def reach() -> str:
    """What the caller may do and see, beside its name: `token/writer/7`."""
    kind = "jwt" if g.token and is_jwt(g.token) else "token"
    return f"{kind}/{g.caller.role}/{db.project.get()}"


def check_room() -> None:
    """429 where the caller has as much kept as it may: done without its key, a request could be done twice."""
    most, most_bytes = current_app.config["ANSWERS_LIMIT"], current_app.config["ANSWERS_BYTES_LIMIT"]
    kept = db.read("idempotency.room")
    if kept.answers >= most or kept.bytes >= most_bytes:
        raise TooManyRequests(
            f"{most} answers, or {most_bytes} bytes of them, are kept for a caller's {HEADER}s of a day.",
            retry_after=ceil(kept.seconds),
        )


def fingerprint() -> str:
    """What makes a request the same: its path, its query, and its JSON or file."""
    content = hashlib.sha256()
    for block in blocks(sent_file()) if sends_file(current_view().contract) else [request.get_data()]:
        content.update(block)
    return hashlib.sha256(f"{request.path}?{request.query_string!r} {content.hexdigest()}".encode()).hexdigest()


def blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block
        next_turn()
