"""Docs: the OpenAPI document, two pages to read it on, and what each kind of problem means."""

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort, g, send_from_directory
from markupsafe import escape
from marshmallow import Schema, fields

from handlers.http.auth import requires_role
from handlers.http.contract import gives
from handlers.http.openapi import document
from handlers.http.problem_kinds import KINDS, PREFIX
from handlers.http.request_body import JSON
from handlers.http.responses import answer

docs = Blueprint("docs", __name__)

ASSETS = ("swagger_bundle.js", "swagger_style.css", "redoc.js")

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rowhouse</title>
<link rel="icon" href="data:,">
"""

# With the groups open this Swagger UI shows no more than two of them, of a document of more than 80 paths.
SWAGGER = (
    PAGE
    + """<link rel="stylesheet" href="/docs/swagger_style.css">
<div id="docs"></div>
<script src="/docs/swagger_bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true, docExpansion: "none"})</script>
"""
)

REDOC = (
    PAGE
    + """<redoc spec-url="/openapi.json"></redoc>
<script type="module" src="/docs/redoc.js"></script>
"""
)


CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""The pages take nothing from elsewhere, whatever their scripts would like."""


def html(page: str) -> Response:
    return Response(page, mimetype="text/html", headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@docs.get("/openapi.json")
@requires_role("anyone")
@gives()
def openapi() -> Response:
    """This document."""
    return answer(document())


@docs.get("/docs")
@requires_role("anyone")
@gives(media=("text/html",))
def swagger() -> Response:
    """Read and try the service with Swagger UI."""
    return html(SWAGGER)


@docs.get("/redoc")
@requires_role("anyone")
@gives(media=("text/html",))
def redoc() -> Response:
    """Read the service's documentation with ReDoc."""
    return html(REDOC)


@docs.get(f"/docs/<any({', '.join(map(repr, ASSETS))}):name>")
@requires_role("anyone")
@gives(media=("*/*",))
def asset(name: str) -> Response:
    """A script or style sheet of the two pages."""
    if name == "redoc.js":
        return Response(redoc_script(), mimetype="text/javascript", headers={"Cache-Control": "max-age=86400"})
    return send_from_directory(assets(), name, max_age=86400)


def assets() -> Path:
    # offapi's own module reads all its files when imported; only the files are wanted.
    package = importlib.util.find_spec("offapi") or abort(404)
    return Path(str(package.origin)).parent


@cache
def redoc_script() -> bytes:
    """ReDoc without the pictures that it would ask its maker's servers for: it leaves out one that cannot be shown."""
    return re.sub(rb"https://cdn\.redoc\.ly/[\w./-]+", b"data:,", (assets() / "redoc.js").read_bytes())


class Explained(Schema):
    """A kind of problem."""

    type = fields.String(metadata={"example": "/problems/not-found"})
    status = fields.Integer(metadata={"example": 404})
    title = fields.String(metadata={"example": "Not found"})
    explanation = fields.String(metadata={"description": "What it means, and what a client does about it."})


class AllExplained(Schema):
    """The kinds of problems that there are."""

    items = fields.List(fields.Nested(Explained))


@docs.get("/problems")
@requires_role("anyone")
@gives(AllExplained, media=(JSON, "text/html"))
def problems() -> Response:
    """Read what kinds of problems there are."""
    return explain(*KINDS) if g.media != JSON else answer(json.dumps({"items": [explained(name) for name in KINDS]}))


@docs.get(f"/problems/<any({', '.join(map(repr, KINDS))}):kind>")
@requires_role("anyone")
@gives(Explained, media=(JSON, "text/html"))
def problem(kind: str) -> Response:
    """Read what a kind of problem means, and what to do about it: the `type` of a failure leads here."""
    return explain(kind) if g.media != JSON else answer(json.dumps(explained(kind)))


def explained(name: str) -> dict[str, object]:
    return {"type": f"{PREFIX}{name}", **KINDS[name]._asdict()}


def explain(*names: str) -> Response:
    """The same as a page."""
    told = [(f"{PREFIX}{name}", KINDS[name]) for name in names]
    parts = [
        f'<h1><a href="{path}">{kind.status} {escape(kind.title)}</a></h1>\n<p>{escape(kind.explanation)}</p>\n'
        for path, kind in told
    ]
    return html(PAGE + "".join(parts))
