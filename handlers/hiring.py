"""Hiring: departments, jobs and employees, whose ids come from the data."""

import json
from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema

import db
from handlers.access import needs
from handlers.answers import changed, created, item, page, removed
from handlers.contract import Expected, gives, takes
from handlers.fields import INTEGER, Digits, Instant, Item, Text, VersionQuery, Whole, instant, item_query, page_query

hiring = Blueprint("hiring", __name__)


def given_id(**options: Any) -> Whole:
    return Whole(most=INTEGER, **options)


def id_filter(most: int = INTEGER) -> Digits:
    return Digits(most=most, metadata={"description": "Exactly this id."})


def name_filter() -> Text:
    return Text(1000, metadata={"description": "Exactly this name."})


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
    datetime = Instant(required=True, metadata={"example": "2021-11-07T02:48:42Z"})
    department_id = given_id(required=True)
    job_id = given_id(required=True)


class NewEmployee(Employee):
    """An employee, with the id they have in the data."""

    id = given_id(required=True)


# The collections ------------------------------------------------------------------------------------------------------


def hang(noun: str, one: str, kind: type[Item], new: type[Item], pages: type[Schema]) -> None:
    """The six doors of a table whose ids come from the data."""

    @hiring.get(f"/{noun}", endpoint=f"list_{noun}")
    @needs("reader")
    @takes(query=pages)
    @gives(kind, many=True)
    def list(query: dict[str, Any]) -> Response:
        return page(f"{noun}.list", query)

    @hiring.post(f"/{noun}", endpoint=f"create_{noun}")
    @needs("writer")
    @takes(new)
    @gives(kind, 201)
    def create(body: dict[str, Any]) -> Response:
        row = db.write(f"{noun}.create", body=json.dumps(body))
        return created(row, f"/{noun}/{row.id}")

    @hiring.get(f"/{noun}/<id:id>", endpoint=f"get_{noun}")
    @needs("reader")
    @takes(query=item_query(kind))
    @gives(kind)
    def get(id: int, query: dict[str, Any]) -> Response:
        return item(db.read(f"{noun}.get", id=id, **query))

    @hiring.put(f"/{noun}/<id:id>", endpoint=f"replace_{noun}")
    @needs("writer")
    @takes(kind, precondition=True)
    @gives(kind)
    def replace(id: int, body: dict[str, Any], expected: Expected) -> Response:
        return changed(noun, id, body, expected)

    @hiring.patch(f"/{noun}/<id:id>", endpoint=f"change_{noun}")
    @needs("writer")
    @takes(kind, partial=True, precondition=True)
    @gives(kind)
    def change(id: int, body: dict[str, Any], expected: Expected) -> Response:
        return changed(noun, id, body, expected)

    @hiring.delete(f"/{noun}/<id:id>", endpoint=f"remove_{noun}")
    @needs("writer")
    @takes(query=VersionQuery, precondition=True)
    @gives(status=204)
    def remove(id: int, expected: Expected) -> Response:
        return removed(noun, id, expected)

    list.__doc__ = f"{noun.capitalize()} page by page, or all of them as NDJSON or CSV."
    create.__doc__ = f"Make {one}, under the id that the data gives it."
    get.__doc__ = f"Look at {one}."
    replace.__doc__ = f"Save {one} as the body says, over the version you read."
    change.__doc__ = f"Save some members of {one}, over the version you read."
    remove.__doc__ = f"Delete {one}, if it still is the version you read."


hang(
    "departments",
    "a department",
    Department,
    NewDepartment,
    page_query(Department, {"id": str, "department": str}, id=id_filter(), department=name_filter()),
)
hang("jobs", "a job", Job, NewJob, page_query(Job, {"id": str, "job": str}, id=id_filter(), job=name_filter()))
hang(
    "employees",
    "an employee",
    Employee,
    NewEmployee,
    page_query(
        Employee,
        {"id": str, "name": str, "datetime": instant},
        id=id_filter(),
        name=name_filter(),
        department_id=id_filter(),
        job_id=id_filter(),
    ),
)
