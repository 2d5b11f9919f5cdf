"""The worker: what it reads is what gunicorn and h11 read, or it refuses; nothing holds it for ever."""

import gc
import io
import json
import random
import re
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import combinations, product
from socket import MSG_PEEK
from typing import NamedTuple

import h11
import psutil
import pytest
from gunicorn.config import Config
from gunicorn.http.errors import (
    InvalidHeader,
    InvalidRequestLine,
    InvalidRequestMethod,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from tests.conftest import ROOT, first, serve, wait_for
from worker import Limits, Reader

RAW = ROOT.parent / "shared/data/http-raw"

LIMITS = Limits(8190, 100, 8190)

COMMON = {"SCRIPT_NAME": "", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}

SCHEMES = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_PROTOCOL": "ssl", "HTTP_X_FORWARDED_SSL": "on"}

CLIENT, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8000)

GET = b"GET /ping HTTP/1.1\r\nHost: [::1]\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n%b\r\n\r\n"


class Seen(NamedTuple):
    """A request as a reader sees it: its body None where that is cut or malformed."""

    environ: dict[str, str]
    body: bytes | None
    closes: bool


class Read(NamedTuple):
    """What a reader makes of bytes: the requests that it sees, and why it refuses what follows them."""

    requests: list[Seen]
    error: Exception | None


def relevant(environ: dict) -> dict[str, str]:
    names = {"REQUEST_METHOD", "RAW_URI", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "wsgi.url_scheme"}
    return {name: text for name, text in environ.items() if name in names or name.startswith(("HTTP_", "CONTENT_"))}


def as_we_read(pieces: Iterable[bytes], limits: Limits = LIMITS) -> Read:
    reader = Reader(lambda _: next(pieces, b""), COMMON, limits, SCHEMES)
    pieces, requests = iter(pieces), []
    with suppress(ParseException):
        while reader.requests or reader.more():
            if not reader.requests:
                continue
            asked = reader.requests.popleft()
            try:
                body = asked.environ["wsgi.input"].read()
            except (ParseException, NoMoreData):
                body = None
            while body is not None and not asked.complete and reader.more():
                pass
            requests.append(Seen(relevant(asked.environ), body, asked.should_close()))
            if body is None or asked.should_close():
                break
    # What comes behind a request that closes is for nobody.
    return Read(requests, None if requests and requests[-1].closes else reader.error)


def as_gunicorn_reads(data: bytes, limits: Limits = LIMITS) -> Read:
    config = Config()
    config.set("limit_request_line", limits.line)
    config.set("limit_request_fields", limits.headers)
    config.set("limit_request_field_size", limits.header)
    parser, requests = RequestParser(config, iter([data]), CLIENT), []
    try:
        for request in parser:
            environ = create(request, Ears(), CLIENT, SERVER, config)[1]
            try:
                body = request.body.read()
            except (ParseException, NoMoreData):
                body = None
            if "CONTENT_LENGTH" in environ and len(body) != int(environ["CONTENT_LENGTH"]):
                body = None
            closes = request.should_close()
            requests.append(Seen(relevant(environ), body, closes))
            if body is None or closes:
                break
    except ParseException as error:
        return Read(requests, error)
    except NoMoreData:
        pass
    return Read(requests, None)


class Ears(io.BytesIO):
    """A socket that is told to go on."""

    send = io.BytesIO.write


def as_h11_reads(data: bytes) -> Read:
    """As the others, but with a header's value as h11 has it, and no environment beside method, target and headers."""
    connection, requests = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20), []
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        while type(event := connection.next_event()) is h11.Request:
            environ: dict[str, str] = {"REQUEST_METHOD": event.method.decode(), "RAW_URI": event.target.decode()}
            for name, value in event.headers:
                key = name.decode().upper().replace("-", "_")
                key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
                if b"_" not in name:
                    environ[key] = ",".join([*([environ[key]] if key in environ else []), value.decode("latin-1")])
            body: bytes | None = b""
            requests.append(Seen(environ, None, False))
            while type(part := connection.next_event()) is h11.Data:
                body += part.data
            if type(part) is not h11.EndOfMessage:
                return Read(requests, None)
            closes = connection.their_state is h11.MUST_CLOSE
            requests[-1] = Seen(environ, body, closes)
            if closes or connection.their_state is not h11.DONE:
                return Read(requests, None)
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return Read(requests, None)
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return Read(requests, error)
    return Read(requests, None)


