"""The rows of a table as an Avro file that proves itself whole: its header holds a digest of all the rest.

Avro has no checksum of its own (neither has its deflate). The digest is written last, over a place kept free in the
header's metadata, and is that of the file with this place free.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import fastavro
from fastavro.write import Writer

from db.cooperate import next_turn
from handlers.bulk.avro_blocks import SYNC, blocks, unpacked
from handlers.bulk.avro_moments import EPOCH, MOMENT, moments_of, since_2000, undated
from handlers.bulk.errors import Damaged

DIGEST, TABLE, SNAPSHOT, MIGRATION = "rowhouse.sha256", "rowhouse.table", "rowhouse.snapshot", "rowhouse.migration"

OPEN = "0" * 64
"""Where the digest will be."""

HEADER_LIMIT = 2**16
"""Bytes of a header."""

BLOCK = 2**16

TURN = 250
"""Rows after which another request has its turn."""

TYPES: dict[str, Any] = {"integer": "int", "bigint": "long", "text": "string", "timestamp with time zone": MOMENT}
"""PostgreSQL's types as Avro's."""


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    nullable: bool
    required: bool = False
    """Whether a row must bring it: it may not be null and has no default."""


class Header(NamedTuple):
    """What a file says of itself, and where its blocks begin."""

    schema: dict[str, Any]
    columns: dict[str, Any]
    metadata: dict[str, str]
    codec: str
    sync: bytes
    length: int


def schema_of(table: str, columns: list[Column]) -> dict[str, Any]:
    """The Avro schema of a table."""
    kinds = [(column.name, TYPES[column.type], column.nullable) for column in columns]
    fields = [{"name": name, "type": ["null", kind] if nullable else kind} for name, kind, nullable in kinds]
    return {"type": "record", "name": table, "fields": fields}


# Writing --------------------------------------------------------------------------------------------------------------


def write(file: BinaryIO, schema: dict[str, Any], rows: Iterable[tuple[Any, ...]], metadata: dict[str, str]) -> int:
    """Write rows, in the order of the schema's fields, and the digest; returns how many.

    Moments come as PostgreSQL counts them.
    """
    names, moments = [field["name"] for field in schema["fields"]], moments_of(schema)
    writer = Writer(
        file,
        schema,
        codec="deflate",
        compression_level=1,
        sync_interval=BLOCK,
        metadata={**metadata, DIGEST: OPEN},
    )
    count = 0
    for row in rows:
        record = dict(zip(names, row, strict=True))
        for name in moments:
            if record[name] is not None:
                record[name] += EPOCH
        writer.write(record)
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


def digest_of(file: BinaryIO, place: int | None = None) -> str:
    """SHA-256 of a file, with the place of its digest free if told where it is."""
    digest = hashlib.sha256()
    file.seek(0)
    head = file.read(HEADER_LIMIT)
    if place is not None:
        head = head[:place] + OPEN.encode() + head[place + len(OPEN) :]
    digest.update(head)
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
        file.seek(0)
        place = file.read(header.length).find(stated.encode()) if len(stated) == len(OPEN) else -1
        if place < 0 or digest_of(file, place) != stated:
            raise Damaged("It is not what was written: its digest differs.")
    return header, sum(count for count, _ in blocks(file, header.length, header.sync))


def header_of(file: BinaryIO) -> Header:
    """What a file says of itself. Raises Damaged."""
    file.seek(0)
    head = io.BytesIO(file.read(HEADER_LIMIT))
    try:
        reader = fastavro.reader(head)
        schema: Any = json.loads(reader.metadata["avro.schema"])
        columns = {field["name"]: field["type"] for field in schema["fields"]}
        if len(columns) < len(schema["fields"]):
            raise Damaged("A column is there twice.")
        length = head.tell()
        return Header(
            schema, columns, dict(reader.metadata), reader.codec, head.getvalue()[length - SYNC : length], length
        )
    except Damaged:
        raise
    except Exception as error:  # whatever a parser makes of bytes that are no header
        raise Damaged("It is no Avro file of a table.") from error


def check_columns(header: Header, table: str, columns: list[Column]) -> None:
    """Raises Damaged where a file cannot be of this table."""
    if header.metadata.get(TABLE, table) != table:
        raise Damaged(f"It holds {header.metadata[TABLE]}, not {table}.")
    if header.codec not in ("null", "deflate"):
        raise Damaged("Its codec is neither null nor deflate.")
    kinds = {column.name: TYPES[column.type] for column in columns}
    for name, kind in header.columns.items():
        if name not in kinds or kind not in (kinds[name], ["null", kinds[name]]):
            raise Damaged(f"{table} has no such column: {json.dumps(name)} of type {json.dumps(kind)}.")
    for column in columns:
        if column.name not in header.columns and (column.required or column.name == "id"):
            raise Damaged(f"It has no column {column.name}.")


def rows(file: BinaryIO, header: Header) -> Iterator[tuple[Any, ...]]:
    """The rows of a checked file, its moments as PostgreSQL counts them. Raises Damaged."""
    moments = moments_of(header.schema)
    schema = fastavro.parse_schema(undated(header.schema))
    try:
        for count, data in blocks(file, header.length, header.sync):
            source = io.BytesIO(unpacked(data, header.codec))
            for number in range(count):
                record: Any = fastavro.schemaless_reader(source, schema, None)
                for name in moments:
                    if record[name] is not None:
                        record[name] = since_2000(record[name])
                yield tuple(record.values())
                if number % TURN == 0:
                    next_turn()
            if source.read(1):
                raise Damaged("A block holds more than its rows.")
    except Damaged:
        raise
    except Exception as error:  # whatever a parser makes of bytes that are no rows
        raise Damaged("Its rows cannot be read.") from error
