"""Backups: tables as Avro files, with a manifest."""

import json
import os
import tempfile
from itertools import islice
from typing import Any

from flask import Blueprint, Response, current_app, send_file
from marshmallow import Schema, fields, validate

import db
from handlers.bulk import backup
from handlers.bulk.backup_store import BackupStore, age, check_name
from handlers.bulk.operation import Outcome
from handlers.bulk.progress import STATEMENT_TIMEOUT, Progress, unseen
from handlers.http.auth import requires_role
from handlers.http.contract import AVRO, gives, takes
from handlers.http.fields import IntegerParam, Text
from handlers.http.respond_async import run_or_enqueue
from handlers.http.responses import answer
from handlers.http.shares import Share, caller, readers

backups = Blueprint("backups", __name__)

TABLE = f"<any({', '.join(backup.TABLES)}):table>"


class BackupFile(Schema):
    """A table's file of a backup."""

    table = fields.String(metadata={"example": "employees"})
    file = fields.String(metadata={"description": "Its name below BACKUP_DIR."})
    rows = fields.Integer()
    bytes = fields.Integer()
    sha256 = fields.String()
    schema = fields.Dict(metadata={"description": "The Avro schema."})


class Backup(BackupFile):
    """A backup: its manifest. That of `all` has a list of files instead of one."""

    name = fields.String(metadata={"example": "employees-20261121T081200123456Z"})
    created_at = fields.String(metadata={"format": "date-time"})
    snapshot = fields.String(metadata={"description": "PostgreSQL's: what was committed at that moment."})
    migration = fields.String(metadata={"description": "The last migration that the tables had taken."})
    history_root = fields.String(
        metadata={
            "description": "The root of the last seal of history, if there was one: `flask history verify --root`."
        }
    )
    files = fields.List(fields.Nested(BackupFile))


class BackupPageQuery(Schema):
    """Which backups."""

    table = fields.String(validate=validate.OneOf((backup.ALL, *backup.TABLES)))
    limit = IntegerParam(most=1000, load_default=50, metadata={"description": "How many to answer with."})
    cursor = Text(100, validate=[check_name], metadata={"description": "The `next` of the page before."})


def back_up(table: str) -> Response:
    directory = current_app.config["BACKUP_DIR"]

    def work(progress: Progress) -> Outcome:
        manifest = backup.back_up(directory, table, progress)
        return Outcome(201, manifest, f"/backups/{manifest['name']}")

    return run_or_enqueue("backup", table, work)


@backups.post(f"/backup/{backup.ALL}")
@requires_role("admin")
@takes(long=True)
@gives(Backup, 201)
def back_all_up() -> Response:
    """Back all tables up from one snapshot: an Avro file each, and a manifest."""
    return back_up(backup.ALL)


@backups.post(f"/backup/{TABLE}")
@requires_role("admin")
@takes(long=True)
@gives(Backup, 201)
def create(table: str) -> Response:
    """Back a table up: an Avro file, and a manifest."""
    return back_up(table)


@backups.get(f"/backup/{TABLE}")
@requires_role("admin")
@gives(media=(AVRO,))
def download(table: str) -> Response:
    """The table as it is now, as an Avro file."""
    share = Share(caller())
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it was sent
    try:
        with readers.taken(share.caller), db.snapshot(STATEMENT_TIMEOUT) as connection:
            backup.dump(connection, table, file, unseen)
        size = file.seek(0, os.SEEK_END)
        share.grow(size)
    except BaseException:
        file.close()
        share.release()
        raise
    file.seek(0)
    response = send_file(file, AVRO, as_attachment=True, download_name=f"{table}.avro", etag=False)
    response.direct_passthrough = False  # passed through, it would never be closed, and its share never given back
    response.content_length = size
    response.call_on_close(share.release)
    return response


def backup_store() -> BackupStore:
    return BackupStore(current_app.config["BACKUP_DIR"])


@backups.get("/backups")
@requires_role("admin")
@takes(query=BackupPageQuery)
@gives(Backup, many=True, media=("application/json",))
def list(query: dict[str, Any]) -> Response:
    """The backups, the newest first."""
    tables = [query["table"]] if "table" in query else []
    store = backup_store()
    names = store.names(*tables)
    if "cursor" in query:
        names = [name for name in names if age(name) < age(query["cursor"])]
    items = [*islice(store.manifests(names), query["limit"] + 1)]
    some = items[: query["limit"]]
    return answer(json.dumps({"items": some, "next": some[-1]["name"] if len(items) > len(some) else None}))


@backups.get("/backups/<string:name>")
@requires_role("admin")
@gives(Backup)
def get(name: str) -> Response:
    """A backup's manifest."""
    return answer(json.dumps(backup_store().manifest(name)))


@backups.delete("/backups/<string:name>")
@requires_role("admin")
@gives(status=204)
def remove(name: str) -> Response:
    """Delete a backup: its manifest first, then its files."""
    backup_store().remove(name)
    return Response(status=204)