def differences(data: bytes) -> Iterator[str]:
    """Where the other readers see something else than ours, of what ours and they take."""
    ours = as_we_read([data])
    for name, theirs in (("gunicorn", as_gunicorn_reads(data)), ("h11", as_h11_reads(data))):
        for our, their in zip(ours.requests, theirs.requests, strict=False):
            keys = their.environ.keys() if name == "h11" else our.environ.keys() | their.environ.keys()
            for key in keys:
                # Whom a target names is the Host for us alone.
                named = key == "HTTP_HOST" and "://" in our.environ["RAW_URI"]
                if our.environ.get(key) != their.environ.get(key) and not named:
                    yield f"{name}: {key} {our.environ.get(key)!r} {their.environ.get(key)!r}"
            if None not in (our.body, their.body) and our.body != their.body:
                yield f"{name}: body {our.body!r} {their.body!r}"
        # Methods, schemes and hosts of nobody's, and bodies of other codings, which gunicorn passes on as they are.
        known = isinstance(ours.error, InvalidRequestMethod | UnsupportedTransferCoding) or " url" in str(ours.error)
        known = known or (b"://" in data and isinstance(ours.error, InvalidRequestLine | InvalidHeader))
        if name == "gunicorn" and len(ours.requests) < len(theirs.requests) and not known:
            yield f"gunicorn: reads what we refuse: {ours.error}"
        # Several blanks around a target, empty lines before a request and empty members of a list mean nothing else so.
        lenient = b"  " in data or b"\r\n\r\n\n" in data or re.search(rb"(?i)connection:[ \t]*,", data)
        if name == "gunicorn" and len(ours.requests) > len(theirs.requests) and not lenient:
            yield f"gunicorn: refuses what we read: {theirs.error}"


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
TARGETS = st.from_regex(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,20}(\?[!$-~]{0,20})?", fullmatch=True)
NAMES = st.from_regex(r"X-[!#$%&'*+.^`|~0-9A-Za-z-]{1,12}", fullmatch=True) | st.sampled_from(
    ["Accept", "ACCEPT", "Content-Type", "If-Match", "X-Request-Id", "Cookie", "Authorization", "X-Forwarded-Proto"]
)
VALUES = st.text(st.characters(max_codepoint=255, categories=["L", "N", "P", "S"]), max_size=20) | st.sampled_from(
    ["https", "a, b", "a\tb", '"é"', " x ", ""]
)
HEADERS = st.lists(st.tuples(NAMES, st.sampled_from([": ", ":", ":\t"]), VALUES), max_size=6)
BODIES = st.one_of(
    st.just(b"\r\n"),
    st.binary(max_size=30).map(lambda body: b"Content-Length: %d\r\n\r\n%b" % (len(body), body)),
    st.lists(st.binary(min_size=1, max_size=20), max_size=3).map(
        lambda parts: (
            b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
            % b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        )
    ),
)
ODD = st.sampled_from(
    [
        *(b"X_Forwarded_Proto: https", b"If_Match: 1", b"_: _", b"Host: b", b"host: [::1]", b"Content-Type: x"),
        *(b"Content-Length: 3", b"Content-Length: +3", b"Content-Length: 3, 3", b"Transfer-Encoding: gzip, chunked"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Expect: wonders"),
        *(b"Connection: close", b"Connection: Keep-Alive", b"X-Forwarded-Proto: http", b"X-Forwarded-Ssl: on"),
        *(
            b"A : b",
            b" A: b",
            b"A: b\r\n c",
            b"A: b\nB: c",
            b"A: \x00",
            b"A: \x7f",
            b": x",
            b"A",
            b"A: b\rC: d",
            b"\xe9: x",
        ),
    ]
)


def written(method: str, target: str, headers: list[tuple[str, str, str]], body: bytes, odd: list[bytes]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: [::1]", *("".join(header) for header in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + b"".join(line + b"\r\n" for line in odd) + body


def check_read_as_others_read(odd: st.SearchStrategy, at_least: float, examples: int) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow], deadline=None, derandomize=True)
    @given(st.lists(st.builds(written, METHODS, TARGETS, HEADERS, BODIES, odd), min_size=1, max_size=3))
    def check(requests: list[bytes]) -> None:
        data = b"".join(requests)
        assert not [*differences(data)]
        read = as_we_read([data]).requests
        counts.update(asked=len(requests), read=len(read), headers=sum(len(seen.environ) > 8 for seen in read))

    check()
    assert counts["read"] >= at_least * counts["asked"], counts
    assert counts["headers"] >= at_least * counts["asked"] / 2, counts


