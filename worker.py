"""gunicorn's gevent worker, with llhttp as its reader of HTTP and one write for a short answer.

gunicorn's own reading and writing of HTTP costs twice what Flask does. llhttp (by httptools) says what the bytes of a
connection mean: heads, chunks, lengths, HTTP/1.0. What it lets pass and WSGI or RFC 9112 does not is refused in
`Reader.on_headers_complete`, and answered as gunicorn answers what it refuses.

gunicorn reads by itself only where an operator turned on what is not done here: TLS, the PROXY protocol, its log of
accesses, sockets of Unix, connections of one request.
"""

import io
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial
from ipaddress import ip_address
from itertools import chain, filterfalse, takewhile
from socket import MSG_PEEK, SHUT_RD
from typing import Any, NamedTuple
from weakref import proxy

import gevent
from gevent.pool import Pool
from gunicorn import SERVER, util
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidHeader,
    InvalidHTTPVersion,
    InvalidRequestLine,
    InvalidRequestMethod,
    InvalidSchemeHeaders,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    UnsupportedTransferCoding,
)
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE, Response, base_environ
from gunicorn.workers import ggevent
from gunicorn.workers.ggevent import VERSION, GeventWorker
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from handlers.http.hosts import named

BLOCK = 2**16
"""Bytes that are read at once."""

VERB = re.compile(b"[A-Z]{3,20}(?= )")

VERSIONS = {"1.1": (1, 1), "1.0": (1, 0)}

ONCE = {"HTTP_HOST", "CONTENT_TYPE"}
"""Headers whose repetition means nothing; llhttp itself refuses a second length."""

REMEMBERED, WORTH_IT = 4096, 512
"""Headers that are remembered, and bytes of the longest."""

BODY_PAUSE = 5.0
"""Seconds for which a client may send nothing of a body before it may lose its place to others who come."""

LOOK_EVERY = 0.5
"""Seconds between two looks for connections that are idle too long."""


class Limits(NamedTuple):
    """What a head may have, from gunicorn's settings: bytes of the request line, headers, bytes of one."""

    line: int
    headers: int
    header: int


class HttpRequest:
    """A request, as gunicorn's Response wants to know it: its body may still come."""

    __slots__ = ("__weakref__", "answered", "body", "closes", "complete", "environ", "expects", "method", "version")

    def __init__(self, environ: dict[str, Any], method: str, version: tuple[int, int], closes: bool) -> None:
        self.environ, self.method, self.version, self.closes = environ, method, version, closes
        self.complete = self.expects = self.answered = False
        self.body: Body | None = None

    def should_close(self) -> bool:
        # Whoever still waits to be asked for its body may send it, or another request: nobody could tell.
        return self.closes or (self.expects and not self.complete)


