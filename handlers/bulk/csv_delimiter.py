"""Which delimiter divides the fields of a CSV file: that by which its first lines fit the table best."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from db.cooperate import next_turn
from handlers.bulk.csv_header import WIDTH, first_rows, name_of, names_of, order_of, untitled
from handlers.bulk.csv_rows import Row, records

DELIMITERS = ",;\t"

SAMPLE, SAMPLE_LIMIT = 20, 2**16
"""Lines, and characters of them, by which the delimiter is chosen."""


class Fitness(NamedTuple):
    """How well rows fit a table, what tells most first.

    Lines are counted, and not rows: a field of many lines is one row by its own delimiter, and many by another.
    """

    named: bool
    """Whether the first row has the names of all columns."""
    fitting: int
    """Lines of rows as wide as the table or its header, with ids or names among their fields."""
    quoted_well: int
    """Lines of rows whose quotes are in order."""
    told: int
    """Fields that are ids or names."""
    fields: int


def sampled(lines: Iterator[str]) -> Iterator[str]:
    size = 0
    for line in islice(lines, SAMPLE):
        yield line
        size += len(line)
        if size > SAMPLE_LIMIT:
            return


def delimiter_of(sample: list[str], columns: tuple[str, ...]) -> str:
    """The delimiter by which the sample fits the columns best, as it is or with its last row going on behind it."""

    def fits(delimiter: str, *, going_on: bool) -> Fitness:
        next_turn()  # a line may have a million fields
        found = [*records(iter([*sample, '"'] if going_on else sample), delimiter)]
        next_turn()
        return fitness(found, columns, going_on=going_on)

    def best(delimiter: str) -> Fitness:
        return max(fits(delimiter, going_on=False), fits(delimiter, going_on=True))

    return max(DELIMITERS, key=best)


def fitness(found: list[Row], columns: tuple[str, ...], going_on: bool = False) -> Fitness:
    beginnings = [row._replace(fields=row.fields[:WIDTH]) for row in found]  # a line may have millions of fields
    first = next(untitled(iter(beginnings), columns), None)
    names = names_of(first.fields) if first else []
    named = {*columns} <= {*names}
    widths = {len(columns)}
    if first and (named or order_of(names, columns, "auto")):
        widths.add(len(found[beginnings.index(first)].fields))
    before, order = first_rows(iter(beginnings), columns)
    if order is not None:  # a header that rows stand before is not as sure as one that is the first
        widths.add(len(found[len(before) - 1].fields))
    fitting = quoted_well = told = 0
    for row, beginning in zip(found, beginnings, strict=True):
        is_open = going_on and row is found[-1]
        lines = lines_of(row.raw) - is_open  # without the line of the quote that was put behind
        ids = sum(field.isdecimal() or name_of(field) in columns for field in beginning.fields)
        if ids and (len(row.fields) in widths or (is_open and len(row.fields) < max(widths))):
            fitting += lines
        if is_quoted_well(row):
            quoted_well += lines
        told += ids
    return Fitness(named, fitting, quoted_well, told, sum(len(row.fields) for row in found))


def lines_of(text: str) -> int:
    return 1 + text.count("\n") + text.count("\r") - text.count("\r\n")


def is_quoted_well(row: Row) -> bool:
    """Whether a row can be read, and no quote stands in a field that is not quoted: such are halves of other fields."""
    quotes = row.raw.count('"')
    return bool(row.fields) and (not quotes or quotes >= 2 * "".join(row.fields).count('"'))
