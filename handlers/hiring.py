"""Hiring: departments, jobs and employees, whose ids come from the data."""

from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema, fields

from db import read
from handlers.http.auth import requires_role
from handlers.http.contract import gives
from handlers.http.crud import add_crud_routes
from handlers.http.fields import INTEGER, IntegerParam, StrictInteger, Text, Timestamp
from handlers.http.responses import answer
from handlers.http.schemas import Item, instant, page_query

hiring = Blueprint("hiring", __name__)


def given_id(**options: Any) -> StrictInteger:
    return StrictInteger(most=INTEGER, **options)


def id_filter(most: int = INTEGER) -> IntegerParam:
    return IntegerParam(most=most, metadata={"description": "Exactly this id."})


def name_filter() -> Text:
    """A filter by the name of a row, whatever the column is called."""
    return Text(1000, attribute="name", metadata={"description": "Exactly this name."})


class Provenance(Schema):
    """Where a row came from."""

    id = fields.Integer()
    upload_id = fields.Integer(allow_none=True, metadata={"description": "Null where it came as a request."})
    line = fields.Integer(
        allow_none=True, metadata={"description": "Of the file, from 1; of a batch, its place among the table's rows."}
    )
    sha256 = fields.String(allow_none=True, metadata={"description": "Of the unpacked file."})
    uploaded_at = fields.String(allow_none=True, metadata={"format": "date-time"})
    history = fields.String(metadata={"description": "Where its changes are.", "example": "/employees/1/history"})


class Department(Item):
    """Where people are hired into."""

    department = Text(1000, required=True, metadata={"example": "Engineering"})


class NewDepartment(Department):
    """A department, with the id it has in the data."""

    id = given_id(required=True)


class Job(Item):
    """What people are hired as."""

    job = Text(1000, required=True, metadata={"example": "Architect"})


class NewJob(Job):
    """A job, with the id it has in the data."""

    id = given_id(required=True)


class Employee(Item):
    """Who was hired, when, where and as what."""

    name = Text(1000, required=True, metadata={"example": "Harold Vogt"})
    datetime = Timestamp(required=True, metadata={"example": "2021-11-07T02:48:42Z"})
    department_id = given_id(required=True)
    job_id = given_id(required=True)


class NewEmployee(Employee):
    """An employee, with the id they have in the data."""

    id = given_id(required=True)


add_crud_routes(
    hiring,
    noun="departments",
    one="a department",
    schema=Department,
    new=NewDepartment,
    query=page_query(Department, {"id": str, "department": str}, id=id_filter(), department=name_filter()),
)
add_crud_routes(
    hiring,
    noun="jobs",
    one="a job",
    schema=Job,
    new=NewJob,
    query=page_query(Job, {"id": str, "job": str}, id=id_filter(), job=name_filter()),
)
add_crud_routes(
    hiring,
    noun="employees",
    one="an employee",
    schema=Employee,
    new=NewEmployee,
    query=page_query(
        Employee,
        {"id": str, "name": str, "datetime": instant},
        id=id_filter(),
        name=name_filter(),
        department_id=id_filter(),
        job_id=id_filter(),
    ),
)


@hiring.get("/<any(departments, jobs, employees):table>/<id:id>/provenance")
@requires_role("reader")
@gives(Provenance)
def provenance(table: str, id: int) -> Response:
    """Where a row came from: the file and its line."""
    return answer((read(f"{table}.provenance", id=id) or abort(404, "There is no such object.")).body)
