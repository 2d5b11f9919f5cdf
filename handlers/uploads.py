"""Uploads: historic CSV files moved into departments, jobs and employees, and the rows that broke a rule."""

import json
from typing import Any, BinaryIO

from flask import Blueprint, Response, abort
from marshmallow import Schema, fields, validate

import db
from handlers import csvfile
from handlers.access import needs
from handlers.answers import answer, page
from handlers.contract import gives, takes
from handlers.fields import Digits, Text
from handlers.files import sent_file
from handlers.loading import COLUMNS, insert
from handlers.schemas import page_query

uploads = Blueprint("uploads", __name__)

LOAD_TIMEOUT = "10min"
"""How long each statement of a load may take."""


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


@uploads.post(f"/upload/{TABLES}")
@needs("writer")
@takes(query=UploadQuery, files=True)
@gives(Upload)
def upload(table: str, query: dict[str, Any]) -> Response:
    """Move a CSV file into a table: rows that break a rule are logged, all others inserted.

    The same file again changes nothing, unless rows that were refused fit by now.
    """
    try:
        row, sha256 = load(table, sent_file(), query["header"])
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


def load(table: str, file: BinaryIO, header: str) -> tuple[Any, str]:
    """Load a file into a table, as one transaction. Returns the row of `{table}.load` and the file's SHA-256."""
    source = csvfile.Unpacked(file)
    rows = (staged(row) for row in csvfile.rows(source, COLUMNS[table], header))
    with db.transaction(LOAD_TIMEOUT) as connection:
        return insert(connection, table, rows, source.hash.hexdigest), source.hash.hexdigest()


def staged(row: csvfile.Row) -> tuple[Any, ...]:
    """A row as hiring.stage has it."""
    padded = (row.fields + [""] * 5)[:5]
    return row.line, row.raw, len(row.fields), row.unreadable, *padded


@uploads.get(f"/errors/{TABLES}")
@needs("reader")
@takes(query=RejectPageQuery)
@gives(Reject, many=True)
def errors(table: str, query: dict[str, Any]) -> Response:
    """The rows of uploaded files that broke a rule, with line, column, rule and the line as it came."""
    return page(f"{table}.errors", query)
