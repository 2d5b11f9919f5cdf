"""Request ids, one log line a request, and the numbers of /metrics."""

import logging
import re
import time
from functools import cache
from random import getrandbits
from typing import Any

from flask import Flask, Response
from flask.globals import app_ctx, request_ctx

from handlers.http.metrics import Counter, Histogram

log = logging.getLogger("rowhouse.access")

ACCEPTABLE_ID = re.compile(r"[!-~]{1,128}")
"""A client's request id is kept if it is 1 to 128 visible ASCII characters."""

REQUESTS = Counter("rowhouse_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram(
    "rowhouse_request_seconds",
    "Seconds from the request's start to its answer's first byte.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)

DROPPED = Counter("rowhouse_log_lines_dropped_total", "Lines of the log that nobody read, or no disk took.")


@cache
def counter(method: str, route: str, status: int) -> Any:
    return REQUESTS.labels(method, route, status)


@cache
def histogram(method: str, route: str) -> Any:
    return SECONDS.labels(method, route)


def new_id() -> str:
    """128 random bits. They are no secret: what makes secrets would take as long as the check of a token."""
    return f"{getrandbits(128):032x}"


def begin() -> None:
    """Before a request: take the client's id, or make one."""
    kept, given = app_ctx.g, request_ctx.request.environ.get("HTTP_X_REQUEST_ID")
    kept.request_id = given if given and ACCEPTABLE_ID.fullmatch(given) else new_id()
    kept.began = time.perf_counter()


def end(response: Response) -> Response:
    """After a request: name it, count it, log it."""
    kept, asked = app_ctx.g, request_ctx.request
    seconds = time.perf_counter() - kept.began
    response.headers.add("X-Request-Id", kept.request_id)
    # Only names from the map: a stranger's verbs and paths would make numbers without end.
    rule = asked.url_rule
    route = rule.rule if rule else "unknown"
    method = asked.method if rule else "unknown"
    # A socket's request ends with it, perhaps after days: not what the seconds of requests should tell.
    if rule and rule.websocket and response.status_code == 200:
        response.status_code = 101
    else:
        histogram(method, route).observe(seconds)
    counter(method, route, response.status_code).inc()
    if log.isEnabledFor(logging.INFO):
        line = {
            "request_id": kept.request_id,
            "method": asked.method,
            "path": asked.path,
            "status": response.status_code,
            "ms": round(seconds * 1000, 2),
        }
        log.info("%(method)s %(path)s %(status)s %(ms)s ms", line, extra=line)
    return response


def init_app(app: Flask) -> None:
    """Watch every request of this app. Called first, so that refused requests are seen as well."""
    app.before_request(begin)
    app.after_request(end)
