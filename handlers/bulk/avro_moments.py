"""The moments of an Avro file as the numbers they are: as datetimes they took two fifths of the time to read it."""

from typing import Any

MOMENT = {"type": "long", "logicalType": "timestamp-micros"}
"""A moment's type: microseconds since 1970."""

EPOCH = 946_684_800_000_000
"""When PostgreSQL begins to count microseconds (2000), in Avro's, which begin in 1970."""

MOMENTS = range(-62_135_596_800_000_000, 253_402_300_800_000_000)
"""The years 1 to 9999, in Avro's microseconds."""


def is_moment(field: dict[str, Any]) -> bool:
    return field["type"] in (MOMENT, ["null", MOMENT])


def moments_of(schema: dict[str, Any]) -> list[str]:
    """The fields that are moments."""
    return [field["name"] for field in schema["fields"] if is_moment(field)]


def undated(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema by which moments are read as the numbers they are."""
    fields = [
        field | {"type": "long" if field["type"] == MOMENT else ["null", "long"]} if is_moment(field) else field
        for field in schema["fields"]
    ]
    return schema | {"fields": fields}


def since_2000(micros: int) -> int:
    """A moment as PostgreSQL counts it. Raises ValueError for what it would take for infinity, or not at all."""
    if micros not in MOMENTS:
        raise ValueError(micros)
    return micros - EPOCH
