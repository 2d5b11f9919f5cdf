"""The rows of a table as an Avro file that proves itself whole: its header holds a digest of all the rest.

Avro has no checksum of its own (neither has its deflate). The digest is written last, over a place kept free in the
header's metadata, and is that of the file with this place free.

Rows are fastavro's to write and read. Blocks are told apart here: fastavro's readers unpack whatever they are given,
and make datetimes of moments, which took two fifths of the time. Moments stay the numbers they are.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import fastavro
from fastavro.write import Writer

from db.cooperate import next_turn
from handlers.bulk.avro_longs import STRETCH, TURN, check_longs, entries, long
from handlers.bulk.errors import Damaged, damaged

DIGEST, TABLE, SNAPSHOT, MIGRATION = "rowhouse.sha256", "rowhouse.table", "rowhouse.snapshot", "rowhouse.migration"
ROOT = "rowhouse.history_root"

MAGIC = b"Obj\x01"
"""How an Avro file begins."""

OPEN = "0" * 64
"""Where the digest will be."""

HEADER_LIMIT, BLOCK, BLOCK_LIMIT, SYNC = 2**16, 2**16, 2**24, 16
"""Bytes of a header, of a block that is written, of one that is read (packed and unpacked), and of a block's end."""

MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
"""A moment's type: microseconds since 1970."""

EPOCH = 946_684_800_000_000
"""When PostgreSQL begins to count microseconds (2000), in Avro's, which begin in 1970."""

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in Avro's microseconds: others PostgreSQL would take for infinity, or not at all."""

TYPES: dict[str, Any] = {"integer": "int", "bigint": "long", "text": "string", "timestamp with time zone": MOMENT}
"""PostgreSQL's types as Avro's."""


class Header(NamedTuple):
    """What a file says of itself, and where its blocks begin."""

    schema: dict[str, Any]
    columns: dict[str, Any]
    metadata: dict[str, str]
    codec: str
    sync: bytes
    length: int


def moments_of(schema: dict[str, Any]) -> list[int]:
    """The places of the fields that are moments."""
    return [place for place, field in enumerate(schema["fields"]) if field["type"] in (MOMENT, ["null", MOMENT])]


# Writing --------------------------------------------------------------------------------------------------------------


def write(file: BinaryIO, schema: dict[str, Any], rows: Iterable[tuple[Any, ...]], metadata: dict[str, str]) -> int:
    """Write rows, in the order of the schema's fields, and the digest; returns how many.

    Moments come as PostgreSQL counts them.
    """
    names, moments = [field["name"] for field in schema["fields"]], moments_of(schema)
    metadata = {**metadata, DIGEST: OPEN}
    writer = Writer(file, schema, codec="deflate", compression_level=1, sync_interval=BLOCK, metadata=metadata)
    count = 0
    for row in rows:
        values = [*row]
        for place in moments:
            if values[place] is not None:
                values[place] += EPOCH
        writer.write(dict(zip(names, values, strict=True)))
        count += 1
        if count % TURN == 0:
            next_turn()
    writer.flush()
    file.seek(0)
    place = file.read(HEADER_LIMIT).index(OPEN.encode())
    digest = digest_of(file)
    file.seek(place)
    file.write(digest.encode())
    return count


def digest_of(file: BinaryIO, stated: str = OPEN) -> str:
    """SHA-256 of a file, with the place free where its digest is stated."""
    file.seek(0)
    digest = hashlib.sha256(file.read(HEADER_LIMIT).replace(stated.encode(), OPEN.encode(), 1))
    while block := file.read(2**20):
        digest.update(block)
        next_turn()
    return digest.hexdigest()


# Reading --------------------------------------------------------------------------------------------------------------


