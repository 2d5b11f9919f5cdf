"""How tables get back: staged, compared, and changed where they differ, as one transaction."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psycopg

import db
from handlers import avrofile
from handlers.avroblocks import Damaged
from handlers.backing import STATEMENT_TIMEOUT, check_intact, columns_of, file_name, tables_of
from handlers.longwork import Progress, told

PARENTS = ("departments", "jobs")
"""Tables from which rows are removed last, when none refers to them any more."""

COPIED = {"timestamp with time zone": "bigint"}
"""Types that go through COPY as others do."""


class Trial(Exception):
    """Raised to take a restore back that was only tried."""


def restore(
    table: str, files: dict[str, BinaryIO], called: str, dry_run: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Make tables equal to files, as one transaction; returns what it took, by table.

    `called` is what history calls it. Raises Damaged where a file cannot be taken, and then nothing has changed.
    """
    found: list[dict[str, Any]] = []
    checked = {each: avrofile.checked(files[each]) for each in tables_of(table)}
    progress(0, of=sum(rows for _, rows in checked.values()))
    try:
        with db.transaction(STATEMENT_TIMEOUT) as connection:
            db.run(connection, "backups.call", backup=called)
            columns = {}
            for each, (header, rows) in checked.items():
                columns[each] = [*header.columns]
                found.append({"table": each, "rows": rows, **compared(connection, each, files[each], header, progress)})
            replace(connection, columns)
            if dry_run:
                raise Trial
    except Trial:
        pass
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise Damaged(reason(error)) from error
    return found


def compared(
    connection: db.Connection, table: str, file: BinaryIO, header: avrofile.Header, progress: Progress
) -> dict[str, int]:
    """How many rows a file has more, less and otherwise than its table. Raises Damaged where its columns do not fit."""
    known = columns_of(connection, table)
    avrofile.check_columns(header, table, known)
    columns, types = [*header.columns], {column.name: COPIED.get(column.type, column.type) for column in known}
    db.run(connection, "backups.stage", table=table, columns=columns)
    coming = told(avrofile.rows(file, header), progress)
    db.copy(connection, "backups.copy", coming, [types[name] for name in columns])
    row = next(db.run(connection, "backups.compare", table=table, columns=columns))
    return {"added": row.added, "removed": row.removed, "changed": row.changed}


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
