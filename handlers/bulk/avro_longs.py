"""Avro's longs: whole numbers of seven bits a byte, of which each but the last says that more come.

64 bits need ten of them at most. fastavro reads on for as long as there are more, in one stretch, and drops what does
not fit: what it is given to read is looked at here before.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

from db.cooperate import next_turn
from handlers.bulk.errors import Damaged

MOST = 10
"""Bytes of a long; the last of so many is at most 1."""

LIKELY = re.compile(rb"[\x80-\xff]{9}[\x02-\xff]")
"""What a longer one begins with. So does much that is written in other letters than Latin ones."""

STRETCH, TURN = 2**18, 250
"""Bytes, and rows, after which another request has its turn."""


def long(file: BinaryIO) -> int:
    """The long that a file goes on with. Raises Damaged where it has too many bytes, or ends."""
    found = 0
    for place in range(MOST):
        read = file.read(1)
        if not read:
            raise Damaged("It ends within a number.")
        byte = read[0]
        found |= (byte & 0x7F) << 7 * place
        if byte < 0x80 and found < 2**64:
            return (found >> 1) ^ -(found & 1)
    raise Damaged("A number is longer than any may be.")


def text(file: BinaryIO, most: int) -> bytes:
    """The bytes, with their length before them, that a file goes on with. Raises Damaged where it does not have them,
    or they are more than `most`."""
    length = long(file)
    found = file.read(length) if 0 <= length <= most else b""
    if len(found) != length:
        raise Damaged("A text is longer than what is there.")
    return found


def entries(head: BinaryIO, most: int) -> dict[str, str]:
    """The metadata of a header: a map, in blocks of which one without entries is the last. Raises Damaged."""
    found: dict[str, str] = {}
    while count := long(head):
        if count < 0:
            long(head)  # the block's size
        for _ in range(abs(count)):
            name = text(head, most).decode()
            if name in found:  # also so that there cannot be many of nothing
                raise Damaged("An entry of its header is there twice.")
            found[name] = text(head, most).decode()
    return found


def check_longs(data: bytes, count: int, fields: Sequence[dict[str, Any]]) -> None:
    """Look at all longs of a block's rows before fastavro reads them, if any may be too long. Raises Damaged."""
    if not is_suspect(data):
        return
    source = io.BytesIO(data)
    kinds = [field["type"] for field in fields]
    for number in range(count):
        if number % TURN == 0:
            next_turn()
        for kind in kinds:
            if isinstance(kind, list):
                kind = kind[long(source)]
            if kind == "string":
                text(source, len(data))
            elif kind != "null":
                long(source)


def is_suspect(data: bytes) -> bool:
    """Whether a long in it may have too many bytes."""
    for begin in range(0, len(data), STRETCH):
        # What begins in one stretch may end in the next.
        if LIKELY.search(data, begin, begin + STRETCH + MOST):
            return True
        next_turn()
    return False
