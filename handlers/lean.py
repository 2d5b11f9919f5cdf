"""Flask without what this service does not use: sessions, subdomains, async views; left out where Flask lets one.

What Flask does for a request costs more than the statement that answers it.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import flask
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter
from werkzeug.sansio.utils import get_host
from werkzeug.utils import cached_property

SESSION = NullSession()


class NoSessions(SessionInterface):
    """Nothing is kept between requests: one empty session serves all."""

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        return SESSION

    def is_null_session(self, obj: object) -> bool:
        return True


class Request(flask.Request):
    """A request that finds its blueprints once."""

    @cached_property
    def blueprints(self) -> list[str]:
        return super().blueprints


class Response(flask.Response):
    """A response that passes a body of one block on as it is."""

    closes = False

    @classmethod
    def force_type(cls, response: Any, environ: dict[str, Any] | None = None) -> Any:
        # Flask-Sock's answer is none: made one of ours, it would be sent behind the last frame.
        return response if isinstance(response, flask.Response) else super().force_type(response, environ)

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        self.closes = True
        return super().call_on_close(func)

    def get_wsgi_response(self, environ: dict[str, Any]) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        # A 200 has no Location to encode, and a list of bytes had its length counted when it was set.
        whole = self.status_code == 200 and self.is_sequence and not self.closes
        if not whole or environ["REQUEST_METHOD"] == "HEAD":
            return super().get_wsgi_response(environ)
        return self.response, self.status, self.headers.to_wsgi_list()  # type: ignore[return-value]


class Lean(flask.Flask):
    """The application."""

    request_class = Request
    response_class = Response
    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        request.host = host(request.scheme, environ.get("HTTP_HOST"), request.server)
        path = environ["PATH_INFO"]
        return MapAdapter(
            self.url_map,
            server_name=request.host,
            script_name=request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=path if path.isascii() else path.encode("latin-1").decode(errors="replace"),
            default_method=request.method,
            query_args=environ["QUERY_STRING"],
        )


@lru_cache(1024)
def host(scheme: str, header: str | None, server: tuple[str, int | None] | None) -> str:
    """The host of a request, as Werkzeug has it. Raises SecurityError for what is none."""
    return get_host(scheme, header, server)