def checked(file: BinaryIO) -> tuple[Header, int]:
    """The header of a file whose digest and blocks are as they should be, and how many rows it has. Raises Damaged."""
    header = header_of(file)
    if any(name.startswith("rowhouse.") for name in header.metadata):
        stated = header.metadata.get(DIGEST, "")
        if digest_of(file, stated) != stated:
            raise Damaged("It is not what was written: its digest differs.")
    return header, sum(count for count, _ in blocks(file, header))


@damaged("It is no Avro file of a table.")
def header_of(file: BinaryIO) -> Header:
    """What a file says of itself. Raises Damaged."""
    file.seek(0)
    head = io.BytesIO(file.read(HEADER_LIMIT))
    if head.read(len(MAGIC)) != MAGIC:
        raise Damaged("It is no Avro file of a table.")
    metadata = entries(head, HEADER_LIMIT)
    sync = head.read(SYNC)
    if len(sync) < SYNC:
        raise Damaged("It ends within its header.")
    schema: Any = json.loads(metadata["avro.schema"])
    fastavro.parse_schema(schema)
    columns = {field["name"]: field["type"] for field in schema["fields"]}
    if len(columns) < len(schema["fields"]):
        raise Damaged("A column is there twice.")
    return Header(schema, columns, metadata, metadata.get("avro.codec", "null"), sync, head.tell())


def rows(file: BinaryIO, header: Header) -> Iterator[tuple[Any, ...]]:
    """The rows of a checked file, its moments as PostgreSQL counts them. Raises Damaged."""
    moments = moments_of(header.schema)
    fields = [*header.schema["fields"]]
    for place in moments:
        fields[place] = fields[place] | {"type": "long" if fields[place]["type"] == MOMENT else ["null", "long"]}
    schema = fastavro.parse_schema(header.schema | {"fields": fields})
    with damaged("Its rows cannot be read."):
        for count, data in blocks(file, header):
            block = unpacked(data, header.codec)
            check_longs(block, count, fields)
            source = io.BytesIO(block)
            for number in range(count):
                record: Any = fastavro.schemaless_reader(source, schema, None)
                row = [*record.values()]
                for place in moments:
                    if (micros := row[place]) is not None:
                        if not FIRST <= micros <= LAST:
                            raise Damaged("A moment is not of the years 1 to 9999.")
                        row[place] = micros - EPOCH
                yield tuple(row)
                if number % TURN == 0:
                    next_turn()
            if source.read(1):
                raise Damaged("A block holds more than its rows.")


def blocks(file: BinaryIO, header: Header) -> Iterator[tuple[int, bytes]]:
    """How many rows each block has, and its data as it is packed. Raises Damaged."""
    file.seek(header.length)
    while file.read(1):
        file.seek(-1, os.SEEK_CUR)
        with damaged("A block does not begin as it should."):
            count, size = long(file), long(file)
        # A row has a byte at least, its id. No writer makes a block of none, and there could be millions of them.
        if not (0 < count <= BLOCK_LIMIT and 0 <= size <= BLOCK_LIMIT):
            raise Damaged(f"A block is damaged, or larger than {BLOCK_LIMIT} bytes.")
        data = file.read(size)
        if file.read(SYNC) != header.sync:
            raise Damaged("A block does not end where it should.")
        yield count, data
        next_turn()


def unpacked(data: bytes, codec: str) -> bytes:
    """The data of a block. Raises Damaged where it has more than BLOCK_LIMIT bytes, and zlib.error."""
    if codec == "null":
        return data
    unpacking, found = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while not unpacking.eof and len(found) <= BLOCK_LIMIT:
        some = unpacking.decompress(data, min(STRETCH, BLOCK_LIMIT + 1 - len(found)))
        if not some and not unpacking.eof:  # it is cut off
            break
        found += some
        data = unpacking.unconsumed_tail
        next_turn()
    if len(found) > BLOCK_LIMIT or not unpacking.eof:
        raise Damaged(f"A block is cut off, or larger than {BLOCK_LIMIT} bytes unpacked.")
    return bytes(found)
