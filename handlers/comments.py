"""Comments: what was said about a user story."""

from flask import Blueprint
from marshmallow import fields

from handlers.http.crud import add_crud_routes
from handlers.http.fields import IntegerParam, StrictInteger, Text
from handlers.http.schemas import Item, page_query

comments = Blueprint("comments", __name__)


class Comment(Item):
    """What somebody said about a user story."""

    userstory_id = fields.Integer(dump_only=True)
    author_id = StrictInteger(allow_none=True, load_default=None, metadata={"description": "A user."})
    text = Text(10_000, required=True, metadata={"example": "Which side should it open to?"})


add_crud_routes(
    comments,
    noun="comments",
    one="a comment",
    schema=Comment,
    query=page_query(Comment, {"id": str}, id=IntegerParam(), author_id=IntegerParam()),
    under=("userstories", "userstory_id"),
)
