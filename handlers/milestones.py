"""Milestones: what stories of a project should be done by."""

from typing import Any

from flask import Blueprint
from marshmallow import ValidationError, fields, validates_schema

from handlers.http.crud import add_crud_routes
from handlers.http.fields import Date, IntegerParam, StrictBoolean, Text
from handlers.http.schemas import Item, page_query

milestones = Blueprint("milestones", __name__)


class Milestone(Item):
    """What stories of a project should be done by."""

    project_id = fields.Integer(dump_only=True)
    name = Text(200, required=True, metadata={"example": "First storey"})
    starts_on = Date(allow_none=True, load_default=None, metadata={"example": "2021-11-01"})
    ends_on = Date(allow_none=True, load_default=None, metadata={"example": "2021-11-30"})
    closed = StrictBoolean(load_default=False)

    @validates_schema
    def check_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("starts_on") and data.get("ends_on") and data["ends_on"] < data["starts_on"]:
            raise ValidationError("Must not be before starts_on.", "ends_on")


add_crud_routes(
    milestones,
    noun="milestones",
    one="a milestone",
    schema=Milestone,
    query=page_query(
        Milestone,
        {"id": str},
        id=IntegerParam(),
        name=Text(200),
        closed=fields.Boolean(truthy={"true"}, falsy={"false"}),
    ),
    under=("projects", "project_id"),
)
