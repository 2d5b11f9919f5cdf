"""How the rows of a file or a batch get into departments, jobs and employees: staged, judged as a whole, inserted.

Nearly all employees of a file are plain: it can be seen here that no rule of a field refuses them. Those
PostgreSQL takes as what they are; the others are staged as texts, to be judged by all rules.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import db

COLUMNS = {
    "departments": ("id", "department"),
    "jobs": ("id", "job"),
    "employees": ("id", "name", "datetime", "department_id", "job_id"),
}

WIDEST = 5
"""Fields that hiring.stage has room for."""

STAGED = ("integer", "text", "integer", "text", *["text"] * WIDEST)
"""The types of its columns."""

SLICE = 1000
"""Rows that are not plain, and are held until they are sent."""

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
    connection: db.Connection, table: str, rows: Iterable[Any], sha256: Callable[[], str], many: bool = True
) -> Any:
    """Stage rows and load them into a table. Returns the row of `{table}.load`. `many` may be more than a thousand."""
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
    found = next(db.run(connection, f"{table}.load", sha256=sha256()))
    if table == "employees":
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
