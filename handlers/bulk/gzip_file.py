"""Unpacks gzip piece by piece: Python's own reads any number of empty members, or a name without an end, at once."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from handlers.bulk.errors import Unreadable

MAGIC = b"\x1f\x8b"
"""How a gzip file begins."""

GZIP = 16 + zlib.MAX_WBITS
"""zlib's name for the format: it reads the header, and checks length and sum, by itself."""

PIECE = 2**14
"""Bytes, packed and unpacked, between two turns of others."""


def unpacked(source: BinaryIO) -> Iterator[bytes]:
    """What is in the members of a gzip file: behind each piece of it an empty block, as it may hold nothing else.

    Raises Unreadable.
    """
    try:
        inflate = zlib.decompressobj(GZIP)
        while piece := source.read(PIECE):
            while piece:
                if inflate.eof:
                    piece = piece.lstrip(b"\0")  # padding, which may stand behind a member
                    if not piece:
                        break
                    inflate = zlib.decompressobj(GZIP)
                if some := inflate.decompress(piece, PIECE):
                    yield some
                piece = inflate.unconsumed_tail or inflate.unused_data
            yield b""
    except zlib.error as error:
        raise Unreadable(f"The file is damaged gzip: {error}.") from None
    if not inflate.eof:
        raise Unreadable("The file is damaged gzip: it ends early.")
