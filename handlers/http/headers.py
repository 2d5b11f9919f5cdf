"""What every answer tells browsers; and CORS, for the origins that are listed and no other."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask_cors import CORS

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
"""Unless the answer says otherwise itself: pages have a policy of their own. HSTS is for whoever ends TLS."""

EXPOSED = ["ETag", "Feed-Cursor", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id"]
"""The headers that scripts of other origins may read."""

ACCEPTED = ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID"]
ACCEPTED += ["Prefer", "X-Request-Id"]
"""The headers that they may send."""

PREFLIGHT_KEPT = 600
"""Seconds for which a browser need not ask again."""


def init_app(app: Flask) -> None:
    """Tell browsers what they may do with the answers of this app."""
    secure(app)
    share(app)


def secure(app: Flask) -> None:
    """Give every answer of this app the headers it lacks: below Flask, where it costs a microsecond."""
    answer: Any = app.wsgi_app

    def secured(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            present = {name for name, _ in headers}
            headers += [header for header in SECURITY.items() if header[0] not in present]
            return start_response(status, headers, *error)

        return answer(environ, start)

    app.wsgi_app = secured  # type: ignore[method-assign]


def share(app: Flask) -> None:
    """Let scripts of the origins in CORS_ORIGINS in; without any, browsers let none in."""
    if app.config["CORS_ORIGINS"]:
        CORS(app, allow_headers=ACCEPTED, expose_headers=EXPOSED, max_age=PREFLIGHT_KEPT)
