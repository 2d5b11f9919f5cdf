"""How the rows of a file or a batch get into departments, jobs and employees: staged, judged as a whole, inserted.

Nearly all employees of a file are plain: it can be seen here that no rule of a field refuses them. Those
PostgreSQL takes as what they are; the others are staged as texts, to be judged by all rules.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import db
from handlers.bulk import csv_reader
from handlers.bulk.csv_header import COLUMNS, check_no_header
from handlers.bulk.errors import TooManyRejects
from handlers.bulk.progress import STATEMENT_TIMEOUT, Progress, with_progress

WIDEST = 5
"""Fields that hiring.stage has room for."""

STAGED = ("integer", "text", "integer", "text", *["text"] * WIDEST)
"""The types of its columns."""

SLICE = 1000
"""Rows that are not plain, and are held until they are sent."""

REJECTS_TOLD = 100
"""How many rejects are told of a file of which nothing was kept."""

Staged = tuple[Any, ...] | str
"""A row as hiring.stage has it, or as employees.copy_plain takes it."""

ID = "[1-9][0-9]{0,8}"
NAME = r"[!-+\--\[\]-~][^\0-\x1f,\\]{0,999}"
DATE = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31"
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"

PLAIN = re.compile(f"{ID},{NAME},[1-9][0-9]{{3}}-(?:{DATE})T{TIME}Z,{ID},{ID}")
"""The fields of an employee whom no rule of a field can refuse, between commas."""

ESCAPED = re.compile(r"[\0-\x1f\\]")
"""What does not stand for itself in a line of COPY."""


def plain(line: int, raw: str, fields: list[str]) -> str | None:
    """An employee as employees.copy_plain takes it; None if the rules have to be asked."""
    joined = ",".join(fields)
    if len(fields) != WIDEST or not PLAIN.fullmatch(joined):
        return None
    if joined == raw:
        raw = "\\N"
    elif ESCAPED.search(raw):
        return None
    return f"{line}\t{raw}\t" + "\t".join(fields) + "\n"


def insert(
    connection: db.Connection,
    table: str,
    rows: Iterable[Any],
    sha256: Callable[[], str],
    rejects_limit: int | str = "",
    many: bool = True,
) -> Any:
    """Stage rows and load them into a table. Returns the row of `{table}.load`; None, and nothing is loaded, where more
    than `rejects_limit` would be rejected. `many` may be more than a thousand."""
    db.run(connection, "hiring.stage")
    if table == "employees":
        db.run(connection, "employees.stage")
        stage(connection, rows)
    else:
        db.copy(connection, "hiring.copy", rows, STAGED)
    if many:
        db.run(connection, "hiring.measure")
    db.run(connection, f"hiring.lock_{table}")
    db.run(connection, "hiring.call", sha256=sha256())
    found = next(db.run(connection, f"{table}.load", sha256=sha256(), rejects_limit=rejects_limit), None)
    if found and table == "employees":
        db.run(connection, "employees.append", upload=found.upload_id)
    return found


def stage(connection: db.Connection, rows: Iterable[Staged]) -> None:
    """Send employees to where they wait to be loaded."""
    coming, more = iter(rows), True
    while more:
        others: list[tuple[Any, ...]] = []
        db.copy_lines(connection, "employees.copy_plain", plain_until(others, coming))
        if others:
            db.copy(connection, "hiring.copy", others, STAGED)
        more = len(others) == SLICE


def plain_until(others: list[Any], rows: Iterator[Staged]) -> Iterator[str]:
    """The plain rows, until so many that are not have gathered in `others` that they are to be sent."""
    for row in rows:
        if isinstance(row, str):
            yield row
        else:
            others.append(row)
            if len(others) == SLICE:
                return


class Undone(Exception):
    """Raised within a load to take it back: too many rows broke a rule, or it was a trial."""

    def __init__(self, row: Any, too_many: bool, rejects: list[dict[str, Any]]) -> None:
        self.row, self.too_many, self.rejects = row, too_many, rejects


def load(
    table: str,
    file: BinaryIO,
    progress: Progress,
    rejects_limit: int,
    header: str,
    mode: str,
    max_errors: int | None = None,
) -> tuple[Any, str, Undone | None]:
    """Load a file into a table, as one transaction.

    Returns the row of `{table}.load`, the file's SHA-256, and why nothing of it was kept, if so. Raises
    Unreadable, TooLarge, or TooManyRejects where more than `rejects_limit` rows break a rule.
    """
    source = csv_reader.Unpacked(file, lambda: progress(0))
    rows = with_progress(
        staged(table, csv_reader.rows(source, COLUMNS[table], header), rejects_limit, header), progress, all=True
    )
    allowed = 0 if mode == "atomic" else max_errors
    try:
        with db.transaction(STATEMENT_TIMEOUT) as connection:
            row = insert(connection, table, rows, source.hash.hexdigest, rejects_limit)
            if row is None:
                raise too_many_rejects(rejects_limit)
            too_many = allowed is not None and row.rejected > allowed
            if too_many or mode == "dry-run":
                raise Undone(row, too_many, first_rejects(connection, table, row.upload_id))
    except Undone as undone:
        return undone.row, source.hash.hexdigest(), undone
    return row, source.hash.hexdigest(), None


def first_rejects(connection: db.Connection, table: str, upload_id: int) -> list[dict[str, Any]]:
    """The first rejects of an upload, as the transaction sees them."""
    fields = "line,column_name,code,detail,raw"
    found = next(db.run(connection, f"{table}.errors", upload_id=upload_id, limit=REJECTS_TOLD, fields=fields))
    return json.loads(found.body)["items"]


def too_many_rejects(limit: int) -> TooManyRejects:
    return TooManyRejects(f"More than {limit} rows break a rule: nothing was kept.")


def staged(table: str, rows: Iterable[csv_reader.Row], rejects_limit: int, header: str = "auto") -> Iterator[Staged]:
    """Rows as they are staged. Raises Unreadable as soon as too many cannot be rows of the table, and where one is a
    header that they do not fit, unless there is none."""
    columns = COLUMNS[table]
    width = len(columns)
    lacking = [""] * (WIDEST - width)
    misfits = 0
    for line, raw, found, unreadable in rows:
        if table == "employees" and (row := plain(line, raw, found)):
            yield row
        elif len(found) != width:
            misfits += 1
            if misfits > rejects_limit:
                raise too_many_rejects(rejects_limit)
            yield line, raw, len(found), unreadable, *(found + [""] * WIDEST)[:WIDEST]
        else:
            if not found[0].isdecimal() and header != "no":  # nearly none
                check_no_header(line, raw, found, columns)
            yield line, None if ",".join(found) == raw else raw, width, unreadable, *found, *lacking
