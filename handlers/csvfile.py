"""Reads a CSV file as people save it, in any dialect, each row with its line as it came."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

UNPACKED_LIMIT = 2**30
"""Bytes of an unpacked file."""

FIELD_LIMIT = 2**20
"""Characters of a field."""

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
        self.hash.update(some)
        self.size += len(some)
        if self.size > UNPACKED_LIMIT:
            raise TooLarge
        buffer[: len(some)] = some
        return len(some)


class Lines:
    """The lines of a text, which remembers those taken since it was last asked."""

    def __init__(self, text: Iterator[str]) -> None:
        self.text = text
        self.taken: list[str] = []

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = next(self.text)
        self.taken.append(line)
        return line

    def take(self) -> str:
        """What was read since the last call, without its line end."""
        taken, self.taken = "".join(self.taken), []
        return taken.rstrip("\r\n")


def rows(source: Unpacked, columns: tuple[str, ...], header: str) -> Iterator[Row]:
    """The data rows of a file for these columns. `header`: auto, yes or no. Raises Unreadable or TooLarge."""
    buffered = io.BufferedReader(source, 65536)
    lines = Lines(iter(io.TextIOWrapper(buffered, encoding_of(buffered.peek(4)), newline="")))
    try:
        yield from parsed(lines, columns, header)
    except UnicodeError:
        raise Unreadable("The file is not UTF-8, nor UTF-16 with a byte-order mark.") from None
    except csv.Error as error:
        raise Unreadable(f"The file cannot be read as CSV: {error}.") from None


def encoding_of(beginning: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            return encoding
    return "utf-8"


def parsed(lines: Lines, columns: tuple[str, ...], header: str) -> Iterator[Row]:
    reader, line = None, 1
    for first in lines:
        if first.strip():
            reader = csv.reader(again(first, lines), delimiter=delimiter_of(first, len(columns)))
            break
        lines.take()
        line += 1
    if reader is None:
        return
    order = list(range(len(columns)))
    maybe_header = header != "no"
    for fields in reader:
        raw = lines.take()
        began, line = line, line + raw.count("\n") + raw.count("\r") - raw.count("\r\n") + 1
        if not raw.strip():
            continue
        names = [name.strip().casefold() for name in fields]
        known = sorted(names) == sorted(columns)
        if maybe_header and (header == "yes" or known):
            order = [names.index(column) for column in columns] if known else order
        else:
            yield row(began, raw, fields, order)
        maybe_header = False


def again(first: str, rest: Lines) -> Iterator[str]:
    """The first line, which was read to look at it, and the rest."""
    yield first
    yield from rest


def delimiter_of(line: str, width: int) -> str:
    """The delimiter that gives the line as many fields as there are columns, quoted as they should be, or the most."""
    closed = line.rstrip("\r\n") + '"' * (line.count('"') % 2)

    def fields_by(delimiter: str) -> tuple[bool, bool, int]:
        found = len(next(csv.reader([closed], delimiter=delimiter)))
        return found == width, well_quoted(closed, delimiter), found

    return max(DELIMITERS, key=fields_by)


def well_quoted(line: str, delimiter: str) -> bool:
    try:
        next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def row(line: int, raw: str, fields: list[str], order: list[int]) -> Row:
    if len(fields) == len(order):
        fields = [fields[place] for place in order]
    if "\0" in raw:
        return Row(line, raw.replace("\0", "\N{SYMBOL FOR NULL}"), [], "The row holds NUL.")
    return Row(line, raw, fields, None)