class Reader:
    """What llhttp reads on one connection: its requests in their order, then the error that ends them."""

    def __init__(
        self,
        receive: Callable[[int], bytes],
        common: dict[str, Any],
        limits: Limits,
        schemes: dict[str, str],
        receive_body: Callable[[int], bytes] | None = None,
    ) -> None:
        """`schemes`: the headers that say by which value that a client of a proxy came by https. What is missing of a
        body that somebody reads is waited for by `receive_body`."""
        self.receive, self.common, self.limits, self.schemes = receive, common, limits, schemes
        self.receive_body = receive_body or receive
        self.parser = HttpRequestParser(self)
        self.requests: deque[HttpRequest] = deque()
        self.error: Exception | None = None
        self.current: HttpRequest | None = None
        self.verb = ""
        self.short = limits.line - 32
        """Bytes of a target that needs no measuring, whichever its method is."""
        self.target, self.headers = b"", list[tuple[str, str] | None]()
        self.pending, self.most = 0, limits.line + limits.headers * (limits.header + 2)
        """Bytes since something whole came, and their bound: a head, trailers or a chunk's extension may be endless."""

    def more(self, *, of_body: bool = False) -> bool:
        """Wait for more of the connection and read it; whether there was any. Raises what was wrong with it before."""
        if self.error:
            raise self.error
        data = self.receive_body(BLOCK) if of_body else self.receive(BLOCK)
        self.feed(data)
        return bool(data)

    def feed(self, data: bytes) -> None:
        begins, before = not self.pending and (not self.current or self.current.complete), len(self.requests)
        self.pending += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except HttpParserUpgrade as upgrade:
                # Who takes the offer takes the socket; else it goes on as before, with its body if it has one.
                data = data[upgrade.args[0] :]
                self.parser = self.after_upgrade()
            except HttpParserCallbackError as error:
                self.error = error.__context__ if isinstance(error.__context__, Exception) else error
                return
            except HttpParserInvalidMethodError as error:
                verb = VERB.match(data)
                if begins and verb and len(self.requests) == before and not self.verb:
                    # A verb that llhttp does not know is read as another: the application says which there are.
                    self.parser, self.verb, data = (
                        HttpRequestParser(self),
                        verb[0].decode(),
                        b"GET" + data[verb.end() :],
                    )
                    continue
                self.error = InvalidRequestMethod(str(error))
                return
            except HttpParserError as error:
                self.error = InvalidHeader(str(error))
                return
        if self.pending > self.most + BLOCK:
            self.error = LimitRequestHeaders("max buffer headers")

    def after_upgrade(self) -> HttpRequestParser:
        """What reads on behind the head of a request with an Upgrade, where llhttp itself sees an end."""
        request = self.current
        if not request or not request.body:
            return HttpRequestParser(self)
        request.complete = False
        length = request.environ.get("CONTENT_LENGTH")
        framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
        parser = HttpRequestParser(Rest(self))
        parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())
        return parser

    def on_url(self, piece: bytes) -> None:
        self.target += piece
        if len(self.target) > self.short:
            size = len(self.parser.get_method()) + len(self.target) + len("  HTTP/1.1")
            if size > self.limits.line:
                raise LimitRequestLine(size, self.limits.line)

    def on_header(self, name: bytes, value: bytes) -> None:
        most, headers = self.limits, self.headers
        size = len(name) + len(value)
        if len(headers) >= most.headers or size + len(": \r\n") > most.header:
            raise LimitRequestHeaders("limit request headers")
        headers.append(read_header(name, value) if size <= WORTH_IT else read_header.__wrapped__(name, value))

    def on_headers_complete(self) -> None:
        target, headers = self.target.decode("latin-1"), self.headers
        self.target, self.headers, self.pending = b"", [], 0
        method, version = self.parser.get_method().decode(), VERSIONS.get(self.parser.get_http_version())
        if self.verb:
            method, self.verb = self.verb, ""
        if None in headers:
            headers = [header for header in headers if header]
        environ = self.common.copy()
        environ.update(headers)  # type: ignore[arg-type]
        if len(environ) != len(self.common) + len(headers):
            join_repeated(environ, headers, self.limits.header)  # type: ignore[arg-type]
        if version != (1, 1):
            if not version or "HTTP_TRANSFER_ENCODING" in environ:
                raise InvalidHTTPVersion(self.parser.get_http_version())
            environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        path, _, query = target.partition("?")
        if path[:1] != "/" or "#" in target or not target.isascii():
            path, query, authority = split_target(method, target)
            if authority is not None:
                # It is the Host (RFC 9112, 3.2.2), and what is none is wrong all the same.
                if not named(environ.get("HTTP_HOST", "" if version == (1, 1) else "localhost")):
                    raise InvalidHeader("HOST")
                environ["HTTP_HOST"] = authority
        environ["REQUEST_METHOD"] = method
        environ["RAW_URI"] = target
        environ["PATH_INFO"] = util.unquote_to_wsgi_str(path) if "%" in path else path
        environ["QUERY_STRING"] = query
        request = HttpRequest(environ, method, version, method == "CONNECT" or not self.parser.should_keep_alive())
        if any(map(environ.__contains__, self.schemes)):
            environ["wsgi.url_scheme"] = self.scheme(headers)  # type: ignore[arg-type]
        if "HTTP_EXPECT" in environ:
            if environ["HTTP_EXPECT"].lower() != "100-continue":
                raise ExpectationFailed(environ["HTTP_EXPECT"])
            request.expects = version == (1, 1)
        if "HTTP_TRANSFER_ENCODING" in environ and environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
            raise UnsupportedTransferCoding(environ["HTTP_TRANSFER_ENCODING"])
        if "HTTP_TRANSFER_ENCODING" in environ or "CONTENT_LENGTH" in environ:
            self.pieces = deque[bytes | memoryview]()
            # Proxies: a body that held what holds it would wait for the collector.
            request.body = Body(Pieces(proxy(self), proxy(request), self.pieces))
        environ["wsgi.input"] = request.body or io.BytesIO()
        self.requests.append(request)
        self.current = request

    def scheme(self, headers: list[tuple[str, str]]) -> str:
        """What a proxy's headers say, which must not contradict each other."""
        said = {value == self.schemes[name] for name, value in headers if name in self.schemes}
        if len(said) > 1:
            raise InvalidSchemeHeaders
        return "https" if said.pop() else "http"

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.pending = 0

    def on_message_complete(self) -> None:
        assert self.current
        self.current.complete = True
        self.pending = 0
        if self.headers:  # trailers are for nobody
            self.headers = []


