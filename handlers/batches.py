"""Batches: rows of departments, jobs and employees as JSON, parents first; what breaks a rule is logged."""

import hashlib
import json
import re
from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, ValidationError, fields, validates_schema

import db
from handlers.access import needs
from handlers.answers import answer
from handlers.contract import gives, takes
from handlers.loading import COLUMNS, WIDEST, insert

batches = Blueprint("batches", __name__)

SURROGATE = re.compile("[\ud800-\udfff]")

BATCH_LIMIT = 1000
"""Rows of a batch, of all tables together."""


class Batch(Schema):
    """Rows by table, parents and children in one: each with the members that the table's objects have."""

    departments = fields.List(
        fields.Raw(allow_none=True), load_default=list, metadata={"example": [{"id": 1, "department": "Sales"}]}
    )
    jobs = fields.List(
        fields.Raw(allow_none=True), load_default=list, metadata={"example": [{"id": 1, "job": "Clerk"}]}
    )
    employees = fields.List(fields.Raw(allow_none=True), load_default=list, metadata={"example": []})

    @validates_schema
    def check_rows(self, data: dict[str, Any], **_: Any) -> None:
        if not 1 <= sum(map(len, data.values())) <= BATCH_LIMIT:
            raise ValidationError(f"Must be 1 to {BATCH_LIMIT} rows in all.")


class BatchError(Schema):
    """A row of a batch that broke a rule."""

    table = fields.String(metadata={"example": "employees"})
    index = fields.Integer(metadata={"description": "Its place among the rows of the table, from 0."})
    field = fields.String(allow_none=True, metadata={"description": "Null where the row as a whole is at fault."})
    code = fields.String(metadata={"example": "unknown"})
    detail = fields.String(metadata={"example": "There is no department 7."})


class BatchResult(Schema):
    """What came of a batch: accepted + rejected = rows."""

    accepted = fields.Integer()
    rejected = fields.Integer()
    errors = fields.List(fields.Nested(BatchError))


@batches.post("/batch")
@needs("writer")
@takes(Batch)
@gives(BatchResult)
def batch(body: dict[str, list[Any]]) -> Response:
    """Insert 1 to 1000 rows, departments and jobs before employees: those that break a rule are logged, as of a file.

    The same rows again change nothing.
    """
    accepted, errors = 0, []
    with db.transaction() as connection:
        for table, columns in COLUMNS.items():
            if not body[table]:
                continue
            digest = hashlib.sha256(json.dumps(body[table]).encode()).hexdigest
            rows = (given(index, row, columns) for index, row in enumerate(body[table]))
            loaded = insert(connection, table, rows, digest)
            accepted += loaded.accepted
            rejects = next(db.run(connection, f"{table}.errors", upload_id=loaded.upload_id, limit=BATCH_LIMIT)).body
            errors += [
                {
                    "table": table,
                    "index": reject["line"] - 1,
                    "field": reject["column_name"],
                    "code": reject["code"],
                    "detail": reject["detail"],
                }
                for reject in json.loads(rejects)["items"]
            ]
    return answer(json.dumps({"accepted": accepted, "rejected": len(errors), "errors": errors}, ensure_ascii=False))


def given(index: int, row: Any, columns: tuple[str, ...]) -> tuple[Any, ...]:
    """A row of a batch as hiring.stage has it: its place as the line, its members as a file would have them."""
    members = row if isinstance(row, dict) else {}
    texts = [as_text(column, members.get(column)) for column in columns]
    raw = json.dumps(row)
    unreadable = None
    if not isinstance(row, dict):
        unreadable = "Must be an object."
    elif unknown := members.keys() - set(columns):
        unreadable = f"Unknown: {', '.join(sorted(json.dumps(name) for name in unknown))}."
    elif wrong := [column for column, text in zip(columns, texts, strict=True) if text is None]:
        unreadable = f"Must be text, without NUL or lone surrogates: {', '.join(wrong)}."
    texts = [text or "" for text in texts]
    return index + 1, raw, len(columns), unreadable, *(texts + [""] * WIDEST)[:WIDEST]


def as_text(column: str, value: Any) -> str | None:
    """A member as a field of a file; None where it cannot be one. What is no integer is left for the table's rules."""
    if value is None:
        return ""
    if column == "id" or column.endswith("_id"):
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
    return value if isinstance(value, str) and "\0" not in value and not SURROGATE.search(value) else None