def test_a_verb_of_nobodys_is_read_but_never_out_of_a_body():
    [brew] = as_we_read([b"BREW /pot HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"]).requests
    assert (brew.environ["REQUEST_METHOD"], brew.environ["RAW_URI"], brew.body) == ("BREW", "/pot", b"x")
    head, hidden = (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n",
        b"BREW /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    for cuts in ([head, hidden.ljust(60) + hidden], [head + b"a", hidden.ljust(59) + hidden]):
        assert [seen.environ["REQUEST_METHOD"] for seen in as_we_read(cuts).requests] == ["POST"]


@pytest.mark.parametrize("examples", first(1, [100, 1000]))
def test_what_is_plain_is_read_as_others_read_it(examples):
    check_read_as_others_read(st.just([]), 0.9, examples)


@pytest.mark.parametrize("examples", first(1, [400, 1000]))
def test_what_is_odd_is_read_as_others_read_it_or_refused(examples):
    check_read_as_others_read(st.lists(ODD, max_size=1), 0.4, examples)


def raw(kind: str) -> dict[str, bytes]:
    """The requests of gunicorn's own tests, by name; their line ends are written out."""
    if not RAW.exists():
        pytest.skip("../shared/data/http-raw is not here")
    escapes = ((b"\n", b""), (b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\r", b"\r"), (b"\\t", b"\t"))
    found = {}
    for path in sorted((RAW / kind).glob("*.http")):
        data = path.read_bytes()
        for escape, byte in escapes:
            data = data.replace(escape, byte)
        found[path.stem] = data
    return found


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_the_requests_of_gunicorns_tests_are_read_as_others_read_them(kind):
    for name, data in raw(kind).items():
        assert not [*differences(data)], (name, data)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """With a byte or two left out, doubled, or made another that means something in HTTP."""
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(data))
        piece = chance.choice([b"", data[at : at + 1] * 2, *(bytes([byte]) for byte in b"\r\n :;,\t\0_\x01\xe9\x7f#?")])
        data = data[:at] + piece + data[at + 1 :]
    return data


@pytest.mark.parametrize("kind", ["valid", "invalid"])
@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.thorough)])
def test_mutations_of_them_are_read_as_others_read_them(kind, rounds):
    chance = random.Random(7)
    for name, data in raw(kind).items():
        for _ in range(rounds if len(data) < 2000 else 1):
            changed = mutated(data, chance)
            assert not [*differences(changed)], (name, changed)


SAMPLES = [
    GET * 2,
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET,
    POST % (b"/a", b"Transfer-Encoding: chunked") + b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n" + GET,
    b"GET /%41?b HTTP/1.0\r\nConnection: keep-alive\r\nA: b\r\na:  c \r\n\r\n" + GET,
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + GET,
    *[
        b"%b / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b" % (method, protocol, body) + GET
        for method in (b"GET", b"POST", b"DELETE")
        for protocol in (b"websocket", b"h2c")
        for body in (
            b"Content-Length: 0\r\n\r\n",
            b"Content-Length: %d\r\n\r\n%b" % (len(GET), GET),
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(GET), GET),
        )
    ],
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nIf_Match: b\r\n\r\nGET / HTTP/3.0\r\n\r\n",
]


def test_a_request_is_the_same_wherever_it_is_cut():
    requests = [*SAMPLES, *raw("valid").values(), *raw("invalid").values()] if RAW.exists() else SAMPLES
    for data in requests:
        whole = as_we_read([data])
        ends = range(1, len(data))
        pairs = combinations(ends, 2) if len(data) < 80 else ()
        for cuts in [[each] for each in (ends if len(data) < 2000 else ends[::97])] + [*pairs]:
            pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            read = as_we_read(pieces)
            assert read.requests == whole.requests, (data, cuts)
            assert bool(read.error) == bool(whole.error), (data, cuts)
        assert as_we_read(data[at : at + 1] for at in range(len(data))).requests == whole.requests, data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "InvalidHeader"),
        (b"GET / HTTP/1.1\r\nContent-Type: a\r\nContent-Type: a\r\n\r\n", "InvalidHeader"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "InvalidHeader"),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "InvalidHeader"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "UnsupportedTransferCoding"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "InvalidHTTPVersion"),
        (b"GET / HTTP/2.0\r\n\r\n", "InvalidHTTPVersion"),
        (b"GET * HTTP/1.1\r\n\r\n", "InvalidRequestLine"),
        (b"GET a:80 HTTP/1.1\r\n\r\n", ""),
        (b"GET /\xe9 HTTP/1.1\r\n\r\n", "InvalidHeader"),
        (b"got / HTTP/1.1\r\n\r\n", "InvalidRequestMethod"),
        (b"GET / HTTP/1.1\r\nExpect: wonders\r\n\r\n", "ExpectationFailed"),
        (b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n", "InvalidSchemeHeaders"),
        (GET.replace(b"\r\n", b"\n"), "InvalidHeader"),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "InvalidHeader"),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", "InvalidHeader"),
    ],
)
def test_what_means_two_things_is_refused(data, error):
    read = as_we_read([data])
    assert not read.requests
    assert error in type(read.error).__name__


SIZES = [1, 2, 20, 60, 500, 511, 512, 513, 600, 8188, 8189, 8190]


