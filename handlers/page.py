"""The page at /: changes arrive live, any object's history is a readable diff, and the way back is a button."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, send_from_directory
from marshmallow import Schema

from handlers.access import needs
from handlers.contract import gives, takes
from handlers.fields import Digits, Text

page = Blueprint("page", __name__)

STATIC = Path(__file__).parent / "static"

CONTENT_SECURITY_POLICY = "default-src 'self'; img-src data:; frame-ancestors 'none'"


class ShownQuery(Schema):
    """What the page shows: it asks the channel for it."""

    project = Digits()
    obj_type = Text(100)


@page.get("/")
@needs("anyone")
@takes(query=ShownQuery)
@gives(media=("text/html",))
def index(query: dict[str, Any]) -> Response:
    """Watch changes arrive, look at any object's history, go back to a version."""
    response = send_from_directory(STATIC, "index.html", conditional=False)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


@page.get("/page/<any('page.js', 'page.css'):name>")
@needs("anyone")
@gives(media=("*/*",))
def asset(name: str) -> Response:
    """The page's script or style sheet."""
    return send_from_directory(STATIC, name, conditional=False)
