"""Every failure as RFC 9457 problem+json: the only table from constraint, SQLSTATE or exception to an answer."""

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import psycopg
from flask import Flask, Response, g
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import ValidationError
from psycopg_pool import PoolTimeout
from werkzeug.exceptions import HTTPException

from db import project

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
    "audios_session_id_key": Broken(409, "session_id", "Another audio has this session."),
    "audios_session_id_check": Broken(422, "session_id", "Must be at least 1."),
    "audios_ticks_check": Broken(422, "ticks", "Must be 15 numbers from -100 to -10."),
    "audios_selected_tick_check": Broken(422, "selected_tick", "Must be 0 to 14."),
    "audios_step_count_check": Broken(422, "step_count", "Must be 0 to 9."),
    "projects_slug_key": Broken(409, "slug", "Another project has this slug."),
    "projects_owner_id_fkey": Broken(422, "owner_id", "There is no such user."),
    "projects_name_check": Broken(422, "name", "Must be 1 to 200 characters, not blank."),
    "projects_slug_check": Broken(422, "slug", "Must be small letters and digits, with single dashes between."),
    "projects_description_check": Broken(422, "description", "Must be at most 10000 characters."),
    "milestones_project_id_id_key": Broken(409, "id", "Another milestone has this id."),
    "milestones_project_id_fkey": Broken(404, "project_id", "There is no such project."),
    "milestones_name_check": Broken(422, "name", "Must be 1 to 200 characters, not blank."),
    "milestones_ends_on_check": Broken(422, "ends_on", "Must not be before starts_on."),
    "milestones_dates_check": Broken(422, "starts_on", "Must lie in the years 1 to 9999."),
    "userstories_project_id_id_key": Broken(409, "id", "Another user story has this id."),
    "userstories_project_id_ref_key": Broken(409, "ref", "Another user story of the project has this ref."),
    "userstories_project_id_fkey": Broken(404, "project_id", "There is no such project."),
    "userstories_milestone_id_fkey": Broken(422, "milestone_id", "The project has no such milestone."),
    "userstories_assigned_to_fkey": Broken(422, "assigned_to", "There is no such user."),
    "userstories_ref_check": Broken(422, "ref", "Must be at least 1."),
    "userstories_subject_check": Broken(422, "subject", "Must be 1 to 500 characters, not blank."),
    "userstories_description_check": Broken(422, "description", "Must be at most 10000 characters."),
    "userstories_status_check": Broken(422, "status", "Must be 1 to 50 characters, not blank."),
    "userstories_tags_check": Broken(422, "tags", "Must be at most 20, each of 1 to 50 characters, not blank."),
    "userstories_points_check": Broken(422, "points", "Must be 0 to 1000."),
    "project_refs_project_id_fkey": Broken(404, "project_id", "There is no such project."),
    "tasks_userstory_id_fkey": Broken(404, "userstory_id", "There is no such user story."),
    "tasks_assigned_to_fkey": Broken(422, "assigned_to", "There is no such user."),
    "tasks_subject_check": Broken(422, "subject", "Must be 1 to 500 characters, not blank."),
    "tasks_status_check": Broken(422, "status", "Must be 1 to 50 characters, not blank."),
    "comments_userstory_id_fkey": Broken(404, "userstory_id", "There is no such user story."),
    "comments_author_id_fkey": Broken(422, "author_id", "There is no such user."),
    "comments_text_check": Broken(422, "text", "Must be 1 to 10000 characters, not blank."),
    "events_user_id_check": Broken(422, "user_id", "Must be 1 to 200 characters, not blank."),
    "events_description_check": Broken(422, "description", "Must be 1 to 10000 characters, not blank."),
    "events_status_check": Broken(422, "status", "Must be NotProcessed, Processed or Failed."),
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
    if error.sqlstate == "42501" and project.get():
        return problem(403, f"The token is for project {project.get()} only.")
    for beginning, (status, sentence) in SQLSTATES.items():
        if (error.sqlstate or "").startswith(beginning):
            return problem(status, sentence)
    return of_bug(error)


def of_broken_body(_: Exception) -> Response:
    """A body that breaks the rules of chunks, or ends early."""
    return problem(400, "The body is broken: its chunks cannot be told apart, or it ends early.")


def of_bug(error: Exception) -> Response:
    """What nobody thought of: the log has it all, the client its request id."""
    log.error("%s", error, exc_info=error, extra={"request_id": g.get("request_id")})
    return problem(500, "Something went wrong here; the log has it under this request id.")


ANSWERS: dict[type[Exception], Callable[[Any], Response]] = {
    HTTPException: of_http,
    ValidationError: of_validation,
    psycopg.Error: of_database,
    ParseException: of_broken_body,
    NoMoreData: of_broken_body,
    Exception: of_bug,
}
"""What answers which exception."""


def of(error: Exception) -> Response:
    """The answer for an exception, also outside of a request."""
    return next(answer for kind, answer in ANSWERS.items() if isinstance(error, kind))(error)


def translate(app: Flask) -> None:
    """Answer every failure of this app as a problem."""
    for kind, answer in ANSWERS.items():
        app.register_error_handler(kind, answer)
