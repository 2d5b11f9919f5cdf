"""Users: the people of all systems, found by id, by e-mail, and by any part of an address."""

import json
from collections.abc import Callable
from typing import Any
from unicodedata import normalize

from flask import Blueprint, Response
from marshmallow import Schema

from db import read, write
from handlers.http.addresses import asked_email, email, is_web_address, nobody_has
from handlers.http.auth import requires_role
from handlers.http.concurrency import changed, removed
from handlers.http.contract import gives, takes
from handlers.http.crud_history import add_history_routes
from handlers.http.fields import BIGINT, IntegerParam, StrictInteger, Text
from handlers.http.preconditions import Expected
from handlers.http.responses import created, item, page
from handlers.http.schemas import Item, PageQuery, VersionQuery, fields_of, instant, item_query, page_query

users = Blueprint("users", __name__)


class User(Item):
    """A person."""

    email = email()
    name = Text(30, required=True, metadata={"example": "Ann"})
    address = Text(100, required=True, metadata={"example": "1 Main Street, Springfield"})
    image = Text(
        100,
        required=True,
        validate=[is_web_address],
        metadata={"example": "https://example.com/ann.png", "format": "uri"},
    )
    text = Text(1000, blank=True, allow_none=True, load_default=None, metadata={"example": "Likes row houses."})


class SavedUser(User):
    """A person as kept: of one made by POST /user only the e-mail and the text are known."""

    name = Text(30, allow_none=True)
    address = Text(100, allow_none=True)
    image = Text(100, allow_none=True)


class UserText(Schema):
    """What /user keeps about a person."""

    text = Text(1000, blank=True, required=True, allow_none=True, metadata={"example": "Likes row houses."})


class UserSearch(Schema):
    """What to find users by: all that is given must fit."""

    id = StrictInteger(metadata={"description": "Exactly this id."})
    email = Text(254, metadata={"description": "This e-mail, whatever the case."})
    address = Text(100, metadata={"description": "Any part of an address, whatever the case."})
    name = Text(30, metadata={"description": "Exactly this name."})


ORDERS: dict[str, Callable[[str], object]] = {"id": str, "email": str, "name": str, "created_at": instant}

UserQuery = item_query(User)
UserSearchQuery = page_query(User, ORDERS)
UserPageQuery = page_query(
    User,
    ORDERS,
    **UserSearch._declared_fields | {"id": IntegerParam(most=BIGINT, metadata={"description": "Exactly this id."})},
)

SEARCHED = {"address", "after_key", "after_id", *PageQuery._declared_fields, "fields"}
"""What users.search heeds: a part of an address, and what any page is asked for by but its order."""


class EmailQuery(Schema):
    """Whom /user means."""

    email = email()


EmailUserQuery = Schema.from_dict({"email": asked_email(), "only": fields_of(User)}, name="EmailUserQuery")
EmailVersionQuery = VersionQuery.from_dict({"email": asked_email()}, name="EmailVersionQuery")


@users.get("/users")
@requires_role("reader")
@takes(query=UserPageQuery)
@gives(SavedUser, many=True)
def list(query: dict[str, Any]) -> Response:
    """Users page by page, or all of them as NDJSON or CSV."""
    return found(query)


@users.post("/users")
@requires_role("writer")
@takes(User)
@gives(SavedUser, 201)
def create(body: dict[str, Any]) -> Response:
    """Make a user."""
    row = write("users.create", body=json.dumps(body))
    return created(row, f"/users/{row.id}")


@users.post("/users/search")
@requires_role("reader")
@takes(UserSearch, query=UserSearchQuery)
@gives(SavedUser, many=True)
def search(body: dict[str, Any], query: dict[str, Any]) -> Response:
    """Users that fit all that the body says; the same as `GET /users` with it as parameters."""
    return found(query | body)


def found(query: dict[str, Any]) -> Response:
    """A page; where three letters or more of an address are all there is to fit, by the plan that is kept for it."""
    searched = query.keys() <= SEARCHED and len(normalize("NFC", query.get("address", "").replace("i", "I"))) >= 3
    return page("users.search" if searched else "users.list", query)


@users.get("/users/<id:id>")
@requires_role("reader")
@takes(query=UserQuery)
@gives(SavedUser)
def get(id: int, query: dict[str, Any]) -> Response:
    """One user, as it is or as it was."""
    return item(read("users.as_of" if "as_of" in query else "users.get", id=id, **query))


@users.put("/users/<id:id>")
@requires_role("writer")
@takes(User, precondition=True)
@gives(SavedUser)
def replace(id: int, body: dict[str, Any], expected: Expected) -> Response:
    """Save a user as the body says, over the version you read."""
    return changed("users", id, body, expected)


@users.patch("/users/<id:id>")
@requires_role("writer")
@takes(User, partial=True, precondition=True)
@gives(SavedUser)
def change(id: int, body: dict[str, Any], expected: Expected) -> Response:
    """Save some members of a user, merged with what others changed since the version you read."""
    return changed("users", id, body, expected, merge=True)


@users.delete("/users/<id:id>")
@requires_role("writer")
@takes(query=VersionQuery, precondition=True, long=True)
@gives(status=204)
def remove(id: int, expected: Expected) -> Response:
    """Delete a user, if it still is the version you read."""
    return removed("users", id, expected)


add_history_routes(users, noun="users", one="a user", schema=SavedUser)


# The short forms ------------------------------------------------------------------------------------------------------


@users.get("/user/<id:id>")
@requires_role("reader")
@takes(query=UserQuery)
@gives(SavedUser)
def get_short(id: int, query: dict[str, Any]) -> Response:
    """One user: the short form of `/users/{id}`."""
    return get(id, query)


@users.get("/user")
@requires_role("reader")
@takes(query=EmailUserQuery)
@gives(SavedUser, absent=True)
def get_by_email(query: dict[str, Any]) -> Response:
    """One user by e-mail, whatever the case."""
    return item(read("users.by_email", **query) or nobody_has(query["email"]))


@users.post("/user")
@requires_role("writer")
@takes(UserText, query=EmailQuery)
@gives(SavedUser, 201, also=(200,))
def put_by_email(body: dict[str, Any], query: dict[str, Any]) -> Response:
    """Save the text of the user with this e-mail (200), or make one (201)."""
    row = write("users.put_by_email", email=query["email"], body=json.dumps(body))
    return created(row, f"/users/{row.id}") if row.created else item(row)


@users.delete("/user")
@requires_role("writer")
@takes(query=EmailVersionQuery, precondition=True, any_version=True)
@gives(status=204, absent=True)
def remove_by_email(query: dict[str, Any], expected: Expected) -> Response:
    """Delete the user with this e-mail; where a version is named, only that one."""
    row = read("users.id_by_email", email=query["email"]) or nobody_has(query["email"])
    return removed("users", row.id, expected)
