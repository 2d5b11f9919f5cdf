"""Reads a CSV file as people save it, in any dialect, each row with its line as it came."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import BinaryIO, NamedTuple

from db.turns import next_turn

UNPACKED_LIMIT = 2**30
"""Bytes of an unpacked file."""

FIELD_LIMIT = 2**20
"""Characters of a field."""

ROW_LIMIT = 2**23
"""Characters of a row, however many lines it has."""

DELIMITERS = ",;\t"

BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

csv.field_size_limit(FIELD_LIMIT)


class Unreadable(Exception):
    """The file as a whole cannot be read; the message says why."""


class TooLarge(Exception):
    """The file is larger than UNPACKED_LIMIT once unpacked."""


class Row(NamedTuple):
    """A data row: the line it began on, its text as it came, its fields, and why they cannot be stored, if so."""

    line: int
    raw: str
    fields: list[str]
    unreadable: str | None


class Unpacked(io.RawIOBase):
    """The bytes of a file, unpacked if it is gzip, counted and hashed on the way."""

    def __init__(self, source: BinaryIO) -> None:
        packed = source.read(2) == b"\x1f\x8b"
        source.seek(0)
        self.source = gzip.GzipFile(fileobj=source, mode="rb") if packed else source
        self.hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # the base class says the same
        try:
            some = self.source.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise Unreadable(f"The file is damaged gzip: {error}.") from None
        next_turn()
        self.hash.update(some)
        self.size += len(some)
        if self.size > UNPACKED_LIMIT:
            raise TooLarge
        buffer[: len(some)] = some
        return len(some)


def rows(source: Unpacked, columns: tuple[str, ...], header: str) -> Iterator[Row]:
    """The data rows of a file for these columns. `header`: auto, yes or no. Raises Unreadable or TooLarge."""
    buffered = io.BufferedReader(source, 65536)
    text = io.TextIOWrapper(buffered, encoding_of(buffered.peek(4)), newline="")
    try:
        yield from parsed(whole(iter(partial(text.readline, ROW_LIMIT + 1), "")), columns, header)
    except UnicodeError:
        raise Unreadable("The file is not UTF-8, nor UTF-16 with a byte-order mark.") from None
    except csv.Error as error:
        raise Unreadable(f"The file cannot be read as CSV: {error}.") from None


def encoding_of(beginning: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            return encoding
    return "utf-8"


def whole(lines: Iterator[str]) -> Iterator[str]:
    """The lines. Raises Unreadable for an endless one, before anybody looks into it."""
    for line in lines:
        if len(line) > ROW_LIMIT:
            raise Unreadable(f"A row is longer than {ROW_LIMIT} characters.")
        yield line


def parsed(lines: Iterator[str], columns: tuple[str, ...], header: str) -> Iterator[Row]:
    blank = 0
    for first in lines:
        if first.strip():
            break
        blank += 1
    else:
        return
    taken: list[str] = []
    reader = csv.reader(remembered(chain([first], lines), taken), delimiter=delimiter_of(first, len(columns)))
    line, order, maybe_header = 1 + blank, None, header != "no"
    for fields in reader:
        raw = (taken[0] if len(taken) == 1 else "".join(taken)).rstrip("\r\n")
        began, line = line, line + len(taken)
        taken.clear()
        if not raw or raw.isspace():
            continue
        if maybe_header:
            maybe_header = False
            names = [name.strip().casefold() for name in fields]
            known = sorted(names) == sorted(columns)
            order = [names.index(column) for column in columns] if known else None
            if known or header == "yes":
                continue
        if "\0" in raw:
            yield Row(began, raw.replace("\0", "\N{SYMBOL FOR NULL}"), [], "The row holds NUL.")
        elif order and len(fields) == len(order):
            yield Row(began, raw, [fields[place] for place in order], None)
        else:
            yield Row(began, raw, fields, None)


def remembered(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """The lines, each put into `taken`, from where the caller takes a row's. Raises Unreadable for an endless one."""
    size = 0
    for line in lines:
        size = size + len(line) if taken else len(line)
        if size > ROW_LIMIT:
            raise Unreadable(f"A row is longer than {ROW_LIMIT} characters.")
        taken.append(line)
        yield line


def delimiter_of(line: str, width: int) -> str:
    """The delimiter that gives the line as many fields as there are columns, quoted as they should be, or the most."""
    closed = line.rstrip("\r\n") + '"' * (line.count('"') % 2)

    def fields_by(delimiter: str) -> tuple[bool, bool, int]:
        try:
            found = len(next(csv.reader([closed], delimiter=delimiter)))
        except csv.Error:  # a field that is too long, which another delimiter may divide
            found = 0
        return found == width, well_quoted(closed, delimiter), found

    return max(DELIMITERS, key=fields_by)


def well_quoted(line: str, delimiter: str) -> bool:
    try:
        next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True
