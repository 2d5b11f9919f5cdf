"""Fields and schemas that all nouns share: what PostgreSQL can hold, what a page may ask."""

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

BIGINT, INTEGER = 2**63 - 1, 2**31 - 1

PAGE_SIZE, PAGE_LIMIT = 50, 1000


class Text(fields.String):
    """A string that PostgreSQL can hold (no NUL, no lone surrogate), of at most `longest` characters, not blank."""

    def __init__(self, longest: int, *, blank: bool = False, **options: Any) -> None:
        rules = [validate.Length(max=longest)] + (
            [] if blank else [validate.Regexp(r".*\S", re.DOTALL, error="Must not be blank.")]
        )
        super().__init__(validate=[*rules, *options.pop("validate", [])], **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        text = super()._deserialize(value, *args, **options)
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValidationError("Must not hold NUL or a lone surrogate.")
        return text


class Whole(fields.Integer):
    """A JSON integer (not true, not 1.0, not "1") within a range."""

    def __init__(self, least: int = 1, most: int = BIGINT, **options: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


class Digits(Whole):
    """An integer in a URL: plain ASCII digits."""

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        if not re.fullmatch(r"[0-9]{1,19}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


class Instant(fields.AwareDateTime):
    """A moment in ISO 8601, in UTC where it names no zone; loaded as text in UTC, as the service answers it."""

    def __init__(self, **options: Any) -> None:
        super().__init__("iso", default_timezone=UTC, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> Any:
        try:
            moment = super()._deserialize(value, *args, **options).astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type="datetime") from None
        return moment.isoformat().replace("+00:00", "Z")


# Schemas --------------------------------------------------------------------------------------------------------------


class Item(Schema):
    """What every single object has besides its own members."""

    id = fields.Integer(dump_only=True, metadata={"format": "int64", "example": 1})
    version = fields.Integer(dump_only=True, metadata={"description": "1 when created; the ETag.", "example": 1})
    created_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})
    updated_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})


class VersionQuery(Schema):
    """Where a DELETE may name the version it starts from."""

    version = Digits(
        most=INTEGER, metadata={"description": "The version that is to be deleted, unless If-Match names it."}
    )


def known_fields(answer: type[Schema]) -> Callable[[str], None]:
    def check(value: str) -> None:
        unknown = [name for name in value.split(",") if name not in answer._declared_fields]
        if unknown:
            raise ValidationError(f"Unknown: {', '.join(unknown)}. There are {', '.join(answer._declared_fields)}.")

    return check


def fields_of(answer: type[Schema]) -> Text:
    return Text(
        500,
        data_key="fields",
        attribute="fields",
        validate=[known_fields(answer)],
        metadata={"description": "The members to answer with, separated by commas; all by default.", "example": "id"},
    )


def item_query(answer: type[Schema]) -> type[Schema]:
    """The parameters of a route that answers one object."""
    return Schema.from_dict({"only": fields_of(answer)}, name=f"{answer.__name__}Query")


class PageQuery(Schema):
    """The parameters of a collection: a page of it, its order, its members. Subclasses add their filters."""

    orders: dict[str, Callable[[str], object]] = {"id": str}
    """The sort orders, and what reads a key of each out of a cursor."""

    limit = Digits(most=PAGE_LIMIT, metadata={"description": f"How many to answer with; {PAGE_SIZE} by default."})
    cursor = Text(4000, metadata={"description": "The `next` of the page before."})

    @validates_schema
    def check_cursor(self, data: dict[str, Any], **_: Any) -> None:
        if "cursor" not in data:
            return
        try:
            cursor = data["cursor"]
            sort, key, id = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
            assert sort == data.get("sort", "")
            assert "\0" not in key
            self.orders[sort.lstrip("-") or "id"](key)
            assert re.fullmatch("[0-9]{1,18}", id)
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError):
            raise ValidationError("Not a cursor of this collection in this order.", "cursor") from None


def page_query(
    answer: type[Schema], orders: dict[str, Callable[[str], object]], **filters: fields.Field
) -> type[PageQuery]:
    """The parameters of a collection of `answer` in these orders, with these filters."""
    names = [*orders, *(f"-{name}" for name in orders)]
    members = {
        "orders": orders,
        "sort": fields.String(
            validate=validate.OneOf(names),
            metadata={"description": "The order; `-` for descending; by id unless told.", "example": "id"},
        ),
        "only": fields_of(answer),
    }
    return type(f"{answer.__name__}PageQuery", (PageQuery,), members | filters)


instant = datetime.fromisoformat
"""Reads the key of an order by time."""
