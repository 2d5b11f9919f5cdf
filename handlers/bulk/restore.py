"""How tables get back: staged, compared, and changed where they differ, as one transaction."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psycopg

import db
from handlers.bulk import avro_file
from handlers.bulk.backup import Column, check_intact, columns_of, file_name, tables_of
from handlers.bulk.errors import Damaged
from handlers.bulk.progress import STATEMENT_TIMEOUT, Progress, with_progress

PARENTS = ("departments", "jobs")
"""Tables from which rows are removed last, when none refers to them any more."""

COPIED = {"timestamp with time zone": "bigint"}
"""Types that go through COPY as another."""

SLICE = 20_000
"""Rows that are inserted at once."""


class Coming(NamedTuple):
    """The rows of a file, and the types as which COPY takes its columns."""

    rows: Iterator[tuple[Any, ...]]
    types: list[str]


def restore(
    table: str, files: dict[str, BinaryIO], called: str, dry_run: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Make tables equal to files, as one transaction; returns what it took, by table.

    `called` is what history calls it. Raises Damaged where a file cannot be taken, and then nothing has changed.
    """
    found: list[dict[str, Any]] = []
    checked = {each: avro_file.checked(files[each]) for each in tables_of(table)}
    progress(0, of=sum(rows for _, rows in checked.values()))
    try:
        with db.transaction(STATEMENT_TIMEOUT) as connection:
            db.run(connection, "backups.call", backup=called)
            columns, whole = {}, {}
            for each, (header, rows) in checked.items():
                columns[each] = [*header.columns]
                known = columns_of(connection, each)
                coming = Coming(
                    with_progress(avro_file.rows(files[each], header), progress), types_of(header, each, known)
                )
                if is_lacking(connection, each, columns[each], known):
                    whole[each], differing = coming, {"added": rows, "removed": 0, "changed": 0}
                else:
                    differing = compared_with_backup(connection, each, columns[each], coming)
                found.append({"table": each, "rows": rows, **differing})
            replace(connection, columns, whole)
            if dry_run:
                raise psycopg.Rollback
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise Damaged(reason(error)) from error
    return found


def check_columns(header: avro_file.Header, table: str, columns: list[Column]) -> None:
    """Raises Damaged where a file cannot be of this table."""
    if header.metadata.get(avro_file.TABLE, table) != table:
        raise Damaged(f"It holds {header.metadata[avro_file.TABLE]}, not {table}.")
    if header.codec not in ("null", "deflate"):
        raise Damaged("Its codec is neither null nor deflate.")
    kinds = {column.name: avro_file.TYPES[column.type] for column in columns if column.type in avro_file.TYPES}
    for name, kind in header.columns.items():
        if name not in kinds or kind not in (kinds[name], ["null", kinds[name]]):
            raise Damaged(f"{table} has no such column: {json.dumps(name)} of type {json.dumps(kind)}.")
    for column in columns:
        if column.name not in header.columns and (column.required or column.name == "id"):
            raise Damaged(f"It has no column {column.name}.")


def types_of(header: avro_file.Header, table: str, known: list[Column]) -> list[str]:
    """The types as which COPY takes the columns of a file. Raises Damaged where they do not fit its table."""
    check_columns(header, table, known)
    types = {column.name: COPIED.get(column.type, column.type) for column in known}
    return [types[name] for name in header.columns]


def is_lacking(connection: db.Connection, table: str, columns: list[str], known: list[Column]) -> bool:
    """Whether a table has no row, and nothing but what rows of these columns bring: there is nothing to compare."""
    if table != "employees" or columns != [column.name for column in known]:
        return False
    db.run(connection, "hiring.lock_employees")
    lacking: bool = next(db.run(connection, "employees.is_empty")).is_empty
    return lacking


def compared_with_backup(connection: db.Connection, table: str, columns: list[str], coming: Coming) -> dict[str, int]:
    """How many rows a file has more, less and otherwise than its table."""
    db.run(connection, "backups.stage", table=table, columns=columns)
    db.copy(connection, "backups.copy", coming.rows, coming.types)
    row = next(db.run(connection, "backups.compare", table=table, columns=columns))
    return {"added": row.added, "removed": row.removed, "changed": row.changed}


def replace(connection: db.Connection, columns: dict[str, list[str]], whole: dict[str, Coming]) -> None:
    """Remove, change and add what was found, in an order in which no row ever refers to one that is not there."""
    for table in reversed(columns):
        if table not in PARENTS and table not in whole:
            db.run(connection, "backups.remove", table=table)
    for table in columns:
        if table in whole:
            append(connection, whole[table])
        else:
            db.run(connection, "backups.change", table=table, columns=columns[table])
    for table in columns:
        if table in PARENTS:
            db.run(connection, "backups.remove", table=table)


def append(connection: db.Connection, coming: Coming) -> None:
    """Add rows to employees, which has none: while PostgreSQL inserts a slice of them, the next is read."""
    db.run(connection, "employees.stage")
    with ThreadPoolExecutor(1) as reader:
        waiting = ((*row, None) for row in coming.rows)
        some = [*islice(waiting, SLICE)]
        while some:
            db.copy(connection, "employees.copy", some, [*coming.types, "text"])
            following = reader.submit(list, islice(waiting, SLICE))
            db.run(connection, "backups.check_appending")
            db.run(connection, "employees.append")
            some = following.result()


def reason(error: psycopg.Error) -> str:
    """Why rows could not be taken, in a sentence."""
    constraint = error.diag.constraint_name or ""
    if constraint.endswith("_fkey"):
        return f"Rows would refer to others that are not there ({constraint}): restore those first, or all."
    if constraint.endswith("_pkey"):
        return "Two rows have the same id."
    if constraint:
        return f"Rows break the rule {constraint}."
    if isinstance(error, psycopg.errors.NotNullViolation):
        return f"A row has no {error.diag.column_name}."
    if isinstance(error, psycopg.errors.CheckViolation):
        return str(error.diag.message_primary)  # check_restored's own
    return "A value does not fit into its column: a number beyond its range, or a text that the database cannot keep."


@contextmanager
def files_of(directory: Path, table: str, name: str | None, file: BinaryIO | None) -> Iterator[dict[str, BinaryIO]]:
    """The files to restore, by table: this one, or those of a backup that is intact. Raises Damaged."""
    if file or name is None:
        yield {table: file} if file else {}
        return
    check_intact(directory, name)
    with ExitStack() as stack:
        paths = {each: directory / file_name(name, each) for each in tables_of(table)}
        if missing := [each for each, path in paths.items() if not path.exists()]:
            raise Damaged(f"{name} does not hold {', '.join(missing)}.")
        yield {each: stack.enter_context(path.open("rb")) for each, path in paths.items()}
