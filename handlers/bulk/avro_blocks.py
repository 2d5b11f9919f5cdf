"""The blocks of an Avro file, told apart and unpacked within bounds: fastavro would unpack whatever it is given."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from db.cooperate import next_turn
from handlers.bulk.errors import Damaged

BLOCK_LIMIT = 2**24
"""Bytes of a block, packed and unpacked; those written have about 64 KiB."""

SYNC = 16
"""Bytes that end each block."""


def blocks(file: BinaryIO, begin: int, sync: bytes) -> Iterator[tuple[int, bytes]]:
    """How many rows each block has, and its data. Raises Damaged."""
    file.seek(begin)
    while (count := long(file)) is not None:
        size = long(file)
        if count < 0 or size is None or not 0 <= size <= BLOCK_LIMIT:
            raise Damaged(f"A block is damaged, or larger than {BLOCK_LIMIT} bytes.")
        data = file.read(size)
        if len(data) < size or file.read(SYNC) != sync:
            raise Damaged("A block does not end where it should.")
        yield count, data
        next_turn()


def unpacked(data: bytes, codec: str) -> bytes:
    """The data of a block, unpacked within BLOCK_LIMIT. Raises Damaged."""
    if codec == "null":
        return data
    unpacking = zlib.decompressobj(-15)
    try:
        found = unpacking.decompress(data, BLOCK_LIMIT + 1)
    except zlib.error:
        raise Damaged("A block cannot be unpacked.") from None
    if len(found) > BLOCK_LIMIT or not unpacking.eof:
        raise Damaged(f"A block is cut off, or larger than {BLOCK_LIMIT} bytes unpacked.")
    return found


def long(file: BinaryIO) -> int | None:
    """An Avro long; None at the end of the file. Raises Damaged."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:
            break
    if shift:
        raise Damaged("A block does not begin as it should.")
    return None
