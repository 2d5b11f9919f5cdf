"""The pages: / where changes arrive live and any object's history is a readable diff; /requirements with charts."""

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, send_from_directory
from marshmallow import Schema

from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.fields import IntegerParam, Text

pages = Blueprint("pages", __name__)

STATIC = Path(__file__).parent / "static"

CONTENT_SECURITY_POLICY = "default-src 'self'; img-src data:; frame-ancestors 'none'"


ASSETS = "page.js", "page.css", "token.js", "requirements.js", "chart.js"
"""chart.js is Chart.js 4.5.1 (https://www.chartjs.org, MIT), as npm has it."""


class ShownQuery(Schema):
    """What the page shows: it asks the channel for it."""

    project = IntegerParam()
    obj_type = Text(100)


@pages.get("/")
@requires_role("anyone")
@takes(query=ShownQuery)
@gives(media=("text/html",))
def index(query: dict[str, Any]) -> Response:
    """Watch changes arrive, look at any object's history, go back to a version."""
    return html("index.html")


class ChartsQuery(Schema):
    """Which year the charts begin with: the latest by default."""

    year = IntegerParam(most=9999)


@pages.get("/requirements")
@requires_role("anyone")
@takes(query=ChartsQuery)
@gives(media=("text/html",))
def requirements(query: dict[str, Any]) -> Response:
    """Look at who was hired: by department beside the mean, by quarter, by job."""
    return html("requirements.html")


def html(name: str) -> Response:
    response = send_from_directory(STATIC, name, conditional=False)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


@pages.get(f"/page/<any({', '.join(map(repr, ASSETS))}):name>")
@requires_role("anyone")
@gives(media=("*/*",))
def asset(name: str) -> Response:
    """A script or style sheet of the pages."""
    return send_from_directory(STATIC, name, conditional=False)
