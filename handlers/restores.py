"""Restores: tables made equal to a backup, or to an Avro file."""

from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, fields, validate

from handlers import backing, restoring, shelf
from handlers.access import needs
from handlers.avroblocks import Damaged
from handlers.contract import AVRO, gives, takes
from handlers.fields import Text, Truth
from handlers.files import sent_file
from handlers.longwork import Done, perform
from handlers.problems import Problem
from handlers.progress import Progress

restores = Blueprint("restores", __name__)


class RestoreBody(Schema):
    """What to restore."""

    backup = Text(
        100, validate=[shelf.check_name], metadata={"description": "Its name; the newest of the table by default."}
    )
    dry_run = Truth(load_default=False, metadata={"description": "Only tell what it would change."})


class RestoreQuery(Schema):
    """How to restore a file that is the body."""

    dry_run = fields.String(
        validate=validate.OneOf(("true", "false")), metadata={"description": "Only tell what it would change."}
    )


class RestoredTable(Schema):
    """What a table was lacking, and had too much and otherwise."""

    table = fields.String(metadata={"example": "employees"})
    rows = fields.Integer()
    added = fields.Integer()
    removed = fields.Integer()
    changed = fields.Integer()


class Restored(RestoredTable):
    """What a restore changed, or would have."""

    backup = fields.String(allow_none=True, metadata={"description": "Null where the file came with the request."})
    dry_run = fields.Boolean()
    tables = fields.List(fields.Nested(RestoredTable))


@restores.post(f"/restore/<any({', '.join(backing.TABLES)}, all):table>")
@needs("admin")
@takes(RestoreBody, query=RestoreQuery, files=(AVRO, "avro/binary", "application/octet-stream"), long=True)
@gives(Restored)
def restore(table: str, query: dict[str, Any], body: dict[str, Any] | None = None) -> Response:
    """Make a table equal to a backup, or to the Avro file that is the body; readers see the old rows or the new."""
    dry_run = query.get("dry_run") == "true" or bool(body and body["dry_run"])
    file = sent_file() if body is None else None
    if file and table == backing.ALL:
        raise Problem("unreadable-file", "A file holds one table; all is restored from a backup.")
    name = None if file else shelf.known((body or {}).get("backup") or shelf.newest(table))["name"]

    def work(progress: Progress) -> Done:
        try:
            with restoring.files_of(shelf.directory(), table, name, file) as files:
                tables = restoring.restore(table, files, name or "a file", dry_run, progress)
        except Damaged as error:
            raise Problem("unreadable-file", f"This cannot be restored: {error}") from None
        sums = {count: sum(each[count] for each in tables) for count in ("rows", "added", "removed", "changed")}
        return Done(200, {"table": table, "backup": name, "dry_run": dry_run, **sums, "tables": tables})

    return perform("restore", table, work)