def sized(line: int, headers: int, header: int) -> bytes:
    """A request whose line has so many bytes, and so many headers, the last of so many with its end."""
    few = [f"a{number}: " for number in range(headers - 1)]
    return "\r\n".join([f"GET /{'x' * (line - 14)} HTTP/1.1", *few, f"b: {'x' * (header - 5)}", "\r\n"]).encode()


@pytest.mark.parametrize("which", Limits._fields)
def test_every_limit_is_held_as_gunicorn_holds_it(which):
    kinds = set()
    for limit in SIZES:
        limits = LIMITS._replace(**{which: limit})
        for size in {limit - 2, limit - 1, limit, limit + 1, limit + 2, 2 * limit, 511, 512, 513, 514, 515, 516}:
            sizes = {"line": 20, "headers": 1, "header": 10} | {which: size}
            if sizes["line"] < 14 or not 1 <= sizes["headers"] <= 200 or sizes["header"] < 5:
                continue
            ours, theirs = as_we_read([sized(**sizes)], limits), as_gunicorn_reads(sized(**sizes), limits)
            assert type(ours.error) is type(theirs.error), (limits, sizes)
            kinds.add(type(ours.error))
    assert kinds == {type(None), LimitRequestLine if which == "line" else LimitRequestHeaders}


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nA: ",
        b"GET / HTTP/1.1\r\nA",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=",
    ],
)
def test_nothing_that_never_ends_is_kept(begun):
    """More of it than all that may be is refused, in whatever pieces it comes."""
    limits = Limits(500, 5, 500)
    reader = Reader(lambda _: b"", COMMON, limits, {})
    reader.feed(begun)
    fed = 0
    while not reader.error:
        reader.feed(b"x" * 300)
        fed += 300
        assert fed < 100_000
    assert isinstance(reader.error, LimitRequestLine | LimitRequestHeaders)


HOSTS = [
    *([], [""], ["[::1]", "[::1]"], ["[::1]", "a"], ["a b"], ["a,b"], ["a/b"], ["u@[::1]"], ["[::1"], ["[::g]"]),
    *(["[::1]:x"], [":80"], ["[::1]:123456"], ["é"], ["http://[::1]"], ["a?b"], ["a#b"], ["%5B::1]"]),
    *(["[127.0.0.1]"], ["[v1.x]"], ["[1::2::3]"], ["[]"], ["[::1%lo]"], ["..localhost"], ["localhost:65536"]),
]


@pytest.mark.parametrize(
    "more", ["", "Connection: close\r\n", "X_A: b\r\n", "Transfer-Encoding: chunked\r\n", "H_ost: [::1]\r\n"]
)
def test_a_request_says_once_and_well_formed_to_whom_it_speaks_whoever_reads_it(service, more):
    end = "0\r\n\r\n" if "chunked" in more else ""
    for hosts in HOSTS:
        for line in ("GET /users//1 HTTP/1.1", "GET /users/1 HTTP/1.1", "DELETE /nowhere HTTP/1.1"):
            lines = [line, *[f"Host: {host}" for host in hosts], more + "\r\n" + end]
            head, _, body = said(service, "\r\n".join(lines).encode("latin-1"), pause=0).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 "), (hosts, line)
            assert b"Content-Type: application/problem+json" in head
            assert b"\nLocation:" not in head
            assert json.loads(body)["request_id"]


AUTHORITIES = {
    "evil.example": 421,
    "evil.example:8000": 421,
    "localhost": 200,
    "LOCALHOST:80": 200,
    "[::1]:8000": 200,
    **dict.fromkeys(("", ":80", "user@localhost", "localhost@", "[127.0.0.1]", "..localhost", "localhost:65536"), 400),
    **dict.fromkeys(("localhost:x", "[::1", "localhost,evil.example", "%6cocalhost"), 400),
}
"""What may stand in a target before its path, and how that is answered without tokens."""


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_a_target_with_an_authority_says_to_whom_it_speaks(service, more):
    """It is what the Host would be (RFC 9112, 3.2.2), which must be there and well-formed all the same."""
    for scheme in ("http", "https", "HTTP"):
        for authority, status in AUTHORITIES.items():
            for host, path in product(("localhost", "evil.example", authority), ("/ping", "/ping?")):
                line = f"GET {scheme}://{authority}{path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"
                assert answered(service, line) == (400 if host == authority and status == 400 else status), line
        for hosts in ([], ["a b"], ["[127.0.0.1]"], ["localhost", "localhost"], ["localhost:65536"]):
            head = "".join(f"Host: {host}\r\n" for host in hosts)
            assert answered(service, f"GET {scheme}://localhost/ping HTTP/1.1\r\n{head}{more}\r\n") == 400, hosts
    assert answered(service, f"GET http://localhost/ping HTTP/1.0\r\n{more}\r\n") == 200
    assert answered(service, f"GET http://evil.example/ping HTTP/1.0\r\n{more}\r\n") == 421
    for scheme in ("ftp", "ws", "file"):
        assert answered(service, f"GET {scheme}://localhost/ping HTTP/1.1\r\nHost: localhost\r\n{more}\r\n") == 400


