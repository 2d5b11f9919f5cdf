"""Restores: tables made equal to a backup, or to an Avro file."""

from typing import Any

from flask import Blueprint, Response, current_app
from marshmallow import Schema, fields, validate

from handlers.bulk.backup import ALL, TABLES
from handlers.bulk.backup_store import BackupStore, check_name
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import Progress
from handlers.bulk.restore import files_of, restore
from handlers.http.auth import requires_role
from handlers.http.contract import AVRO, gives, takes
from handlers.http.fields import StrictBoolean, Text
from handlers.http.files import sent_file
from handlers.http.problems import ProblemException
from handlers.http.respond_async import run_or_enqueue

restores = Blueprint("restores", __name__)


class RestoreBody(Schema):
    """What to restore."""

    backup = Text(100, validate=[check_name], metadata={"description": "Its name; the newest of the table by default."})
    dry_run = StrictBoolean(load_default=False, metadata={"description": "Only tell what it would change."})


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


@restores.post(f"/restore/<any({', '.join(TABLES)}, all):table>")
@requires_role("admin")
@takes(RestoreBody, query=RestoreQuery, files=(AVRO, "avro/binary", "application/octet-stream"), long=True)
@gives(Restored)
def replace(table: str, query: dict[str, Any], body: dict[str, Any] | None = None) -> Response:
    """Make a table equal to a backup, or to the Avro file that is the body; readers see the old rows or the new."""
    dry_run = query.get("dry_run") == "true" or bool(body and body["dry_run"])
    file = sent_file() if body is None else None
    if file and table == ALL:
        raise ProblemException("unreadable-file", "A file holds one table; all is restored from a backup.")
    store = BackupStore(current_app.config["BACKUP_DIR"])
    name = None if file else store.manifest((body or {}).get("backup") or store.newest(table))["name"]

    def work(progress: Progress) -> Outcome:
        with files_of(store.directory, table, name, file) as files:
            tables = restore(table, files, name or "a file", dry_run, progress)
        sums = {count: sum(each[count] for each in tables) for count in ("rows", "added", "removed", "changed")}
        return Outcome(200, {"table": table, "backup": name, "dry_run": dry_run, **sums, "tables": tables})

    return run_or_enqueue("restore", table, work)
