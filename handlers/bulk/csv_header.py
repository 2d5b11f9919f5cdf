"""What stands before the rows of a CSV file: which delimiter divides them, a title, and the names of the columns."""

import re
from collections.abc import Iterator
from itertools import chain, islice

from handlers.bulk.csv_rows import Row, is_blank, records
from handlers.bulk.errors import Unreadable

DELIMITERS = ",;\t"

SAMPLE, SAMPLE_LIMIT = 20, 2**16
"""Lines, and characters of them, by which the delimiter is chosen."""

WIDTH = 20
"""Fields of a row that are looked at for what they are like."""

TITLE_LIMIT = 5
"""Lines of a title."""

BEGINS_AS_NUMBER = re.compile(r"\s*[-+]?\d")
"""As ids and times do, and names of columns do not."""

ALSO_EXPORTED = {"version", "created_at", "updated_at"}
"""Columns that only the service sets: its own exports have them."""


def sampled(lines: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in islice(lines, SAMPLE):
        yield line
        size += len(line)
        if size > SAMPLE_LIMIT:
            return


def delimiter_of(sample: list[str], columns: tuple[str, ...]) -> str:
    """The delimiter by which most rows have a field for each column, ids or names among them, and quotes in order."""
    closed = [*sample, '"']  # where the last row goes on behind the sample

    def fitness(delimiter: str) -> tuple[int, int, int, int]:
        found = [row.fields for lines in (sample, closed) for row in records(iter(lines), delimiter)]
        told = [sum(field.isdecimal() or name_of(field) in columns for field in fields[:WIDTH]) for fields in found]
        fitting = sum(count > 0 and len(fields) == len(columns) for count, fields in zip(told, found, strict=True))
        return fitting, sum(map(bool, found)) - found.count([]), sum(told), sum(map(len, found))

    return max(DELIMITERS, key=fitness)


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
        elif (order := order_of(names, columns, header)) != [*range(len(names))]:
            yield from reordered(found, order, len(names))
        yield from found


def is_header(names: list[str], columns: tuple[str, ...]) -> bool:
    """Whether a first row names columns: no field is like a number, and all say something or one is a column's name."""
    if not names or any(map(BEGINS_AS_NUMBER.match, names)):
        return False
    return all(names) or not set(columns).isdisjoint(names)


def order_of(names: list[str], columns: tuple[str, ...], header: str) -> list[int]:
    """Where the columns stand in a row. Raises Unreadable where the header does not tell."""
    lacking = [column for column in columns if column not in names]
    unknown = [name for name in names if name and name not in columns and name not in ALSO_EXPORTED]
    if header == "yes" and len(unknown) == len(names) == len(columns):
        return [*range(len(names))]
    if len(lacking) == len(unknown) <= 1 and all(names.count(column) < 2 for column in columns):
        # One name that is not known is that of the one column that is left.
        return [names.index(column if column in names else unknown[0]) for column in columns]
    told = ", ".join(name[:50] for name in names[:WIDTH])
    raise Unreadable(
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
