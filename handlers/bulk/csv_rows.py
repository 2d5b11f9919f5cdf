"""The rows of a CSV text as RFC 4180 has them, each with its line as it came, and the lines that are none."""

import csv
from collections.abc import Iterator
from typing import NamedTuple

from db.cooperate import next_turn
from handlers.bulk.errors import Unreadable

FIELD_LIMIT = 2**20
"""Characters of a field."""

ROW_LIMIT = 2**23
"""Characters of a row, however many lines it has."""

FIELDS_LIMIT = 2**19
"""Delimiters of a row, those between quotes too: of ten times as many, a line takes a third of a second at once."""

BLANK_LIMIT = 1_000_000
"""Rows of nothing but blanks: a small file of gzip may hold a thousand million."""

LONG = 2**16
"""Characters of a row that is worth a look: at how long it is, and for a line of it a turn of others."""

TURN = 2**12
"""Lines that are joined, or read again, before others go on."""

csv.field_size_limit(FIELD_LIMIT)


class Row(NamedTuple):
    """A data row: the line it began on, its text as it came, its fields, and why they cannot be stored, if so."""

    line: int
    raw: str
    fields: list[str]
    unreadable: str | None


def records(lines: Iterator[str], delimiter: str, line: int = 1) -> Iterator[Row]:
    """The rows as RFC 4180 has them, but for those of nothing but blanks.

    Where one is none, for its quotes, only the line it began on is refused, and reading goes on at the next.
    """
    taken: list[str] = []
    again: list[str] = []
    blank = 0
    reason = "not yet"
    while reason:
        reason = ""
        try:
            for fields in csv.reader(remembered(lines, again, taken, delimiter), delimiter=delimiter, strict=True):
                began, line = line, line + len(taken)
                raw = (taken.pop() if len(taken) == 1 else joined(taken)).rstrip("\r\n")
                if "\0" in raw:
                    yield unreadable(began, raw, "The row holds NUL.")
                elif (fields and "!" <= fields[0] < "\x7f") or not is_blank(fields):  # the first says so of nearly all
                    yield Row(began, raw, fields, None)
                else:
                    blank += 1
                    check_blank(blank)
        except csv.Error as error:
            reason = reason_of(error, len(taken))
            taken.reverse()
            yield unreadable(line, taken.pop().rstrip("\r\n"), reason)
            line += 1
            if taken:  # then nothing is left of those that came again before
                again, taken = taken, []


def remembered(lines: Iterator[str], again: list[str], taken: list[str], delimiter: str) -> Iterator[str]:
    """The lines, each put into `taken`, from where the caller takes a row's; those in `again` first, from its end.

    A quote that is open where one of these begins has been followed to where it went wrong: the text ends there.
    Raises Unreadable for an endless row, or one of too many fields.
    """
    while again:
        if taken:
            return
        if len(again) % TURN == 0:  # the source, which gives turns, has none of them to read
            next_turn()
        taken.append(again.pop())
        yield taken[0]
    size = delimiters = 0
    for line in lines:
        if not taken:
            size = delimiters = 0
        size += len(line)
        if size > LONG:  # nearly none is
            if len(line) > LONG:
                next_turn()
            delimiters += line.count(delimiter)
            if size > ROW_LIMIT:
                raise Unreadable(f"A row is longer than {ROW_LIMIT} characters.")
            if delimiters > FIELDS_LIMIT:
                raise Unreadable(f"A row has more than {FIELDS_LIMIT} fields.")
        taken.append(line)
        yield line


def joined(taken: list[str]) -> str:
    """The text of the lines of a row, which may be millions: they are taken out, as to free all at once is long."""
    parts = []
    while taken:
        parts.append("".join(taken[-TURN:]))
        del taken[-TURN:]
        if taken:
            next_turn()
    return "".join(reversed(parts))


def check_blank(rows: int) -> None:
    """Raises Unreadable where so many rows are blank."""
    if rows > BLANK_LIMIT:
        raise Unreadable(f"More than {BLANK_LIMIT} rows are blank.")


def is_blank(fields: list[str]) -> bool:
    return not any(map(str.strip, fields))


def unreadable(line: int, raw: str, reason: str) -> Row:
    return Row(line, raw.replace("\0", "\N{SYMBOL FOR NULL}"), [], reason)


def reason_of(error: csv.Error, lines: int) -> str:
    """Why the first of so many lines is no row by itself. Raises Unreadable for a field that is too long within it."""
    if lines > 1 or "unexpected end" in str(error):
        return "A quote is not closed."
    if "expected after" in str(error):
        return "Text stands behind a closing quote."
    raise Unreadable(f"The file cannot be read as CSV: {error}.") from None
