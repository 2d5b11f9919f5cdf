"""Comments: what was said about a user story."""

from flask import Blueprint
from marshmallow import fields

from handlers.http.crud import hang
from handlers.http.fields import Digits, Text, Whole
from handlers.http.schemas import Item, page_query

comments = Blueprint("comments", __name__)


class Comment(Item):
    """What somebody said about a user story."""

    userstory_id = fields.Integer(dump_only=True)
    author_id = Whole(allow_none=True, load_default=None, metadata={"description": "A user."})
    text = Text(10_000, required=True, metadata={"example": "Which side should it open to?"})


hang(
    comments,
    "comments",
    "a comment",
    Comment,
    Comment,
    page_query(Comment, {"id": str}, id=Digits(), author_id=Digits()),
    under=("userstories", "userstory_id"),
)
