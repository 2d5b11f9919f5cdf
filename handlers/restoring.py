"""How tables get back: staged, compared, and changed where they differ, as one transaction."""

from typing import Any, BinaryIO

import psycopg

import db
from handlers import avrofile
from handlers.avroblocks import Damaged
from handlers.backing import STATEMENT_TIMEOUT, columns_of, tables_of
from handlers.longwork import Progress, told

PARENTS = ("departments", "jobs")
"""Tables from which rows are removed last, when none refers to them any more."""


class Trial(Exception):
    """Raised to take a restore back that was only tried."""


def restore(
    table: str, files: dict[str, BinaryIO], called: str, dry_run: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Make tables equal to files, as one transaction; returns what it took, by table.

    `called` is what history calls it. Raises Damaged where a file cannot be taken, and then nothing has changed.
    """
    found: list[dict[str, Any]] = []
    try:
        with db.transaction(STATEMENT_TIMEOUT) as connection:
            db.run(connection, "backups.call", backup=called)
            columns = {}
            for each in tables_of(table):
                columns[each], counts = compared(connection, each, files[each], progress)
                found.append({"table": each, **counts})
            replace(connection, columns)
            if dry_run:
                raise Trial
    except Trial:
        pass
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise Damaged(reason(error)) from error
    return found


def compared(
    connection: db.Connection, table: str, file: BinaryIO, progress: Progress
) -> tuple[list[str], dict[str, int]]:
    """The columns of a file, and how many rows it has, and of those more, less and otherwise than its table."""
    header, rows = avrofile.checked(file)
    known = columns_of(connection, table)
    avrofile.check_columns(header, table, known)
    columns, types = [*header.columns], {column.name: column.type for column in known}
    db.run(connection, "backups.stage", table=table, columns=columns)
    coming = told(avrofile.rows(file, columns), progress)
    db.copy(connection, "backups.copy", coming, [types[name] for name in columns])
    row = next(db.run(connection, "backups.compare", table=table, columns=columns))
    return columns, {"rows": rows, "added": row.added, "removed": row.removed, "changed": row.changed}


def replace(connection: db.Connection, columns: dict[str, list[str]]) -> None:
    """Remove, change and add what was found, in an order in which no row ever refers to one that is not there."""
    for table in reversed(columns):
        if table not in PARENTS:
            db.run(connection, "backups.remove", table=table)
    for table in columns:
        db.run(connection, "backups.change", table=table, columns=columns[table])
    for table in columns:
        if table in PARENTS:
            db.run(connection, "backups.remove", table=table)


def reason(error: psycopg.Error) -> str:
    """Why rows could not be taken, in a sentence."""
    constraint = error.diag.constraint_name or ""
    if constraint.endswith("_fkey"):
        return f"Rows would refer to others that are not there ({constraint}): restore those first, or all."
    if constraint.startswith("restoring"):
        return "Two rows have the same id."
    if constraint:
        return f"Rows break the rule {constraint}."
    return f"Rows do not fit into the table: {error.diag.message_primary or error}."
