"""Another answer of this service, asked for within a request: as its caller would get it by GET."""

from contextvars import copy_context
from urllib.parse import unquote_to_bytes

from flask import current_app, request
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import ClosingIterator

from handlers.http.request_body import JSON

ASIDE = "rowhouse.aside"
"""Is in the environment of what is asked for so."""

KEPT = {"HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_X_REQUEST_ID"}
"""The headers that hold for the other answer as well: who asks whom."""

OWN = ("HTTP_", "werkzeug.", "flask.", "gunicorn.")
"""What else of an environment is of the request that asks alone."""


def asked(target: str) -> tuple[ClosingIterator, int, Headers]:
    """The blocks, status and headers of a GET for a path with its query, in JSON. The blocks are to be closed."""
    path, _, query = target.partition("?")
    environ = {key: value for key, value in request.environ.items() if key in KEPT or not key.startswith(OWN)}
    environ |= {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": target,
        "HTTP_ACCEPT": JSON,
        ASIDE: True,
    }
    # What a request binds to its context is of that request alone.
    blocks, status, headers = copy_context().run(run_wsgi_app, current_app.wsgi_app, environ)
    return ClosingIterator(blocks), int(status.split()[0]), headers