@pytest.mark.parametrize("method", ["POST", "BREW"])
def test_a_page_is_of_the_origin_that_the_target_names(service, method):
    for authority, origin, own in (
        ("localhost:1", "http://localhost:1", True),
        ("localhost:1", "http://localhost:2", False),
    ):
        line = f"{method} http://{authority}/users HTTP/1.1\r\nHost: localhost:2\r\nOrigin: {origin}\r\n\r\n"
        assert (answered(service, line) != 403) is own


def answered(service, head: str) -> int:
    """The status of what a head is answered."""
    return int(said(service, head.encode("latin-1"), pause=0).split(b" ", 2)[1])


def test_without_a_host_older_http_is_refused_too(service):
    assert said(service, b"GET /ping HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 400 ")


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
def test_a_name_with_an_underscore_is_no_header(service, more):
    """In WSGI's environment it would be another one."""
    for name in ("If_Match", "X_Request_Id", "Host_", "Content_Length", "Transfer_Encoding", "X-Request_Id"):
        heard = said(service, f"GET /ping HTTP/1.1\r\nHost: [::1]\r\n{name}: 999\r\n{more}\r\n".encode(), pause=0)
        assert heard.startswith(b"HTTP/1.1 200 OK"), name
        assert b"999\r\n" not in heard


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize(
    "length", ["Content-Length: 5\r\n\r\nHello", "Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n"]
)
def test_a_request_with_a_body_is_gone_once_nobody_holds_it(length, read):
    """Not only when the collector comes: until then what it holds would wait, too."""
    reader = Reader(lambda _: b"", COMMON, LIMITS, {})
    reader.feed(f"POST / HTTP/1.1\r\nHost: x\r\n{length}".encode())
    request = reader.requests.popleft()
    if read:
        assert request.body.read() == b"Hello"
    gone = weakref.ref(request)
    del reader.parser  # as the worker does
    gc.disable()
    try:
        del reader, request
        assert gone() is None
    finally:
        gc.enable()


def said(service, *pieces: bytes, answers: int = 1, pause: float = 0.05) -> bytes:
    """What the service answers to bytes that come piece by piece on one connection."""
    with service.raw() as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(pause)  # a slow peer: a segment of its own
        heard = b""
        while heard.count(b"HTTP/1.1 ") < answers or not heard.endswith(b"}\n"):
            some = client.recv(65536)
            if not some:
                break
            heard += some
        return heard


def test_requests_that_come_together_are_answered_in_their_order(service):
    asked = [GET.replace(b"/ping", b"/users/%d" % id) for id in (2**40, 2**41)]
    heard = said(service, b"".join([GET, *asked, GET]), answers=4)
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(b"HTTP/1.1 404 NOT FOUND") == 2
    assert heard.index(b"404") > heard.index(b"200") < heard.rindex(b"404") < heard.rindex(b'{"now"')


def answered_between(service, many: int) -> bool:
    """Whether somebody is answered while somebody else still waits for the last of many answers."""
    with service.raw() as crowd, service.raw() as other:
        crowd.sendall(GET * many)
        crowd.recv(1, MSG_PEEK)
        other.sendall(GET)
        other.recv(1000)
        crowd.setblocking(False)
        came = bytearray()
        with suppress(BlockingIOError):
            while some := crowd.recv(2**20):
                came += some
        return came.count(b"HTTP/1.1 200 ") < many


def test_who_asks_much_at_once_does_not_keep_others_waiting_for_all_of_it(database):
    with serve(database, WORKERS="1") as service:
        assert any(answered_between(service, 500) for _ in range(10))


CHUNKS = b"1\r\n \r\n" * 2**20 + b"0\r\n\r\n"

CHUNKED = b"Transfer-Encoding: chunked"

TAKEN = {
    "what is not there": POST % (b"/nope", CHUNKED),
    "what is wanted": POST.replace(b"application/json", b"text/csv") % (b"/upload/jobs?mode=dry-run", CHUNKED),
    "what is too large": POST % (b"/users/search", CHUNKED),
}


