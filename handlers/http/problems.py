"""Every failure as RFC 9457 problem+json: what an SQLSTATE, a kind of constraint or an exception is answered with."""

import errno
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import psycopg
from flask import Flask, Response, g
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import ValidationError
from psycopg.errors import Diagnostic
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import ClientDisconnected, HTTPException

from db import project, read
from handlers.bulk import errors
from handlers.http import problem_kinds

log = logging.getLogger("rowhouse")

RETRY_AFTER = "1"
"""Seconds after which a client may try again where the database was away."""

FAULTS_LIMIT, NAME_LIMIT = 100, 200
"""Faults that are told of one request, and characters of an unknown member's name."""

BROKEN = {
    "check": "broken-rule",
    "unique": "taken",
    "foreign key, on delete cascade": "no-parent",
    "foreign key, on delete set null": "no-reference",
    "foreign key, on delete restrict": "in-use",
}
"""What a broken constraint is answered with, by its kind: what hangs on its parent is not there without it."""

SQLSTATES = {
    "RH404": ("not-found", "History does not reach back so far."),
    "57014": ("timeout", "The statement took longer than its time limit."),
    "55P03": ("overtaken", "The object is locked by somebody else's change."),
    "40001": ("overtaken", "Another change came in between."),
    "40P01": ("overtaken", "Another change came in between."),
    "25006": ("database-away", "The database takes no changes just now."),
    "23001": ("in-use", "Something refers to it that is not the service's."),
    "23503": ("in-use", "Something refers to it that is not the service's."),
    "53100": ("disk-full", "The disk of the database is full."),
    "53": ("busy", "The database is at its limits."),
    "08": ("database-away", "The database is not reachable."),
    "57P": ("database-away", "The database is not reachable."),
    "22": ("out-of-range", "A value is outside of what the database can hold."),
}
"""SQLSTATEs by their beginning; the first that fits counts."""


class ProblemException(HTTPException):
    """A failure of a status or a finer kind, maybe with members of its own, such as `current` and `conflicts`."""

    headers: Mapping[str, str] = {}

    def __init__(self, told: int | str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.told, self.members = told, members
        self.code = problem_kinds.members(told)["status"]


def problem(told: int | str, detail: str, **members: Any) -> Response:
    """The answer for a failure of a status or a finer kind. Where the database was away it says when to try again."""
    body = {**problem_kinds.members(told), "detail": detail, "request_id": g.get("request_id"), **members}
    response = Response(json.dumps(body) + "\n", body["status"], mimetype="application/problem+json")
    if response.status_code == 503:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def of_http(error: HTTPException) -> Response:
    """What Flask, Werkzeug or a handler's abort() refuses."""
    told = getattr(error, "told", error.code or 500)
    response = problem(told, error.description or "", **getattr(error, "members", {}))
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After", "Location", "WWW-Authenticate"):
            response.headers[name] = value
    response.headers.update(getattr(error, "headers", {}))
    return response


def of_validation(error: ValidationError) -> Response:
    """What a schema refuses, by the path of the field: each message once, and no more than a client would read."""
    messages = error.messages if isinstance(error.messages, dict) else {"_schema": error.messages}
    errors: dict[str, list[str]] = {}
    more = 0
    for told, (path, message) in enumerate(faults(messages)):
        if told >= FAULTS_LIMIT:
            more += 1
        elif message not in errors.setdefault(shortened(path), []):
            errors[shortened(path)].append(message)
    return problem(422, "Some values are not valid.", errors=errors, **({"more": more} if more else {}))


def faults(messages: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Marshmallow's nested messages as (path, message): {"ticks": {0: ["…"]}} becomes ("ticks.0", "…")."""
    for name, value in messages.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from faults(value, f"{path}.")
        else:
            yield from ((path, message) for message in value)


def shortened(name: str) -> str:
    """A name that a client gave, as it is told back."""
    return name if len(name) <= NAME_LIMIT else f"{name[:NAME_LIMIT]}…"


def of_database(error: psycopg.Error) -> Response:
    """What PostgreSQL refuses, or that it cannot be reached."""
    if error.diag.constraint_name and (broken := of_constraint(error.diag)):
        return broken
    if isinstance(error, PoolTimeout):
        return problem(503, "No connection to the database is free.")
    if isinstance(error, psycopg.OperationalError) and not error.sqlstate:
        return problem("database-away", "The database is not reachable.")
    if error.sqlstate == "42501" and project.get():
        return problem("project-token", f"The token is for project {project.get()} only.")
    for beginning, (kind, sentence) in SQLSTATES.items():
        if (error.sqlstate or "").startswith(beginning):
            return problem(kind, sentence)
    return of_bug(error)


def of_constraint(diag: Diagnostic) -> Response | None:
    """What a constraint refuses, in the sentence that is its comment; None where nobody wrote one."""
    try:
        broken = constraint(diag.schema_name, diag.table_name, diag.constraint_name)
    except psycopg.Error as error:
        return of_database(error)
    if not (broken and broken.sentence):
        return None
    return problem(BROKEN[broken.kind], broken.sentence, errors={broken.field: [broken.sentence]})


@cache
def constraint(schema: str, table: str, name: str) -> Any:
    """A constraint's `kind`, its `sentence`, and the `field` that it is about."""
    return read("problems.constraint", schema=schema, table=table, name=name)


def of_broken_body(_: Exception) -> Response:
    """A body that breaks the rules of chunks, or ends early."""
    return problem("cut-body", "The body is broken: its chunks cannot be told apart, or it ends early.")


def of_disk(error: OSError) -> Response:
    """A disk that takes no more; whatever else the system refuses is nobody's request."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem(507, "The disk of the service is full.")
    return of_bug(error)


def of_bug(error: Exception) -> Response:
    """What nobody thought of: the log has it all, the client its request id."""
    log.error("%s", error, exc_info=error, extra={"request_id": g.get("request_id")})
    return problem(500, "Something went wrong here; the log has it under this request id.")


ANSWERS: dict[type[Exception], Callable[[Any], Response]] = {
    ClientDisconnected: of_broken_body,
    HTTPException: of_http,
    ValidationError: of_validation,
    psycopg.Error: of_database,
    ParseException: of_broken_body,
    NoMoreData: of_broken_body,
    OSError: of_disk,
    errors.Unreadable: lambda error: problem("unreadable-file", str(error)),
    errors.Damaged: lambda error: problem("unreadable-file", f"This cannot be restored: {error}"),
    errors.TooLarge: lambda error: problem(413, str(error)),
    errors.TooManyRejects: lambda error: problem("too-many-rejects", str(error)),
    errors.ChangedSince: lambda error: problem("changed-since", str(error), conflicts=error.conflicts),
    errors.NoBackup: lambda error: problem(404, str(error)),
    errors.NoSuchType: lambda error: problem("wrong-state", str(error)),
    Exception: of_bug,
}
"""What answers which exception."""


def of(error: Exception) -> Response:
    """The answer for an exception, also outside of a request. The frames that it came through are forgotten."""
    try:
        return next(answer for kind, answer in ANSWERS.items() if isinstance(error, kind))(error)
    finally:
        # marshmallow and Werkzeug keep it in a frame of these: the request and its body would wait for the collector.
        past: BaseException | None = error
        while past:
            past.__traceback__, past = None, past.__context__


def init_app(app: Flask) -> None:
    """Answer every failure of this app as a problem."""
    app.register_error_handler(Exception, of)
