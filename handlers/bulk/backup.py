"""How tables get out: into files with a manifest under BACKUP_DIR, from one snapshot.

A backup is there once its manifest is: both are written under a temporary name, locked while their writer lives, and
renamed when they are on disk.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import db
from handlers.bulk import avro_file
from handlers.bulk.errors import Damaged, NoSuchType
from handlers.bulk.progress import STATEMENT_TIMEOUT, Progress, with_progress

TABLES = ("uploads", "departments", "jobs", "employees", "departments_errors", "jobs_errors", "employees_errors")
"""What can be backed up, parents first."""

ALL = "all"

PART = ".part"

OURS = re.compile(r"([a-z_]+-[0-9]{8}T[0-9]{12}Z)(\.[a-z_]+)?\.avro")
"""A file of a backup, and the name of the backup in it."""

ORPHANED = 86400
"""Seconds after which a file without a manifest gets none any more."""

STAMP = "%Y%m%dT%H%M%S%fZ"
"""When a backup was made, in its name."""


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    nullable: bool
    required: bool = False
    """Whether a row must bring it: it may not be null and has no default."""


def tables_of(table: str) -> tuple[str, ...]:
    return TABLES if table == ALL else (table,)


def columns_of(connection: db.Connection, table: str) -> list[Column]:
    return [Column(*row) for row in db.run(connection, "backups.columns", table=table)]


def schema_of(table: str, columns: list[Column]) -> dict[str, Any]:
    """The Avro schema of a table. Raises NoSuchType."""
    for column in columns:
        if column.type not in avro_file.TYPES:
            raise NoSuchType(f"{table}.{column.name} is of the type {column.type}, which no backup has.")
    kinds = [(column.name, avro_file.TYPES[column.type], column.nullable) for column in columns]
    fields = [{"name": name, "type": ["null", kind] if nullable else kind} for name, kind, nullable in kinds]
    return {"type": "record", "name": table, "fields": fields}


def dump(connection: db.Connection, table: str, file: BinaryIO, progress: Progress) -> None:
    """Write a table into a file as this snapshot has it."""
    taken = next(db.run(connection, "backups.snapshot"))
    schema = schema_of(table, columns_of(connection, table))
    metadata = {avro_file.TABLE: table, avro_file.SNAPSHOT: taken.snapshot, avro_file.MIGRATION: taken.migration}
    if taken.root:
        metadata[avro_file.ROOT] = taken.root
    # What breaks off leaves its generators suspended, and a suspended one keeps the lock that a rollback waits for.
    with closing(db.dumped(connection, f"backups.{table}")) as rows:
        avro_file.write(file, schema, with_progress(rows, progress), metadata)


def back_up(directory: Path, table: str, progress: Progress) -> dict[str, Any]:
    """Back up a table, or all of them from one snapshot; returns the manifest. Raises OSError, and psycopg's."""
    directory.mkdir(parents=True, exist_ok=True)
    sweep(directory)
    name = f"{table}-{datetime.now(UTC):{STAMP}}"
    try:
        with db.snapshot(STATEMENT_TIMEOUT) as connection:
            progress(0, of=next(db.run(connection, "backups.count", tables=[*tables_of(table)])).rows)
            for each in tables_of(table):
                with written(directory / file_name(name, each)) as file:
                    dump(connection, each, file, progress)
        manifest = described(directory, name)
        with written(directory / f"{name}.json") as file:
            file.write(as_json(manifest))
            db.keep()
    except BaseException:
        for each in tables_of(table):
            (directory / file_name(name, each)).unlink(missing_ok=True)
        raise
    return manifest


def file_name(name: str, table: str) -> str:
    """The file of a backup that holds this table."""
    return f"{name}.{table}.avro" if name.startswith(f"{ALL}-") else f"{name}.avro"


def described(directory: Path, name: str) -> dict[str, Any]:
    """The manifest of a backup, made from its files. Raises Damaged, or FileNotFoundError."""
    table, stamp = name.split("-")
    files: list[dict[str, Any]] = []
    for each in tables_of(table):
        path = directory / file_name(name, each)
        with path.open("rb") as file:
            header, rows = avro_file.checked(file)
            found = {"table": each, "file": path.name, "rows": rows, "bytes": file.seek(0, os.SEEK_END)}
            files.append(found | {"sha256": sha256(file), "schema": header.schema})
    manifest = {
        "name": name,
        "table": table,
        "created_at": datetime.strptime(stamp, STAMP).isoformat() + "Z",
        "rows": sum(each["rows"] for each in files),
        "snapshot": header.metadata.get(avro_file.SNAPSHOT),
        "migration": header.metadata.get(avro_file.MIGRATION),
    }
    # Not in those of before there were seals.
    if avro_file.ROOT in header.metadata:
        manifest["history_root"] = header.metadata[avro_file.ROOT]
    return manifest | ({"files": files} if table == ALL else files[0])


def check_intact(directory: Path, name: str) -> None:
    """Raises Damaged where a backup's files or its manifest are not what was written."""
    try:
        if (directory / f"{name}.json").read_bytes() != as_json(described(directory, name)):
            raise Damaged("Its files are not what its manifest says.")
    except OSError as error:
        raise Damaged(f"A file of it cannot be read: {error.strerror}.") from error


def as_json(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode() + b"\n"


def sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A new file that has this name once it is whole and on disk; none if the block fails."""
    part = path.with_name(path.name + PART)
    with part.open("xb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def sweep(directory: Path) -> None:
    """Remove what killed writers left: parts that nobody locks, and, once ORPHANED, files without a manifest."""
    for part in directory.glob(f"*{PART}"):
        with suppress(BlockingIOError, FileNotFoundError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)
    for path in directory.glob("*.avro"):
        ours = OURS.fullmatch(path.name)
        if ours and not (directory / f"{ours[1]}.json").exists():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ORPHANED:
                    path.unlink()
