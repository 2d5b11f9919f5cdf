"""Hiring: departments, jobs and employees; historic CSV files moved into them, and the rows that broke a rule."""

import json
import shutil
import tempfile
from typing import Any, BinaryIO

from flask import Blueprint, Response, abort, request
from marshmallow import Schema, fields, validate

import db
from handlers import csvfile
from handlers.access import needs
from handlers.answers import answer, changed, created, item, page, removed
from handlers.contract import CSV, Expected, gives, takes
from handlers.fields import INTEGER, Digits, Instant, Item, Text, VersionQuery, Whole, instant, item_query, page_query

hiring = Blueprint("hiring", __name__)

UPLOAD_LIMIT = 2**30
"""Bytes of an uploaded file as sent."""

SPOOL = 2**20
"""Bytes of an upload kept in memory before it goes to a temporary file."""

LOAD_TIMEOUT = "10min"
"""How long each statement of a load may take."""

COLUMNS = {
    "departments": ("id", "department"),
    "jobs": ("id", "job"),
    "employees": ("id", "name", "datetime", "department_id", "job_id"),
}


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


class Reject(Schema):
    """A row that broke a rule."""

    id = fields.Integer()
    upload_id = fields.Integer()
    line = fields.Integer(metadata={"description": "The line of the file it began on, from 1."})
    column_name = fields.String(
        allow_none=True, metadata={"description": "The column at fault; null where the whole row is."}
    )
    code = fields.String(metadata={"example": "missing"})
    detail = fields.String(metadata={"example": "A value is required."})
    raw = fields.String(metadata={"description": "The line as it came."})
    logged_at = fields.String(metadata={"format": "date-time"})


class UploadQuery(Schema):
    """How to read an uploaded file."""

    header = fields.String(
        validate=validate.OneOf(("auto", "yes", "no")),
        load_default="auto",
        metadata={"description": "Whether the first row names the columns; auto sees it."},
    )


class Upload(Schema):
    """What came of an uploaded file: accepted + rejected = rows."""

    table = fields.String(metadata={"example": "employees"})
    upload_id = fields.Integer(metadata={"description": "The same for the same file."})
    sha256 = fields.String(metadata={"description": "Of the unpacked file."})
    rows = fields.Integer()
    accepted = fields.Integer()
    rejected = fields.Integer()
    errors = fields.String(
        metadata={"description": "Where the rejects are.", "example": "/errors/employees?upload_id=1"}
    )


RejectPageQuery = page_query(
    Reject,
    {"id": str},
    upload_id=Digits(metadata={"description": "Only those of this upload."}),
    code=Text(100, metadata={"description": "Only those that broke this rule."}),
)

TABLES = f"<any({', '.join(COLUMNS)}):table>"


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


# Historic files -------------------------------------------------------------------------------------------------------


@hiring.post(f"/upload/{TABLES}")
@needs("writer")
@takes(query=UploadQuery, files=True)
@gives(Upload)
def upload(table: str, query: dict[str, Any]) -> Response:
    """Move a CSV file into a table: rows that break a rule are logged, all others inserted.

    The same file again changes nothing, unless rows that were refused fit by now.
    """
    try:
        row, sha256 = load(table, uploaded_file(), query["header"])
    except csvfile.Unreadable as error:
        abort(422, str(error))
    except csvfile.TooLarge:
        abort(413, f"The file is larger than {csvfile.UNPACKED_LIMIT} bytes unpacked.")
    return answer(
        json.dumps(
            {
                "table": table,
                "upload_id": row.upload_id,
                "sha256": sha256,
                "rows": row.rows,
                "accepted": row.accepted,
                "rejected": row.rejected,
                "errors": f"/errors/{table}?upload_id={row.upload_id}",
            }
        )
    )


def uploaded_file() -> BinaryIO:
    """The file that was sent, on disk if large, so that no connection waits for a slow sender."""
    request.max_content_length = UPLOAD_LIMIT
    if request.mimetype == "multipart/form-data":
        if "file" not in request.files:
            abort(422, "There is no part named file.")
        return request.files["file"].stream  # type: ignore[return-value]
    if request.mimetype not in (CSV, "application/gzip"):
        abort(415, f"The body must be {CSV}, or multipart/form-data with a part named file.")
    spool = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115  # closed with the request, by whoever holds it last
    shutil.copyfileobj(request.stream, spool)
    spool.seek(0)
    return spool  # type: ignore[return-value]


def load(table: str, file: BinaryIO, header: str) -> tuple[Any, str]:
    """Load a file into a table, as one transaction. Returns the row of `{table}.load` and the file's SHA-256."""
    source = csvfile.Unpacked(file)
    with db.transaction(LOAD_TIMEOUT) as connection:
        db.run(connection, "hiring.stage")
        db.copy(connection, "hiring.copy", (staged(row) for row in csvfile.rows(source, COLUMNS[table], header)))
        db.run(connection, "hiring.measure")
        db.run(connection, f"hiring.lock_{table}")
        sha256 = source.hash.hexdigest()
        return next(db.run(connection, f"{table}.load", sha256=sha256)), sha256


def staged(row: csvfile.Row) -> tuple[Any, ...]:
    """A row as hiring.stage has it."""
    padded = (row.fields + [""] * 5)[:5]
    return row.line, row.raw, len(row.fields), row.unreadable, *padded


@hiring.get(f"/errors/{TABLES}")
@needs("reader")
@takes(query=RejectPageQuery)
@gives(Reject, many=True)
def errors(table: str, query: dict[str, Any]) -> Response:
    """The rows of uploaded files that broke a rule, with line, column, rule and the line as it came."""
    return page(f"{table}.errors", query)
