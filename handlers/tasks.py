"""Tasks: the steps of a user story."""

from flask import Blueprint
from marshmallow import fields

from handlers.http.crud import add_crud_routes
from handlers.http.fields import IntegerParam, StrictInteger, Text
from handlers.http.schemas import Item, page_query

tasks = Blueprint("tasks", __name__)


class Task(Item):
    """A step of a user story."""

    userstory_id = fields.Integer(dump_only=True)
    subject = Text(500, required=True, metadata={"example": "Cut the opening"})
    status = Text(50, load_default="new", metadata={"example": "new"})
    assigned_to = StrictInteger(allow_none=True, load_default=None, metadata={"description": "A user."})


add_crud_routes(
    tasks,
    noun="tasks",
    one="a task",
    schema=Task,
    query=page_query(Task, {"id": str}, id=IntegerParam(), status=Text(50), assigned_to=IntegerParam()),
    under=("userstories", "userstory_id"),
)