class Rest:
    """A reader that passes over the first head, which stands for that of a request that was read already."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.begun = reader, False
        self.on_body, self.on_message_complete = reader.on_body, reader.on_message_complete

    def on_url(self, piece: bytes) -> None:
        if self.begun:
            self.reader.on_url(piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.begun:
            self.reader.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.begun:
            self.reader.on_headers_complete()
        self.begun = True


@lru_cache(REMEMBERED)
def read_header(name: bytes, value: bytes) -> tuple[str, str] | None:
    """A header's name in the environment, and its value; None for `_`, which WSGI cannot tell from a hyphen there."""
    if b"_" in name:
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    text = value.decode("latin-1").strip(" \t")
    return (key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"), text


def join_repeated(environ: dict[str, Any], headers: list[tuple[str, str]], limit: int) -> None:
    """Headers that came several times become lists, as RFC 9110 has it: each no longer than if it had come once."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    for name, several in values.items():
        if len(several) > 1 and name in ONCE:
            raise InvalidHeader(name)
        environ[name] = ",".join(several)
        if len(environ[name]) > limit:
            raise LimitRequestHeaders("limit request headers")


def split_target(method: str, target: str) -> tuple[str, str, str | None]:
    """Path, query and authority of a target that is more, or something else, than the first two."""
    try:
        if not target.isascii() or (target[:1] == "*" and (target, method) != ("*", "OPTIONS")):
            raise ValueError
        parts = util.split_request_uri(target)
        whole = method != "CONNECT" and target[:1] not in ("/", "*")
        if whole and (parts.scheme not in ("http", "https") or not named(parts.netloc)):
            raise ValueError
    except ValueError:
        raise InvalidRequestLine(target) from None
    return parts.path or "", parts.query or "", parts.netloc if whole else None


class Pieces(io.RawIOBase):
    """A body as it comes. Raises NoMoreData where it ends early, a ParseException where it is malformed."""

    def __init__(self, reader: Reader, request: HttpRequest, pieces: deque[bytes | memoryview]) -> None:
        self.reader, self.request, self.pieces = reader, request, pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        pieces = self.pieces
        while not pieces and not self.request.complete:
            self.ask()
            if not self.reader.more(of_body=True):
                raise NoMoreData
        if not pieces:
            return 0
        self.request.expects = False
        piece = pieces.popleft()
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size < len(piece):
            pieces.appendleft(memoryview(piece)[size:])
        return size

    def ask(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110, 10.1.1), unless it was answered without."""
        if self.request.expects:
            if self.request.answered:
                raise NoMoreData
            self.request.expects = False
            self.reader.common["gunicorn.socket"].sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


class Body(io.BufferedReader):
    """The input of WSGI; `failed` where nobody reads it to its end, so that the connection ends too."""

    raw: Pieces
    failed = False


class Answer(Response):  # type: ignore[misc]
    """gunicorn's, whose first block goes out with its head."""

    headers_sent: bool

    def start_response(self, *args: Any) -> Any:
        self.req.answered = True
        return super().start_response(*args)

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        rest: list[tuple[str, str]] = []
        for header in headers:
            plain = is_plain if len(header[1]) <= WORTH_IT else is_plain.__wrapped__
            (self.headers if plain(*header) else rest).append(header)
        super().process_headers(rest)

    def is_chunked(self) -> bool:
        return self.response_length is None and super().is_chunked()

    def write(self, block: bytes) -> None:
        if self.headers_sent or len(block) != self.response_length or self._omits_body:
            super().write(block)
            return
        self.headers_sent, self.sent = True, len(block)
        lines = [
            f"HTTP/1.{self.req.version[1]} {self.status}\r\nServer: {SERVER}\r\nDate: {date(int(time.time()))}\r\n",
            "Connection: close\r\n" if self.must_close or self.req.should_close() else "Connection: keep-alive\r\n",
            *[f"{name}: {value}\r\n" for name, value in self.headers],
            "\r\n",
        ]
        whole = "".join(lines).encode("latin-1") + block
        sent = self.sock.send(whole)
        if sent < len(whole):
            self.sock.sendall(whole[sent:])


@lru_cache(2)
def date(second: int) -> str:
    """The Date of an answer, made once a second."""
    return util.http_date(second)


@lru_cache(REMEMBERED)
def is_plain(name: str, value: str) -> bool:
    """Whether a header of an answer is well-formed, and speaks neither of the connection nor of the length."""
    well_formed = TOKEN_RE.fullmatch(name) and HEADER_VALUE_RE.fullmatch(value)
    return bool(well_formed) and not util.is_hoppish(name) and name.lower() != "content-length"


def end_reading(client: Any) -> None:
    """Let a connection end where it waits. What has come already is still read: gevent's own shutdown cuts it off."""
    with suppress(OSError):
        client._sock.shutdown(SHUT_RD)


def is_asked(client: Any) -> bool:
    """Whether something has come on a connection that nobody has read yet."""
    try:
        return bool(client._sock.recv(1, MSG_PEEK))
    except OSError:  # nothing has, or it is gone
        return False


class Connections(Pool):  # type: ignore[misc]
    """The connections of a process: whoever asks whether all places are taken has somebody who waits for one."""

    def __init__(self, size: int, make_room: Callable[[], None]) -> None:
        super().__init__(size)
        self.make_room, self.wanted = make_room, False

    def full(self) -> bool:
        self.wanted = super().full()
        if self.wanted:
            self.make_room()
        return self.wanted


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's gevent worker, which reads by llhttp."""

    def init_signals(self) -> None:
        """Ctrl-C reaches the whole foreground group, but the master alone answers it."""
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_quit(self, *_: object) -> None:
        gevent.spawn(self.leave)

    def leave(self) -> None:
        """End at once, without gunicorn's traceback of an exit from a greenlet."""
        self.alive = False
        self.cfg.worker_int(self)
        gevent.sleep(0.1)
        gevent.kill(gevent.get_hub().parent, SystemExit(0), block=False)

    def run(self) -> None:
        from db.cooperate import next_turn  # here, where gevent has patched what psycopg waits with

        self.next_turn = next_turn
        self.common = base_environ(self.cfg) | {
            "SERVER_SOFTWARE": VERSION,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
        }
        cfg = self.cfg
        self.limits = Limits(cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size)
        self.schemes = {f"HTTP_{name.replace('-', '_')}": value for name, value in cfg.secure_scheme_headers.items()}
        self.idle: dict[Any, float] = {}
        """Connections that nothing is asked on, the longest idle first: since when they wait for a head."""
        self.waiting: dict[Any, float] = {}
        """Those whose request waits for more of its body, in the same order: since when."""
        self.places = Connections(cfg.worker_connections, self.make_room)
        ggevent.Pool = lambda _: self.places
        gevent.spawn(self.close_idle)
        super().run()

    def is_proxy(self, address: str) -> bool:
        """Whether an address may say by which scheme its clients came."""
        allowed = self.cfg.forwarded_allow_ips
        return "*" in allowed or any(ip_address(address) in network for network in self.cfg.forwarded_allow_networks())

    def make_room(self) -> None:
        """End the connection that is idle longest, or else sends nothing of its body for longest; where none does, the
        next look tries again."""
        before = time.monotonic() - BODY_PAUSE
        silent = takewhile(lambda client: self.waiting[client] < before, self.waiting)
        if client := next(filterfalse(is_asked, chain(self.idle, silent)), None):
            self.idle.pop(client, None)
            self.waiting.pop(client, None)
            end_reading(client)

    def close_idle(self) -> None:
        """End connections whose next head does not come in time, and all that are idle once the worker stops."""
        while True:
            gevent.sleep(LOOK_EVERY)
            # A client that asks without pause is told in its next answer, and not cut in between.
            due = time.monotonic() - (self.cfg.keepalive if self.alive else LOOK_EVERY)
            for client, since in [*self.idle.items()]:
                if since <= due and not is_asked(client):
                    end_reading(client)
            if self.places.wanted:
                self.places.full()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        cfg = self.cfg
        if cfg.is_ssl or cfg.accesslog or cfg.proxy_protocol != "off" or not cfg.keepalive or len(addr) < 2:
            super().handle(listener, client, addr)
            return
        try:
            client.setblocking(True)
            self.answer_all(client, addr, listener.getsockname())
        except (OSError, gevent.GreenletExit):  # the client is gone, or the worker
            pass
        except BaseException as error:
            self.handle_error(None, client, addr, error)
        finally:
            util.close(client)

    def answer_all(self, client: Any, addr: Any, server: Any) -> None:
        """Answer the requests of a connection until it ends. Raises what gunicorn answers where one is malformed."""
        common = self.common | {
            "REMOTE_ADDR": addr[0],
            "REMOTE_PORT": str(addr[1]),
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
            "gunicorn.socket": client,
        }
        schemes = self.schemes if self.is_proxy(addr[0]) else {}
        reader = Reader(client.recv, common, self.limits, schemes, partial(self.receive_body, client))
        try:
            while reader.requests or self.receive(client, reader):
                request = reader.requests.popleft()
                if not self.answer(client, request):
                    return
                if not request.complete and not self.pass_over(client, reader, request):
                    return
                if reader.requests:  # whoever sends many at once shall not keep others waiting for all of them
                    self.next_turn()
        finally:
            del reader.parser  # which knows the reader: they would wait for the collector

    def receive(self, client: Any, reader: Reader) -> bool:
        """Wait for a head on a connection that nothing is asked on just now; whether it came in time."""
        self.idle[client] = time.monotonic()
        try:
            while not reader.requests:
                if not reader.more():
                    return False
        finally:
            self.idle.pop(client, None)
        return True

    def receive_body(self, client: Any, size: int) -> bytes:
        """Wait for more of a body that the application reads."""
        self.waiting[client] = time.monotonic()
        try:
            data: bytes = client.recv(size)
        finally:
            self.waiting.pop(client, None)
        self.next_turn()  # whoever sends tiny chunks without a pause never makes it wait
        return data

    def pass_over(self, client: Any, reader: Reader, request: HttpRequest) -> bool:
        """Read what the application left of a body, if it is little; whether the next request can be told behind it."""
        body, left = request.body, BLOCK
        if reader.error or not body or body.failed:
            return False
        self.idle[client] = time.monotonic()
        try:
            while not request.complete:
                left -= sum(map(len, body.raw.pieces))
                body.raw.pieces.clear()
                if left < 0 or not reader.more():
                    return False
        finally:
            self.idle.pop(client, None)
        return True

    def answer(self, client: Any, request: HttpRequest) -> bool:
        """Answer a request; whether another may follow."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        answer = Answer(request, client, self.cfg)
        if not self.alive:
            answer.force_close()
        try:
            blocks = self.wsgi(request.environ, answer.start_response)
            try:
                for block in blocks:
                    answer.write(block)
                answer.close()
            finally:
                if hasattr(blocks, "close"):
                    blocks.close()
        except StopIteration:  # a WebSocket has had the connection
            return False
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("Error handling request")
            return False
        return not answer.should_close()
