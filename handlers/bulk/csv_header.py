"""What stands before the rows of a CSV file: a title, and the names of the columns."""

import re
from collections.abc import Iterator
from itertools import chain

from handlers.bulk.csv_rows import Row, is_blank
from handlers.bulk.errors import Unreadable

COLUMNS = {
    "departments": ("id", "department"),
    "jobs": ("id", "job"),
    "employees": ("id", "name", "datetime", "department_id", "job_id"),
}
"""The columns of each table that a file may hold, in the order in which they stand without a header."""

OURS = frozenset(chain.from_iterable(COLUMNS.values())) - {"name"}
"""Names that say what a column is: in a file for a table without it, they are no other word for one of its own.

Departments and jobs have a name, too, as many call it.
"""

WIDTH = 20
"""Fields of a row that are looked at for what they are like."""

TITLE_LIMIT = 5
"""Lines of a title."""

BEGINS_AS_NUMBER = re.compile(r"\s*[-+]?\d")
"""As ids and times do, and names of columns do not."""

ALSO_EXPORTED = {"version", "created_at", "updated_at"}
"""Columns that only the service sets: its own exports have them."""


def name_of(field: str) -> str:
    return field.strip().casefold()


def untitled(found: Iterator[Row], columns: tuple[str, ...]) -> Iterator[Row]:
    """The rows, without a few first ones of a single text each, if more than that follows."""
    first: list[Row] = []
    for row in found:
        if not is_title(row.fields) or name_of(row.fields[0]) in columns:
            first = [row]
            break
        first.append(row)
        if len(first) > TITLE_LIMIT:
            break
    yield from chain(first, found)


def is_title(fields: list[str]) -> bool:
    return bool(fields) and not is_blank(fields[:1]) and is_blank(fields[1:]) and not BEGINS_AS_NUMBER.match(fields[0])


def in_order(found: Iterator[Row], columns: tuple[str, ...], header: str) -> Iterator[Row]:
    """The rows after a header, if there is one, with their fields in the order of the columns. Raises Unreadable."""
    for first in found:
        names = [name_of(field) for field in first.fields]
        if header == "auto" and not is_header(names, columns):
            yield first
        elif (order := order_of(names, columns, header)) is None:
            raise no_header(names, columns)
        elif order != [*range(len(names))]:
            yield from reordered(found, order, len(names))
        yield from found


def is_header(names: list[str], columns: tuple[str, ...]) -> bool:
    """Whether a first row names columns: no field is like a number, and all say something or one is a column's name."""
    if not names or any(map(BEGINS_AS_NUMBER.match, names)):
        return False
    return all(names) or not set(columns).isdisjoint(names)


def order_of(names: list[str], columns: tuple[str, ...], header: str) -> list[int] | None:
    """Where the columns stand in a row. None where the header does not tell."""
    lacking = [column for column in columns if column not in names]
    unknown = [name for name in names if name and name not in columns and name not in ALSO_EXPORTED]
    if not OURS.isdisjoint(unknown):  # a file for another table, or a column that has no place in this one
        return None
    if header == "yes" and len(unknown) == len(names) == len(columns):
        return [*range(len(names))]
    if len(lacking) == len(unknown) <= 1 and all(names.count(column) < 2 for column in columns):
        # One name that is not known is that of the one column that is left.
        return [names.index(column if column in names else unknown[0]) for column in columns]
    return None


def no_header(names: list[str], columns: tuple[str, ...]) -> Unreadable:
    told = ", ".join(name[:50] for name in names[:WIDTH])
    return Unreadable(
        f"The first row is no header of this table: found {told}; expected {', '.join(columns)}, in any order."
        " With ?header=no it is data; with ?header=yes columns of which no name is known are taken by their place."
    )


def reordered(found: Iterator[Row], order: list[int], width: int) -> Iterator[Row]:
    for row in found:
        fields = row.fields
        if len(fields) == width:
            fields[:] = [fields[place] for place in order]
            yield row
        elif fields and width != len(order):
            reason = f"Expected {width} fields, as the header has, found {len(fields)}."
            yield Row(row.line, row.raw, [], reason)
        else:
            yield row
