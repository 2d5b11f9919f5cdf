"""Batches: rows of departments, jobs and employees as JSON, parents first; what breaks a rule is logged."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, ValidationError, fields, validates_schema

import db
from handlers.bulk.csv_header import COLUMNS
from handlers.bulk.loading import WIDEST, Staged, insert, plain
from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.fields import Many
from handlers.http.problems import shortened
from handlers.http.responses import answer

batches = Blueprint("batches", __name__)

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What PostgreSQL's texts cannot hold."""

NUMBERS = {"id", "department_id", "job_id"}
"""Columns that are integers."""

TYPES = {"id": int, "name": str, "datetime": str, "department_id": int, "job_id": int}
"""What the members of an employee are."""

NAMES_TOLD = 10
"""Unknown members of a row that are told."""

BATCH_LIMIT = 1000
"""Rows of a batch, of all tables together."""


class Batch(Schema):
    """Rows by table, parents and children in one: each with the members that the table's objects have."""

    departments = Many(
        fields.Raw(allow_none=True),
        0,
        BATCH_LIMIT,
        load_default=list,
        metadata={"example": [{"id": 1, "department": "Sales"}]},
    )
    jobs = Many(
        fields.Raw(allow_none=True),
        0,
        BATCH_LIMIT,
        load_default=list,
        metadata={"example": [{"id": 1, "job": "Clerk"}]},
    )
    employees = Many(fields.Raw(allow_none=True), 0, BATCH_LIMIT, load_default=list, metadata={"example": []})

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
@requires_role("writer")
@takes(Batch)
@gives(BatchResult)
def batch(body: dict[str, list[Any]]) -> Response:
    """Insert 1 to 1000 rows, departments and jobs before employees: those that break a rule are logged, as of a file.

    The same rows again change nothing.
    """
    accepted, errors = 0, []
    with db.transaction() as connection:
        for place, table in enumerate(table for table in COLUMNS if body[table]):
            if place:
                db.run(connection, "hiring.unstage")
            digest = hashlib.sha256()
            rows = staged(table, body[table], digest)
            loaded = insert(connection, table, rows, digest.hexdigest, many=False)
            accepted += loaded.accepted
            if loaded.rejected:
                errors += rejects(connection, table, loaded.upload_id)
    return answer(json.dumps({"accepted": accepted, "rejected": len(errors), "errors": errors}, ensure_ascii=False))


def rejects(connection: db.Connection, table: str, upload_id: int) -> list[dict[str, Any]]:
    """What was logged of this batch's rows of a table, as it is answered."""
    found = next(db.run(connection, f"{table}.errors", upload_id=upload_id, limit=BATCH_LIMIT)).body
    return [
        {
            "table": table,
            "index": reject["line"] - 1,
            "field": reject["column_name"],
            "code": reject["code"],
            "detail": reject["detail"],
        }
        for reject in json.loads(found)["items"]
    ]


def staged(table: str, rows: list[Any], digest: "hashlib._Hash") -> Iterator[Staged]:
    """Rows as they are staged: their place as the line, their members as a file would have them; digested."""
    columns = COLUMNS[table]
    raws = [*map(json.JSONEncoder().encode, rows)]
    digest.update("".join(f"{raw}\n" for raw in raws).encode())
    lacking = [""] * (WIDEST - len(columns))
    for line, (row, raw) in enumerate(zip(rows, raws, strict=True), 1):
        if table == "employees" and (taken := plain_employee(line, raw, row)):
            yield taken
            continue
        members = row if isinstance(row, dict) else {}
        texts = [as_text(column, members.get(column)) for column in columns]
        unreadable = None
        if not isinstance(row, dict):
            unreadable = "Must be an object."
        elif unknown := members.keys() - columns:
            names = sorted(json.dumps(shortened(name)) for name in unknown)[:NAMES_TOLD]
            unreadable = f"Unknown: {', '.join(names)}."
        elif wrong := [column for column, text in zip(columns, texts, strict=True) if text is None]:
            unreadable = f"Must be text, without NUL or lone surrogates: {', '.join(wrong)}."
        yield line, raw, len(columns), unreadable, *(text or "" for text in texts), *lacking


def plain_employee(line: int, raw: str, row: Any) -> str | None:
    """An employee as employees.copy_plain takes it; None if the rules have to be asked."""
    if type(row) is not dict or row.keys() != TYPES.keys() or [*map(type, map(row.get, TYPES))] != [*TYPES.values()]:
        return None
    # What PostgreSQL's texts cannot hold is escaped in JSON, and nothing with a backslash is plain.
    return plain(line, raw, [*map(str, map(row.get, TYPES))])


def as_text(column: str, value: Any) -> str | None:
    """A member as a field of a file; None where it cannot be one. What is no integer is left for the table's rules."""
    if column in NUMBERS:
        if type(value) is int:
            return str(value)
        return "" if value is None else json.dumps(value)
    if value is None:
        return ""
    return value if isinstance(value, str) and not UNSTORABLE.search(value) else None