def longest_part(service, sent: bytes) -> float:
    """Which part of the time that one client's chunks take another waits for a single answer, at most."""
    waits = []

    def send(client):
        client.sendall(sent + CHUNKS)
        client.recv(1000)
        with suppress(ConnectionError):  # what is too large ends it
            client.sendall(GET)
            client.recv(1000)

    with service.raw() as crowd, service.raw() as other, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, crowd)
        while not sending.done():
            began = time.monotonic()
            other.sendall(GET)
            other.recv(1000)
            waits.append(time.monotonic() - began)
        sending.result()
    return max(waits) / sum(waits)


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN)
def test_who_sends_tiny_chunks_without_a_pause_leaves_turns_to_others(database, sent):
    """A turn for each block that is read, whatever it holds: ninety blocks here."""
    with serve(database, WORKERS="1") as service:
        assert any(longest_part(service, sent) < 0.2 for _ in range(5))


def test_a_head_in_pieces_is_answered_too(service):
    for at in (1, 10, len(GET) - 1):
        assert said(service, GET[:at], GET[at:]).startswith(b"HTTP/1.1 200 OK")


def test_a_body_may_come_later_or_in_part(service):
    body = b'{"email": "slow%d@example.com", "name": "S", "address": "A", "image": "http://x.example/y"}'
    for number, at in enumerate((0, 1, 40)):
        sent = body % number
        head = (
            b"POST /users HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(sent)
        )
        heard = said(service, head + sent[:at], sent[at:] + GET, answers=2)
        assert heard.startswith(b"HTTP/1.1 201 CREATED")
        assert heard.count(b"HTTP/1.1 200 OK") == 1


def test_what_nobody_read_of_a_body_is_not_taken_for_a_request(service):
    hidden = b"GET /users/1 HTTP/1.1\r\n\r\n"
    for path in (b"/ping", b"/", b"/nowhere"):
        head = b"GET %b HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n" % (path, len(hidden))
        heard = said(service, head, hidden, GET, answers=2)
        assert heard.count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize("offer", [b"websocket", b"h2c", b"x", b"websocket\r\nSec-WebSocket-Version: 13"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d\r\n\r\n%b", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("path", first(1, [b"/projects", b"/ws/events", b"/ping", b"/nowhere"]))
def test_what_comes_with_an_offer_to_upgrade_is_a_body_and_no_request(service, unique, path, framing, offer):
    name = unique("smuggled").encode()
    made = b'{"name": "%b"}' % name
    hidden = POST % (b"/projects", b"Content-Length: %d" % len(made)) + made
    for method, cut in ((b"GET", False), (b"POST", False), (b"POST", True)):
        head = b"%b %b HTTP/1.1\r\nHost: [::1]\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % (method, path, offer)
        head += b"Content-Type: application/json\r\n"
        asked = head + framing % (len(hidden), hidden)
        at = asked.index(b"\r\n\r\n") + 4 + 9 * cut
        heard = said(service, asked[:at], asked[at:], GET, answers=2)
        assert heard.count(b"HTTP/1.1 ") <= 2 and b"201 CREATED" not in heard, heard
    assert service.get("/projects", params={"name": name.decode()}).json()["items"] == []


def test_an_offer_to_upgrade_is_ignored_with_the_body_of_its_request(service, unique):
    made = b'{"name": "%b"}' % unique("offered").encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    heard = said(service, POST % (b"/projects", offer + b"Content-Length: %d" % len(made)) + made + GET, answers=2)
    assert heard.startswith(b"HTTP/1.1 201 CREATED") and heard.count(b"HTTP/1.1 200 OK") == 1


def test_a_plain_request_and_one_that_is_not_share_a_connection(service):
    chunked = (
        b"POST /events HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = b'{"user_id": "u", "description": "d"}'
    heard = said(service, GET, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), GET, answers=3)
    assert heard.count(b"HTTP/1.1 200 OK") == 2
    assert heard.count(b"HTTP/1.1 201 CREATED") == 1


def test_a_client_that_waits_for_leave_is_told_to_go_on(service):
    body = b'{"user_id": "u", "description": "d"}'
    head = POST % (b"/events", b"Content-Length: %d\r\nExpect: 100-Continue" % len(body))
    heard = said(service, head, body)
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 CREATED")


UNASKED = {
    "no route": (b"/nothing", b"", 404),
    "no such method": (b"/ping", b"", 405),
    "too long": (b"/events", b"", 413),
    "another host": (b"/events", b"\r\nHost: example.com", 400),
    "a foreign page": (b"/events", b"\r\nOrigin: http://a.example", 403),
    "not acceptable": (b"/events", b"\r\nAccept: image/png", 406),
    "a bad token": (b"/events", b"\r\nAuthorization: Bearer x", 401),
    "no file": (b"/upload/departments", b"", 415),
}


@pytest.mark.parametrize(("path", "headers", "status"), UNASKED.values(), ids=UNASKED)
def test_a_client_that_waits_for_leave_is_told_at_once_what_is_refused_without_its_body(service, path, headers, status):
    with service.raw() as client:
        client.sendall(POST % (path, b"Content-Length: 900000000\r\nExpect: 100-continue" + headers))
        heard = b"".join(iter(lambda: client.recv(65536), b""))
    assert heard.startswith(b"HTTP/1.1 %d " % status), heard
    assert b"\r\nConnection: close\r\n" in heard and b"100 Continue" not in heard


def test_a_body_that_comes_before_leave_is_given_is_read(service):
    body = b'{"user_id": "u", "description": "d"}'
    head = POST % (b"/events", b"Content-Length: %d\r\nExpect: 100-continue" % len(body))
    heard = said(service, head + body, GET, answers=2)
    assert heard.startswith(b"HTTP/1.1 201 CREATED") and heard.count(b"HTTP/1.1 200 OK") == 1


def test_older_http_is_answered_as_such(service):
    asked = b"GET /ping HTTP/1.0\r\nHost: [::1]\r\n%b\r\n"
    with service.raw() as client:
        client.sendall(asked % b"Connection: keep-alive\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.0 200 OK")
        client.sendall(asked % b"Expect: 100-continue\r\n")
        heard = b"".join(iter(lambda: client.recv(65536), b""))
    assert heard.startswith(b"HTTP/1.0 200 OK")
    assert b"\r\nConnection: close\r\n" in heard


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\nExpect: wonders\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET /%b HTTP/1.1\r\nHost: [::1]\r\n\r\n" % (b"x" * 9000), 414),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n%b\r\n" % (b"A: b\r\n" * 101), 431),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\nA: %b\r\n\r\n" % (b"x" * 9000), 431),
        *(
            (b"GET /ping HTTP/1.1\r\nHost: [::1]\r\n%b\r\n" % (b"%b: %b\r\n" % (name, b"a, " * 1000) * times), 431)
            for name in (b"Accept", b"If-None-Match", b"If-Match", b"Cookie", b"X-Forwarded-For", b"X-Any", b"Prefer")
            for times in (3, 60)
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (POST % (b"/events", b"Transfer-Encoding: chunked") + b"5\r\n{}", 400),
        (POST % (b"/events", b"Transfer-Encoding: chunked") + b"2\r\n{}0\r\n\r\n", 400),
        (POST % (b"/events", b"Content-Length: 9") + b"{}", 400),
    ],
)
def test_what_is_refused_is_told_as_a_problem_and_ends_its_connection(service, asked, status):
    with service.raw() as client:
        client.sendall(asked)
        client.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status


