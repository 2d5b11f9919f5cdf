"""Notifications: the events that somebody is to be told of. They come in here; the notifier tells them."""

from typing import Any

from flask import Blueprint, Response, abort
from marshmallow import Schema, fields, validate

from db import read, write
from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.crud import add_crud_routes
from handlers.http.fields import Text
from handlers.http.problems import ProblemException
from handlers.http.responses import item, page
from handlers.http.schemas import Versioned, page_query

events = Blueprint("events", __name__)

STATUSES = ("NotProcessed", "Processed", "Failed")

UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Identified(Schema):
    """An event's UUID."""

    event_id = fields.UUID(dump_only=True, metadata={"description": "In the order of time."})


class NewEvent(Versioned, Identified):
    """What somebody is to be told."""

    user_id = Text(200, required=True, metadata={"description": "Who is to be told.", "example": "ann"})
    description = Text(10_000, required=True, metadata={"example": "Your parcel is here."})


class Event(NewEvent):
    """What somebody is to be told, and whether they were."""

    status = fields.String(
        required=True,
        validate=validate.OneOf(STATUSES),
        metadata={
            "description": "Failed after 5 tries in vain. NotProcessed sends it again. No revert changes it.",
            "x-set-by-service": True,
        },
    )


class Failure(Schema):
    """A try to send an event that failed."""

    id = fields.Integer()
    try_ = fields.Integer(data_key="try", attribute="try", metadata={"description": "From 1.", "example": 1})
    reason = fields.String(metadata={"example": "HTTP Error 500: Internal Server Error"})
    failed_at = fields.String(metadata={"format": "date-time"})


EventPageQuery = page_query(
    Event,
    {"id": str},
    user_id=Text(200, metadata={"description": "Exactly this user."}),
    status=fields.String(validate=validate.OneOf(STATUSES)),
)

EventPageQuery.ids = UUID

add_crud_routes(
    events,
    noun="events",
    one="an event",
    schema=Event,
    new=NewEvent,
    query=EventPageQuery,
    key="uuid",
)


@events.get("/events/<uuid:id>/failures")
@requires_role("reader")
@takes(query=page_query(Failure, {"id": str}))
@gives(Failure, many=True)
def failures(id: str, query: dict[str, Any]) -> Response:
    """The tries to send an event that failed, with their reasons."""
    read("events.get", id=id) or abort(404, "There is no such object.")
    return page("events.failures", query | {"event_id": id})


@events.post("/events/<uuid:id>/requeue")
@requires_role("writer")
@takes()
@gives(Event)
def requeue(id: str) -> Response:
    """Send a failed event again, with all its tries."""
    row = write("events.requeue", id=id)
    if row is None:
        read("events.get", id=id) or abort(404, "There is no such object.")
        raise ProblemException("wrong-state", "Only an event that is Failed can be queued again.")
    return item(row)
