"""Reads a CSV file as people save it, in any dialect, each row with its line as it came."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import BinaryIO

from db.cooperate import next_turn
from handlers.bulk.csv_delimiter import DELIMITERS, delimiter_of, sampled
from handlers.bulk.csv_header import in_order
from handlers.bulk.csv_rows import ROW_LIMIT, check_blank, records
from handlers.bulk.csv_rows import Row as Row
from handlers.bulk.errors import TooLarge, Unreadable
from handlers.bulk.gzip_file import MAGIC, unpacked

UNPACKED_LIMIT = 2**30
"""Bytes of an unpacked file."""

BLOCK = 2**14
"""Bytes that are read at once."""

STATED = re.compile(r'"?sep=([^\w"])"?\s*', re.IGNORECASE)
"""The line by which spreadsheets tell each other the delimiter."""

NOTHING = re.compile(rf"[\s{DELIMITERS}]*")
"""A line of nothing but blanks and delimiters."""

ENCODINGS = {
    rb"\xef\xbb\xbf": "utf-8-sig",
    rb"\xff\xfe\0\0|\0\0\xfe\xff": "utf-32",
    rb"\xff\xfe|\xfe\xff": "utf-16",
    # Without a mark, by the zeros of the first characters: digits, quotes, delimiters and Latin letters.
    rb"\0\0\0[^\0]": "utf-32-be",
    rb"[^\0]\0\0\0": "utf-32-le",
    rb"\0[^\0]\0[^\0]": "utf-16-be",
    rb"[^\0]\0[^\0]\0": "utf-16-le",
}
"""How a file begins that is not bare UTF-8."""


class Unpacked(io.RawIOBase):
    """The bytes of a file, unpacked if it is gzip, counted and hashed on the way; each block is told."""

    def __init__(self, source: BinaryIO, tell: Callable[[], object] = lambda: None) -> None:
        self.tell_block = tell
        packed = source.read(len(MAGIC)) == MAGIC
        source.seek(0)
        self.blocks = unpacked(source) if packed else iter(partial(source.read, BLOCK), b"")
        self.rest = memoryview(b"")
        self.hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # the base class says the same
        while not self.rest and (block := next(self.blocks, None)) is not None:
            self.rest = self.counted(block)
        size = min(len(self.rest), len(buffer))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size

    def counted(self, block: bytes) -> memoryview:
        next_turn()
        self.tell_block()
        self.hash.update(block)
        self.size += len(block)
        if self.size > UNPACKED_LIMIT:
            raise TooLarge(f"The file is larger than {UNPACKED_LIMIT} bytes unpacked.")
        return memoryview(block)


def rows(source: Unpacked, columns: tuple[str, ...], header: str) -> Iterator[Row]:
    """The data rows of a file for these columns. `header`: auto, yes or no. Raises Unreadable or TooLarge."""
    buffered = io.BufferedReader(source, BLOCK)
    text = io.TextIOWrapper(buffered, encoding_of(buffered.peek(4)), newline="")
    try:
        yield from parsed(iter(partial(text.readline, ROW_LIMIT + 1), ""), columns, header)
    except UnicodeError:
        raise Unreadable("The file is not UTF-8, UTF-16 or UTF-32.") from None


def encoding_of(beginning: bytes) -> str:
    return next((encoding for begin, encoding in ENCODINGS.items() if re.match(begin, beginning)), "utf-8")


def parsed(lines: Iterator[str], columns: tuple[str, ...], header: str) -> Iterator[Row]:
    begin = 1
    for first in lines:
        if not NOTHING.fullmatch(first):
            break
        check_blank(begin)
        begin += 1
    else:
        return
    if stated := STATED.fullmatch(first):
        found = records(lines, stated[1], begin + 1)
    else:
        sample = [first, *sampled(lines)]
        found = records(chain(sample, lines), delimiter_of(sample, columns), begin)
    yield from found if header == "no" else in_order(found, columns, header)