def test_head_and_not_modified_have_no_body(service):
    asked = b"HEAD /ping HTTP/1.1\r\nHost: [::1]\r\n\r\n"
    heard = said(service, asked + GET, answers=2)
    first, _, rest = heard.partition(b"\r\n\r\n")
    assert b"Content-Length: " in first
    assert rest.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.thorough
def test_an_idle_connection_is_closed_in_time_wherever_its_request_stopped(database):
    with serve(database, IDLE_TIMEOUT="1", BODY_TIMEOUT="1") as service:
        for begun in (b"", GET, GET[:10], b"GET /ping HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 9\r\n\r\nabc"):
            with service.raw() as client:
                client.sendall(begun)
                while client.recv(65536):
                    pass


def test_a_service_that_stops_ends_idle_connections_at_once(database):
    running = serve(database, IDLE_TIMEOUT="60")
    with running as service, service.raw() as client:
        client.sendall(GET)
        assert client.recv(65536)
        client.settimeout(5)
        running.process.terminate()
        assert client.recv(65536) == b""
        assert running.process.wait(15) == 0


BEGUN = [b"", b"G", GET, GET[:-2], b"POST /users HTTP/1.1\r\nConnection: keep-alive, x\r\n", b"GET / HTTP/1.0\r\nA: "]
"""Where connections stop that ask nothing more: before a head, after an answer, within one."""


def dribble(clients: list[socket.socket], done: threading.Event) -> None:
    """Send a byte of a head on each from time to time."""
    while not done.wait(0.2):
        for client in clients:
            with suppress(OSError):
                client.sendall(b"x")


