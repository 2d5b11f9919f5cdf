"""User stories: what somebody wants of a project."""

from flask import Blueprint
from marshmallow import fields

from handlers.http.crud import add_crud_routes
from handlers.http.fields import INTEGER, IntegerParam, Many, Number, StrictInteger, Text
from handlers.http.schemas import Item, page_query

userstories = Blueprint("userstories", __name__)


class UserStory(Item):
    """What somebody wants of a project."""

    project_id = fields.Integer(dump_only=True)
    ref = fields.Integer(dump_only=True, metadata={"description": "Counts 1, 2, 3 … within the project."})
    milestone_id = StrictInteger(allow_none=True, load_default=None, metadata={"description": "Of the same project."})
    subject = Text(500, required=True, metadata={"example": "As a neighbour I want a door"})
    description = Text(10_000, blank=True, allow_none=True, load_default=None)
    status = Text(50, load_default="new", metadata={"example": "new"})
    assigned_to = StrictInteger(allow_none=True, load_default=None, metadata={"description": "A user."})
    tags = Many(Text(50), 0, 20, load_default=list, metadata={"example": ["door"]})
    points = Number(0, 1000, places=1, allow_none=True, load_default=None, metadata={"example": 3})


class UserStoryTree(UserStory):
    """A user story with all below it."""

    tasks = fields.List(fields.Nested("Task"))
    comments = fields.List(fields.Nested("Comment"))


add_crud_routes(
    userstories,
    noun="userstories",
    one="a user story",
    schema=UserStory,
    query=page_query(
        UserStory,
        {"id": str, "ref": int},
        id=IntegerParam(),
        ref=IntegerParam(most=INTEGER),
        milestone_id=IntegerParam(),
        status=Text(50),
        assigned_to=IntegerParam(),
    ),
    under=("projects", "project_id"),
)
