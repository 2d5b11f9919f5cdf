"""Docs: the OpenAPI document, and two pages to read it on."""

import importlib.util
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

from handlers.access import needs
from handlers.answers import answer
from handlers.contract import gives
from handlers.openapi import document

docs = Blueprint("docs", __name__)

ASSETS = ("swagger_bundle.js", "swagger_style.css", "redoc.js")

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rowhouse</title>
<link rel="icon" href="data:,">
"""

SWAGGER = (
    PAGE
    + """<link rel="stylesheet" href="/docs/swagger_style.css">
<div id="docs"></div>
<script src="/docs/swagger_bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true})</script>
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
@needs("anyone")
@gives()
def openapi() -> Response:
    """This document."""
    return answer(document())


@docs.get("/docs")
@needs("anyone")
@gives(media=("text/html",))
def swagger() -> Response:
    """Read and try the service with Swagger UI."""
    return html(SWAGGER)


@docs.get("/redoc")
@needs("anyone")
@gives(media=("text/html",))
def redoc() -> Response:
    """Read the service's documentation with ReDoc."""
    return html(REDOC)


@docs.get(f"/docs/<any({', '.join(map(repr, ASSETS))}):name>")
@needs("anyone")
@gives(media=("*/*",))
def asset(name: str) -> Response:
    """A script or style sheet of the two pages."""
    # offapi's own module reads all its files when imported; only the files are wanted.
    package = importlib.util.find_spec("offapi") or abort(404)
    return send_from_directory(Path(str(package.origin)).parent, name, max_age=86400)
