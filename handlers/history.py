"""History: every change of every tracked table, whoever made it."""

from typing import Any

from flask import Blueprint, Response
from marshmallow import fields, validate

from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.crud_history import Entry, entry_query
from handlers.http.fields import IntegerParam, Names, Text, Timestamp
from handlers.http.responses import page

history = Blueprint("history", __name__)

HistoryPageQuery = entry_query(
    obj_type=Names(
        500, metadata={"description": "Only this kind of object, or these, with commas between.", "example": "task"}
    ),
    obj_id=Text(1000, metadata={"description": "Only the object with this key."}),
    project=IntegerParam(metadata={"description": "Only what belongs to this project."}),
    actor=Text(500, metadata={"description": "Only what this caller did."}),
    action=fields.String(
        validate=validate.OneOf(("create", "update", "delete", "truncate")),
        metadata={"description": "Only this."},
    ),
    request_id=Text(200, metadata={"description": "Only what requests with this X-Request-Id changed."}),
    since=Timestamp(metadata={"description": "Only what was changed at this time or later."}),
    until=Timestamp(metadata={"description": "Only what was changed before this time."}),
    field=Text(100, metadata={"description": "Only what changed this member.", "example": "status"}),
)


@history.get("/history")
@requires_role("reader", of_project=True)
@takes(query=HistoryPageQuery)
@gives(Entry, many=True)
def list(query: dict[str, Any]) -> Response:
    """Changes page by page in the order in which they were recorded, or all of them as NDJSON or CSV."""
    return page("history.list", query)
