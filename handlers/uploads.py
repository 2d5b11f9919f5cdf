"""Uploads: historic CSV files moved into departments, jobs and employees, and the rows that broke a rule."""

from typing import Any, BinaryIO

from flask import Blueprint, Response, abort, current_app
from marshmallow import Schema, fields, validate

from db import read
from handlers.bulk.csv_header import COLUMNS
from handlers.bulk.loading import REJECTS_TOLD, load
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import Progress
from handlers.http.auth import requires_role
from handlers.http.contract import CSV, GZIP, gives, takes
from handlers.http.fields import IntegerParam, Text
from handlers.http.files import sent_file
from handlers.http.problems import ProblemException
from handlers.http.respond_async import run_or_enqueue
from handlers.http.responses import answer, page
from handlers.http.schemas import page_query

uploads = Blueprint("uploads", __name__)


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
        metadata={
            "description": "Whether the first row names the columns; auto sees it. They are taken by name, in any"
            " order; by their place only with yes and no name that is known."
        },
    )
    mode = fields.String(
        validate=validate.OneOf(("partial", "atomic", "dry-run")),
        load_default="partial",
        metadata={
            "description": "partial keeps the rows that break no rule; atomic keeps all, or nothing and answers 422;"
            " dry-run keeps nothing and tells what would come of it."
        },
    )
    max_errors = IntegerParam(
        least=0, metadata={"description": "The most rows that may break a rule; with more nothing is kept: 422."}
    )


class Upload(Schema):
    """What came of an uploaded file, or would have: accepted + rejected = rows."""

    table = fields.String(metadata={"example": "employees"})
    upload_id = fields.Integer(
        allow_none=True, metadata={"description": "The same for the same file; null of a dry-run."}
    )
    sha256 = fields.String(metadata={"description": "Of the unpacked file."})
    rows = fields.Integer()
    accepted = fields.Integer()
    rejected = fields.Integer()
    errors = fields.String(
        allow_none=True,
        metadata={
            "description": "Where the rejects are; null of a dry-run.",
            "example": "/errors/employees?upload_id=1",
        },
    )
    rejects = fields.List(
        fields.Nested(Reject(exclude=("id", "upload_id", "logged_at"))),
        metadata={"description": f"The first {REJECTS_TOLD} rejects of a dry-run."},
    )


class KeptUpload(Upload):
    """A file or batch that was moved in: accepted + rejected = rows."""

    class Meta:
        exclude = ("upload_id", "rejects")

    id = fields.Integer(metadata={"description": "The `upload_id` of its answer, by which it can be undone."})
    sha256 = fields.String(metadata={"description": "Of the unpacked file, or of the batch's rows."})
    errors = fields.String(
        metadata={"description": "Where its rejects are.", "example": "/errors/employees?upload_id=1"}
    )
    created_at = fields.String(metadata={"format": "date-time", "description": "When it came first."})
    updated_at = fields.String(
        metadata={"format": "date-time", "description": "When it came last with another outcome."}
    )


UploadPageQuery = page_query(
    KeptUpload,
    {"id": str},
    table=fields.String(validate=validate.OneOf((*COLUMNS,)), metadata={"description": "Only those into this table."}),
)

RejectPageQuery = page_query(
    Reject,
    {"id": str},
    upload_id=IntegerParam(metadata={"description": "Only those of this upload."}),
    code=Text(100, metadata={"description": "Only those that broke this rule."}),
)

TABLES = f"<any({', '.join(COLUMNS)}):table>"


@uploads.post(f"/upload/{TABLES}")
@requires_role("writer")
@takes(query=UploadQuery, files=(CSV, GZIP), long=True)
@gives(Upload)
def upload(table: str, query: dict[str, Any]) -> Response:
    """Move a CSV file into a table: rows that break a rule are logged, all others inserted.

    The same file again changes nothing, unless rows that were refused fit by now.
    """
    file, limit = sent_file(), current_app.config["REJECTS_LIMIT"]
    return run_or_enqueue("upload", table, lambda progress: moved_in(table, file, progress, limit, **query))


def moved_in(table: str, file: BinaryIO, progress: Progress, rejects_limit: int, **how: Any) -> Outcome:
    """What came of moving a file in."""
    row, sha256, undone = load(table, file, progress, rejects_limit, **how)
    counts = {"rows": row.rows, "accepted": row.accepted, "rejected": row.rejected}
    if undone and undone.too_many:
        raise ProblemException(
            "too-many-rejects", "Too many rows break a rule: nothing was kept.", **counts, rejects=undone.rejects
        )
    found = {"table": table, "upload_id": row.upload_id, "sha256": sha256, **counts}
    found["errors"] = f"/errors/{table}?upload_id={row.upload_id}"
    if undone:
        found |= {"upload_id": None, "errors": None, "rejects": undone.rejects}
    return Outcome(200, found)


@uploads.get("/uploads")
@requires_role("reader")
@takes(query=UploadPageQuery)
@gives(KeptUpload, many=True)
def list(query: dict[str, Any]) -> Response:
    """The files and batches that were moved in, page by page."""
    return page("uploads.list", query)


@uploads.get("/uploads/<id:id>")
@requires_role("reader")
@gives(KeptUpload)
def get(id: int) -> Response:
    """A file or batch that was moved in, and what came of it."""
    return answer((read("uploads.get", id=id) or abort(404, "There is no such object.")).body)


@uploads.get(f"/errors/{TABLES}")
@requires_role("reader")
@takes(query=RejectPageQuery)
@gives(Reject, many=True)
def errors(table: str, query: dict[str, Any]) -> Response:
    """The rows of uploaded files that broke a rule, with line, column, rule and the line as it came."""
    return page(f"{table}.errors", query)
