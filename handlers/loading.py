"""How the rows of a file or a batch get into departments, jobs and employees: staged, judged as a whole, inserted."""

from collections.abc import Callable, Iterable
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


def insert(
    connection: db.Connection, table: str, rows: Iterable[tuple[Any, ...]], sha256: Callable[[], str], many: bool = True
) -> Any:
    """Stage rows and load them into a table. Returns the row of `{table}.load`. `many` may be more than a thousand."""
    db.run(connection, "hiring.stage")
    if table == "employees":
        db.run(connection, "employees.stage")
    db.copy(connection, "hiring.copy", rows, STAGED)
    if many:
        db.run(connection, "hiring.measure")
    db.run(connection, f"hiring.lock_{table}")
    db.run(connection, "hiring.call", sha256=sha256())
    found = next(db.run(connection, f"{table}.load", sha256=sha256()))
    if table == "employees":
        db.run(connection, "employees.append")
    db.run(connection, "hiring.unstage")
    return found
