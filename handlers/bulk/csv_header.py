"""What stands before the rows of a CSV file: a title, and the names of the columns."""

import re
from collections.abc import Iterator
from itertools import chain, islice

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

HEADER_LIMIT = 1000
"""Fields of a header, whatever it has beside the columns; and of a title, with its blanks."""

NAME_LIMIT = 1000
"""Characters of a name whose case is not minded: no column has as long a one, and to fold a million takes 20 ms."""

TITLE_LIMIT = 5
"""Lines of a title."""

BEGINS_AS_NUMBER = re.compile(r"\s*[-+]?\d")
"""As ids and times do, and names of columns do not."""

NUMBERS = frozenset({"id", "datetime", "department_id", "job_id"})
"""Columns of what begins as a number."""

ALSO_EXPORTED = {"version", "created_at", "updated_at"}
"""Columns that only the service sets: its own exports have them."""


def name_of(field: str) -> str:
    name = field.strip()
    return name.casefold() if len(name) <= NAME_LIMIT else name


def names_of(fields: list[str]) -> list[str]:
    """The names in a row, if it is one; none where it is too wide for a header."""
    return [*map(name_of, fields)] if len(fields) <= HEADER_LIMIT else []


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
    if not 1 <= len(fields) <= HEADER_LIMIT or BEGINS_AS_NUMBER.match(fields[0]):
        return False
    return not is_blank(fields[:1]) and is_blank(fields[1:])


def in_order(found: Iterator[Row], columns: tuple[str, ...], header: str) -> Iterator[Row]:
    """The rows but for a header, if there is one, with their fields in the order of the columns. Raises Unreadable."""
    first, order = first_rows(found, columns)
    if order is not None:
        yield from before_header(first[:-1])
        yield from ordered(found, order, len(first[-1].fields))
        return
    first = [*untitled(iter(first), columns)]
    rows = chain(first, found)
    for place, row in enumerate(first):
        names = names_of(row.fields)
        if header == "yes":
            if (order := order_of(names, columns, header)) is None:
                raise no_header(row, columns)
            next(rows)
            yield from ordered(rows, order, len(names))
            return
        if (place == 0 or not is_title(row.fields)) and is_header(names, columns):
            raise no_header(row, columns)
    yield from rows


def first_rows(found: Iterator[Row], columns: tuple[str, ...]) -> tuple[list[Row], list[int] | None]:
    """The first rows, to one that is a header or may be data if there is any; and where a header has the columns."""
    first: list[Row] = []
    for row in islice(found, TITLE_LIMIT + 1):
        first.append(row)
        names = names_of(row.fields)
        if is_header(names, columns) and (order := order_of(names, columns, "auto")) is not None:
            return first, order
        if may_be_data(row.fields, columns):
            break
    return first, None


def may_be_data(fields: list[str], columns: tuple[str, ...]) -> bool:
    """Whether a row without a header might be stored."""
    return len(fields) == len(columns) and all(
        BEGINS_AS_NUMBER.match(field) if column in NUMBERS else field.strip()
        for column, field in zip(columns, fields, strict=True)
    )


def before_header(rows: list[Row]) -> Iterator[Row]:
    """What is told of the rows before a header: nothing of titles, of all others that they cannot be stored."""
    for row in rows:
        if row.unreadable:
            yield row
        elif is_blank(row.fields[:1]) or BEGINS_AS_NUMBER.match(row.fields[0]):
            yield Row(row.line, row.raw, [], "The row stands before the header.")


def ordered(found: Iterator[Row], order: list[int], width: int) -> Iterator[Row]:
    return found if order == [*range(width)] else reordered(found, order, width)


def check_no_header(line: int, raw: str, fields: list[str], columns: tuple[str, ...]) -> None:
    """Raises Unreadable for a row amid data that names the columns otherwise than they are taken."""
    names = names_of(fields)
    known = {*columns} & {*names}
    if len(known) >= max(2, len(columns) - 1) and order_of(names, columns, "auto") != [*range(len(columns))]:
        raise Unreadable(
            f"Line {line} is a header behind rows of another order: found {raw[:250]}; expected {', '.join(columns)},"
            " in any order, before all rows. With ?header=no it is data."
        )


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


def no_header(row: Row, columns: tuple[str, ...]) -> Unreadable:
    found, expected = told(names_of(row.fields)), ", ".join(columns)
    return Unreadable(
        f"Line {row.line} is no header of this table: found {found}; expected {expected}, in any order. With ?header=no"
        " it is data; with ?header=yes columns of which no name is known are taken by their place."
    )


def told(names: list[str]) -> str:
    return ", ".join(name[:50] for name in names[:WIDTH])


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
