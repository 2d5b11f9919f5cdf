"""Flask without what this service does not use: sessions, subdomains, async views; left out where Flask lets one.

What Flask does for a request costs more than the statement that answers it: of 53 µs, finding its route took 8.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import IO, Any

import flask
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, Map, MapAdapter, RequestRedirect, Rule, UUIDConverter
from werkzeug.sansio.utils import get_host
from werkzeug.utils import cached_property

from handlers.http.auth import check_admitted
from handlers.http.fields import BIGINT
from handlers.http.hosts import SHORT

SESSION = NullSession()

OTHER_SPELLING = re.compile("%(2[def]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5f|7e)", re.IGNORECASE)
"""A slash, or what needs no escape in a path (RFC 3986, 2.3), escaped: a proxy's rules would not know the path."""


class NoSessions(SessionInterface):
    """Nothing is kept between requests: one empty session serves all."""

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        return SESSION

    def is_null_session(self, obj: object) -> bool:
        return True


class Request(flask.Request):
    """A request that finds its blueprints once, and whose body is whole or an error."""

    @cached_property
    def blueprints(self) -> list[str]:
        return super().blueprints

    @cached_property
    def stream(self) -> IO[bytes]:
        # gunicorn ends its input also where the client left early; Werkzeug counts only where nobody promised an end.
        if "HTTP_TRANSFER_ENCODING" not in self.environ:
            self.environ.pop("wsgi.input_terminated", None)
        return super().stream


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
        # A 200 has no Location to encode; the length of a body that was set whole was counted then.
        body = self.response
        whole = type(body) is list and len(body) == 1 and type(body[0]) is bytes and "Content-Length" in self.headers
        if not whole or self.status_code != 200 or self.closes or environ["REQUEST_METHOD"] == "HEAD":
            return super().get_wsgi_response(environ)
        return body, self.status, self.headers.to_wsgi_list()  # type: ignore[return-value]


class IdConverter(BaseConverter):
    """An id in a path: what no bigint can hold leads nowhere, as any other id that does not exist."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        if len(value) > 19 or value[0] == "0" or int(value) > BIGINT:
            raise NotFound("There is no such object.")
        return int(value)


class UuidConverter(UUIDConverter):
    """A UUID in a path, as text in small letters."""

    def to_python(self, value: str) -> str:  # type: ignore[override]
        return value.lower()


class Paths(Map):
    """The routes; those that end in an id can also be told by what is before it."""

    @cached_property
    def channels(self) -> set[str]:
        """The paths of WebSockets."""
        return {rule.rule for rule in self.iter_rules() if rule.websocket}

    @cached_property
    def of_objects(self) -> dict[tuple[str, str], Rule]:
        """By method and what stands before the id: ("GET", "/users")."""
        found: dict[tuple[str, str], Rule] = {}
        for rule in self.iter_rules():
            before, _, last = rule.rule.rpartition("/")
            if last == "<id:id>" and "<" not in before:
                for method in (rule.methods or set()) - {"OPTIONS"}:
                    found.setdefault((method, before), rule)
        return found


class Adapter(MapAdapter):
    """Finds the route of a single object by two look-ups, all others as Werkzeug does."""

    map: Paths

    def match(self, *args: Any, **options: Any) -> Any:
        """The route and its arguments. Raises NotFound also for a path that is spelled in another way than its own."""
        if "//" in self.path_info:  # Werkzeug would leave out the first
            raise NotFound
        before, _, id = self.path_info.rpartition("/")
        # Ids of more digits, and those that begin with 0, are for the converter to judge.
        if len(id) < 19 and id.isascii() and id.isdigit() and id[0] != "0":
            number = int(id)
            rule = self.map.of_objects.get((self.default_method, before))
            if rule and options == {"return_rule": True}:
                return rule, {"id": number}
        return super().match(*args, **options)


class App(flask.Flask):
    """The application."""

    url_map: Paths
    url_map_class = Paths
    request_class = Request
    response_class = Response
    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def dispatch_request(self) -> Any:
        asked = request_ctx.request
        if asked.routing_exception is not None:
            # A path has one spelling: to send a client on to it would name the Host that somebody sent.
            raise NotFound if isinstance(asked.routing_exception, RequestRedirect) else asked.routing_exception
        if asked.method == "OPTIONS":  # no route has one of its own
            return self.make_default_options_response()
        view = self.view_functions[asked.url_rule.endpoint]  # type: ignore[union-attr]
        check_admitted(view)
        return view(**asked.view_args)  # type: ignore[arg-type]

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        if request is None:
            return super().create_url_adapter(request)
        environ = request.environ
        header = environ.get("HTTP_HOST")
        known = host if len(header or "") <= SHORT else host.__wrapped__
        request.host = known(request.scheme, header, request.server)
        path = environ["PATH_INFO"]
        if OTHER_SPELLING.search(environ.get("RAW_URI", "").partition("?")[0]):
            path = f"//{path}"
        adapter = Adapter(
            self.url_map,
            server_name=request.host,
            script_name=request.root_path,
            subdomain="",
            url_scheme=request.scheme,
            path_info=path if path.isascii() else path.encode("latin-1").decode(errors="replace"),
            default_method=request.method,
            query_args=environ["QUERY_STRING"],
        )
        # On any other route an Upgrade is ignored (RFC 9110, 7.8).
        adapter.websocket = "HTTP_UPGRADE" in environ and path in self.url_map.channels and is_handshake(environ)
        return adapter


def is_handshake(environ: dict[str, Any]) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455, 4.2.1), whatever else is wrong with it."""
    options = {option.strip() for option in environ.get("HTTP_CONNECTION", "").lower().split(",")}
    asks = environ["HTTP_UPGRADE"].lower() == "websocket" and "upgrade" in options
    return asks and environ["REQUEST_METHOD"] == "GET" and environ["SERVER_PROTOCOL"] == "HTTP/1.1"


@lru_cache(1024)
def host(scheme: str, header: str | None, server: tuple[str, int | None] | None) -> str:
    """The host of a request, as Werkzeug has it."""
    return get_host(scheme, header, server)
