"""Tasks: the steps of a user story."""

from flask import Blueprint
from marshmallow import fields

from handlers.http.crud import hang
from handlers.http.fields import Digits, Text, Whole
from handlers.http.schemas import Item, page_query

tasks = Blueprint("tasks", __name__)


class Task(Item):
    """A step of a user story."""

    userstory_id = fields.Integer(dump_only=True)
    subject = Text(500, required=True, metadata={"example": "Cut the opening"})
    status = Text(50, load_default="new", metadata={"example": "new"})
    assigned_to = Whole(allow_none=True, load_default=None, metadata={"description": "A user."})


hang(
    tasks,
    "tasks",
    "a task",
    Task,
    Task,
    page_query(Task, {"id": str}, id=Digits(), status=Text(50), assigned_to=Digits()),
    under=("userstories", "userstory_id"),
)