def test_idle_connections_make_room_and_those_that_are_asked_on_stay(database):
    """Three times as many connections as there are places: none is refused, none is cut that is asked on."""
    with (
        serve(database, WORKERS="1", CONNECTIONS_LIMIT="12", BODY_TIMEOUT="300") as service,
        ExitStack() as open_ones,
        ThreadPoolExecutor(1) as other,
    ):
        url = service.url.replace("http:", "ws:") + "/ws/events"
        channel = open_ones.enter_context(connect(url))
        assert json.loads(channel.recv(10))["type"] == "subscribed"
        body = b'{"email": "slow@example.com", "name": "S", "address": "A", "image": "http://x.example/y"}'
        slow = open_ones.enter_context(service.raw())
        length = b"Content-Length: %d" % len(body)
        slow.sendall(POST % (b"/users", length) + body[:9])
        late = open_ones.enter_context(service.raw())
        late.sendall(POST % (b"/users", length + b"\r\nConnection: close") + body[:9])
        done = threading.Event()
        idle = []
        try:
            for number in range(36):
                idle.append(open_ones.enter_context(service.raw()))
                idle[-1].sendall(BEGUN[number % len(BEGUN)])
                if number == 12:
                    other.submit(dribble, idle, done)
                if number > 12:
                    began = time.monotonic()
                    with service.raw() as honest:
                        honest.sendall(GET)
                        assert honest.recv(1000).startswith(b"HTTP/1.1 200 OK"), number
                    assert time.monotonic() - began < 5, "they wait for IDLE_TIMEOUT"
        finally:
            done.set()
        for client in (slow, late):
            client.sendall(body[9:])
            assert client.recv(1000).startswith((b"HTTP/1.1 201 CREATED", b"HTTP/1.1 409 CONFLICT"))
        assert service.get("/users/1").status_code == 200
        service.post("/users", json=json.loads(body.replace(b"slow@", b"seen@")))
        assert json.loads(channel.recv(10))


@pytest.mark.thorough
def test_who_waits_for_a_place_has_the_first_that_becomes_idle(database):
    """At first there is none: something is asked on all of them."""
    with serve(database, WORKERS="1", CONNECTIONS_LIMIT="12", BODY_TIMEOUT="30") as service, ExitStack() as open_ones:
        busy = []
        for _ in range(12):
            busy.append(client := open_ones.enter_context(service.raw()))
            client.sendall(POST % (b"/users", b"Content-Length: 9") + b'{"a"')
        time.sleep(1)  # a slow peer
        waiting = open_ones.enter_context(service.raw())
        waiting.sendall(GET)
        time.sleep(1)  # a slow peer
        for client in busy:
            client.sendall(b": 70}")
            assert client.recv(1000).startswith(b"HTTP/1.1 422")
        waiting.settimeout(5)
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.thorough
def test_who_sends_nothing_of_a_body_makes_room_for_those_who_come(database):
    """However many begin a body and stop, on any route: whoever comes waits for the longest of them, and no more."""
    begun = [
        POST % (b"/users/search", b"Content-Length: 900") + b"{",
        POST % (b"/upload/departments", b"Content-Length: 900") + b"i",
        POST % (b"/events", b"Transfer-Encoding: chunked") + b"5\r\n{",
        POST % (b"/ping", b"Content-Length: 900") + b"{",
    ]
    with serve(database, WORKERS="1", CONNECTIONS_LIMIT="12", BODY_TIMEOUT="300") as service, ExitStack() as open_ones:
        for number in range(36):
            open_ones.enter_context(service.raw()).sendall(begun[number % len(begun)])
        for _ in range(3):
            with service.raw() as honest:
                honest.settimeout(40)
                honest.sendall(GET)
                assert honest.recv(1000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.thorough
def test_whoever_has_asked_already_makes_no_room(database):
    """What is asked on all of them comes in the same moment as the one who takes the last place."""
    with ExitStack() as open_ones:
        running = serve(database, CONNECTIONS_LIMIT="12", BODY_TIMEOUT="30")
        service = open_ones.enter_context(running)
        (worker,) = psutil.Process(running.process.pid).children()
        wait_for(lambda: not [each for each in worker.net_connections("tcp") if each.raddr])
        asked = [open_ones.enter_context(service.raw()) for _ in range(11)]
        for client in asked:
            client.sendall(GET)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        worker.suspend()
        open_ones.callback(worker.resume)
        for client in asked:
            client.sendall(POST % (b"/users", b"Content-Length: 9") + b'{"a"')
        waiting = open_ones.enter_context(service.raw())
        waiting.sendall(GET)
        worker.resume()
        time.sleep(1)  # a slow peer
        for client in asked:
            client.sendall(b": 70}")
            assert client.recv(1000).startswith(b"HTTP/1.1 422")
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_the_connection_that_is_idle_longest_makes_room(database):
    with serve(database, WORKERS="1", CONNECTIONS_LIMIT="12", IDLE_TIMEOUT="60") as service, ExitStack() as open_ones:
        idle = []
        for _ in range(16):
            idle.append(open_ones.enter_context(service.raw()))
            idle[-1].sendall(GET)
            assert idle[-1].recv(1000).startswith(b"HTTP/1.1 200 OK")
        for client in idle[:3]:
            assert client.recv(1000) == b""
        for client in idle[-8:]:
            client.sendall(GET)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
