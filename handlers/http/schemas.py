"""Schemas that all nouns share: what every object has, what a page may be asked."""

import base64
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from handlers.http.fields import INTEGER, IntegerParam, StrictInteger, Text, VersionOrTimestamp, as_of_time
from handlers.http.problem_kinds import KINDS, PREFIX

PAGE_SIZE, PAGE_LIMIT = 50, 1000

CURSOR_LIMIT = 5500
"""Characters of a cursor: base64 of the longest key, 1,000 characters of four bytes, with an order and an id."""


class Versioned(Schema):
    """What every single object has besides its key and its own members."""

    version = fields.Integer(dump_only=True, metadata={"description": "1 when created; the ETag.", "example": 1})
    created_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})
    updated_at = fields.String(dump_only=True, metadata={"format": "date-time", "example": "2021-11-07T02:48:42Z"})


class Numbered(Schema):
    """An object's number."""

    id = fields.Integer(dump_only=True, metadata={"format": "int64", "example": 1})


class Item(Versioned, Numbered):
    """What every object has that goes by a number."""


class Problem(Schema):
    """A failure, by RFC 9457."""

    type = fields.String(
        required=True,
        validate=validate.OneOf([f"{PREFIX}{name}" for name in KINDS]),
        metadata={"description": "Its kind: a path that answers with what it means.", "example": "/problems/not-found"},
    )
    title = fields.String(required=True, metadata={"example": "Not found"})
    status = fields.Integer(required=True, metadata={"example": 404})
    detail = fields.String(required=True, metadata={"example": "There is no such object."})
    request_id = fields.String(required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "By field, where values are not valid; at most 100."},
    )
    more = fields.Integer(metadata={"description": "How many faults there are besides those in `errors`."})


class Conflict(Schema):
    """A member changed on both sides; of an undo also the object, null where a whole table is meant."""

    obj_type = fields.String(metadata={"example": "userstory"})
    obj_id = fields.Raw(allow_none=True)
    field = fields.String(allow_none=True, metadata={"description": "Null where the whole object is meant."})
    base = fields.Raw(allow_none=True, metadata={"description": "What it was in the version you read, or undo."})
    yours = fields.Raw(allow_none=True)
    theirs = fields.Raw(allow_none=True)
    changed_by = fields.String(allow_none=True)
    changed_at = fields.String(allow_none=True, metadata={"format": "date-time"})


class VersionProblem(Problem):
    """A change that started from a version which is no longer the current one."""

    current = fields.Dict(metadata={"description": "The object now."})
    base_version = fields.Integer(allow_none=True)
    conflicts = fields.List(fields.Nested(Conflict))


class VersionQuery(Schema):
    """Where a DELETE may name the version it starts from."""

    version = IntegerParam(
        most=INTEGER, metadata={"description": "The version that is to be deleted, unless If-Match names it."}
    )


@cache
def over_version(kind: type[Schema]) -> type[Schema]:
    """The body of a change: its members, and the version that they are saved over."""
    version = StrictInteger(most=INTEGER, metadata={"description": "The version you read, unless If-Match names it."})
    return type(f"Save{kind.__name__}", (kind,), {"version": version})


def member_names(answer: type[Schema]) -> list[str]:
    """Its members, by the names that answers have."""
    return [field.data_key or name for name, field in answer._declared_fields.items()]


def known_fields(names: list[str]) -> Callable[[str], None]:
    def check(value: str) -> None:
        unknown = [name for name in value.split(",") if name not in names]
        if unknown:
            raise ValidationError(f"Unknown: {', '.join(unknown)}. There are {', '.join(names)}.")

    return check


def fields_of(answer: type[Schema]) -> Text:
    names = member_names(answer)
    pattern = "|".join(names)
    return Text(
        500,
        data_key="fields",
        attribute="fields",
        validate=[known_fields(names)],
        metadata={
            "description": "The members to answer with, separated by commas; all by default.",
            "example": "id" if "id" in names else names[0],
            "pattern": f"^({pattern})(,({pattern}))*$",
        },
    )


def item_query(answer: type[Schema]) -> type[Schema]:
    """The parameters of a route that answers one object."""
    as_of = VersionOrTimestamp(metadata={"description": "As it was in this version, or at this time.", "example": "1"})
    return Schema.from_dict({"only": fields_of(answer), "as_of": as_of}, name=f"{answer.__name__}Query")


class TableQuery(Schema):
    """How a collection is written as CSV."""

    formulas = fields.String(
        validate=validate.OneOf(("kept", "neutral")),
        metadata={
            "description": "neutral puts an apostrophe before a text of CSV that a spreadsheet would take for a formula"
            " (=, +, -, @, tab, return); kept, the default, leaves every text as it is."
        },
    )


class PageQuery(TableQuery):
    """The parameters of a collection: a page of it, its order, its members. Subclasses add their filters."""

    orders: dict[str, Callable[[str], object]] = {"id": str}
    """The sort orders, and what reads a key of each out of a cursor."""

    ids = "[0-9]{1,18}"
    """What an id in a cursor looks like."""

    limit = IntegerParam(most=PAGE_LIMIT, metadata={"description": f"How many to answer with; {PAGE_SIZE} by default."})
    cursor = Text(CURSOR_LIMIT, metadata={"description": "The `next` of the page before."})

    @post_load
    def continue_after(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """With the cursor as the key and the id that it stands for."""
        if "cursor" in data:
            try:
                sort, after = decoded(data.pop("cursor"))
                assert sort == data.get("sort", "")
                assert "\0" not in after["after_key"]
                self.orders[sort.lstrip("-") or "id"](after["after_key"])
                assert re.fullmatch(self.ids, after["after_id"])
            except (ValueError, KeyError, AssertionError):
                raise ValidationError("Not a cursor of this collection in this order.", "cursor") from None
            data |= after
        return data


def decoded(cursor: str) -> tuple[str, dict[str, str]]:
    """The order that a cursor is of, and what its page comes after, as parameters of a list. Raises ValueError."""
    plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    sort, id, key = plain.split("|", 2)
    return sort, {"after_key": key, "after_id": id}


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
    if issubclass(answer, Versioned):
        members["as_of"] = as_of_time()
    return type(f"{answer.__name__}PageQuery", (PageQuery,), members | filters)


instant = datetime.fromisoformat
"""Reads the key of an order by time."""
