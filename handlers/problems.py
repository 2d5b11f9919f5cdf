"""Every failure as RFC 9457 problem+json: the only table from constraint, SQLSTATE or exception to an answer."""

import json
import logging
from http import HTTPStatus
from typing import Any, NamedTuple

import psycopg
from flask import Flask, Response, g
from marshmallow import ValidationError
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import HTTPException

log = logging.getLogger("rowhouse")

RETRY_AFTER = "1"
"""Seconds after which a client may try again where the database was away."""


class Broken(NamedTuple):
    """What a broken constraint means to a client."""

    status: int
    field: str
    sentence: str


CONSTRAINTS = {
    "users_email_key": Broken(409, "email", "Another user has this e-mail address."),
    "users_email_check": Broken(422, "email", "Must be an e-mail address of at most 254 characters."),
    "users_name_check": Broken(422, "name", "Must be 1 to 30 characters, not blank."),
    "users_address_check": Broken(422, "address", "Must be 1 to 100 characters, not blank."),
    "users_image_check": Broken(422, "image", "Must be an http or https URL of at most 100 characters."),
    "users_text_check": Broken(422, "text", "Must be at most 1000 characters."),
    "departments_pkey": Broken(409, "id", "Another department has this id."),
    "departments_id_check": Broken(422, "id", "Must be 1 to 2147483647."),
    "departments_department_check": Broken(422, "department", "Must not be blank."),
    "jobs_pkey": Broken(409, "id", "Another job has this id."),
    "jobs_id_check": Broken(422, "id", "Must be 1 to 2147483647."),
    "jobs_job_check": Broken(422, "job", "Must not be blank."),
    "employees_pkey": Broken(409, "id", "Another employee has this id."),
    "employees_id_check": Broken(422, "id", "Must be 1 to 2147483647."),
    "employees_name_check": Broken(422, "name", "Must not be blank."),
    "employees_datetime_check": Broken(422, "datetime", "Must lie in the years 1 to 9999."),
    "employees_department_id_fkey": Broken(409, "department_id", "The department is unknown, or still has employees."),
    "employees_job_id_fkey": Broken(409, "job_id", "The job is unknown, or still has employees."),
}

SQLSTATES = {
    "57014": (504, "The statement took longer than its time limit."),
    "55P03": (503, "The object is locked by somebody else's change."),
    "40001": (503, "Another change came in between."),
    "40P01": (503, "Another change came in between."),
    "25006": (503, "The database takes no changes just now."),
    "53": (503, "The database is at its limits."),
    "08": (503, "The database is not reachable."),
    "57P": (503, "The database is not reachable."),
    "22": (422, "A value is outside of what the database can hold."),
}
"""SQLSTATEs by their beginning; the first that fits counts."""


class Problem(HTTPException):
    """A failure with members of its own, such as `current` and `conflicts`."""

    def __init__(self, status: int, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.code, self.members = status, members


def problem(status: int, detail: str, **members: Any) -> Response:
    """The answer for a failure. Where the database was away it says when to try again."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": g.get("request_id"),
        **members,
    }
    response = Response(json.dumps(body) + "\n", status, mimetype="application/problem+json")
    if status == 503:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def of_http(error: HTTPException) -> Response:
    """What Flask, Werkzeug or a handler's abort() refuses."""
    response = problem(error.code or 500, error.description or "", **getattr(error, "members", {}))
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After", "Location", "WWW-Authenticate"):
            response.headers[name] = value
    return response


def of_validation(error: ValidationError) -> Response:
    """What a schema refuses, by the path of the field."""
    messages = error.messages if isinstance(error.messages, dict) else {"_schema": error.messages}
    return problem(422, "Some values are not valid.", errors=dict(paths(messages)))


def paths(messages: dict[Any, Any], prefix: str = "") -> "list[tuple[str, list[str]]]":
    """Marshmallow's nested messages as (path, messages): {"ticks": {0: ["…"]}} becomes [("ticks.0", ["…"])]."""
    found: list[tuple[str, list[str]]] = []
    for name, value in messages.items():
        path = f"{prefix}{name}"
        found += paths(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def of_database(error: psycopg.Error) -> Response:
    """What PostgreSQL refuses, or that it cannot be reached."""
    broken = CONSTRAINTS.get(error.diag.constraint_name or "")
    if broken:
        return problem(broken.status, broken.sentence, errors={broken.field: [broken.sentence]})
    if isinstance(error, PoolTimeout):
        return problem(503, "No connection to the database is free.")
    if isinstance(error, psycopg.OperationalError) and not error.sqlstate:
        return problem(503, "The database is not reachable.")
    for beginning, (status, sentence) in SQLSTATES.items():
        if (error.sqlstate or "").startswith(beginning):
            return problem(status, sentence)
    return of_bug(error)


def of_bug(error: Exception) -> Response:
    """What nobody thought of: the log has it all, the client its request id."""
    log.error("%s", error, exc_info=error, extra={"request_id": g.get("request_id")})
    return problem(500, "Something went wrong here; the log has it under this request id.")


def translate(app: Flask) -> None:
    """Answer every failure of this app as a problem."""
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(ValidationError, of_validation)
    app.register_error_handler(psycopg.Error, of_database)
    app.register_error_handler(Exception, of_bug)
