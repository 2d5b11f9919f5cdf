"""The body of a request: JSON within its limits, and the rest of what nobody read."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

import gevent
from flask import Response, abort, after_this_request, current_app, g, request
from gunicorn.http.errors import NoMoreData, ParseException

from db.cooperate import next_turn
from handlers.http.auth import ROLES, is_still_admitted, refuse
from handlers.http.problems import ProblemException, shortened
from handlers.http.tokens import NO_LONGER_GOOD

JSON = "application/json"

PATCHES = (JSON, "application/merge-patch+json")
"""What PATCH takes: null takes a value away, as RFC 7396 has it."""

COMMA_LIMIT = BRACKET_LIMIT = 20_000
"""Commas of a JSON body, and brackets that open, those in texts too: its values are no more than both together."""

MEMBER_LIMIT = 1000
"""Members of a JSON body: many more than any has that somebody knows."""

UNREAD_LIMIT = 2**25
"""Bytes of a body that nobody wants, for which a connection is kept."""

BLOCK = 2**18
"""Bytes of them that are read at once."""


def sends_any() -> bool:
    """Whether there is a body."""
    environ = request.environ
    return environ.get("CONTENT_LENGTH", "0") not in ("0", "") or "HTTP_TRANSFER_ENCODING" in environ


def json_body() -> Any:
    """The JSON body. 400 for what is not JSON, 415 for another type, 422 too full; else as `whole_body`."""
    check_kind()
    body = whole_body()
    # A mebibyte of values takes 60 ms to read and a hundred times as long to check: counted before anybody looks in.
    if body.count(b",") > COMMA_LIMIT:
        raise ProblemException("too-full", f"The body has more than {COMMA_LIMIT} commas.")
    if body.count(b"[") + body.count(b"{") > BRACKET_LIMIT:
        raise ProblemException("not-json", f"The body is nested too deeply: more than {BRACKET_LIMIT} brackets open.")
    try:
        found = DECODER.decode(body.decode())
    except UnicodeDecodeError:
        raise ProblemException("not-json", "The body is not UTF-8.") from None
    except RecursionError:
        raise ProblemException("not-json", "The body is nested too deeply.") from None
    except ValueError as error:
        raise ProblemException("not-json", f"The body is not JSON: {error}.") from None
    if isinstance(found, dict) and len(found) > MEMBER_LIMIT:
        raise ProblemException("too-full", f"The body has more than {MEMBER_LIMIT} members.")
    return found


def whole_body() -> bytes:
    """The body, all of it. 400 for one that ends early, 408 for one too slow, 413 for one too large."""
    with arriving(current_app.config["BODY_TIMEOUT"]):
        body = request.get_data()
        request.stream.read(1)  # Werkzeug cuts a chunked body at the limit, and says so only when asked for more
    return body


def check_kind() -> None:
    """415 for a body that is no JSON, is a patch of a format that is not known, or is encoded."""
    if request.method == "PATCH":
        if request.mimetype not in PATCHES:
            refuse_kind("Accept-Patch", ", ".join(PATCHES))
    elif request.mimetype != JSON:  # what is built upon JSON means something else
        abort(415, f"The body must be {JSON}.")
    check_encoding("identity")


def check_encoding(*known: str) -> None:
    """415 for a body that is encoded, unless it is as one of these says."""
    codings = [coding.strip().lower() for coding in request.headers.get("Content-Encoding", "").split(",")]
    unknown = [coding for coding in codings if coding and coding != "identity"]
    if unknown and unknown not in [[coding] for coding in known]:
        refuse_kind("Accept-Encoding", ", ".join(known))


def refuse_kind(header: str, known: str) -> NoReturn:
    """415, with what there is instead."""
    after_this_request(lambda response: response.headers.set(header, known) or response)
    abort(415, f"The body must be of {header}: {known}.")


@contextmanager
def arriving(seconds: float) -> Iterator[None]:
    """Wait so long for what the client sends within the block. 408 where it does not come, 401 if it came too late."""
    try:
        with gevent.Timeout(seconds):
            yield
    except gevent.Timeout:
        abort(408, f"The body did not come within {seconds} seconds.")
    if g.caller.role != ROLES[0] and not is_still_admitted(g.token):
        refuse(NO_LONGER_GOOD, {"error": "invalid_token"})


def integer(digits: str) -> int | float:
    """A JSON integer; one that no column could hold as a float, because Python takes long ones for an attack."""
    return int(digits) if len(digits) < 100 else float(digits)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. 400 for a name that comes twice: of the two values one would be lost without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        counted = Counter(name for name, _ in pairs)
        name = next(name for name, times in counted.items() if times > 1)
        raise ProblemException("not-json", f"The member {shortened(name)!a} is given {counted[name]} times.")
    return found


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_int=integer, object_pairs_hook=once)
"""Made once: json.loads() would make one for each body, which takes longer than reading a short one."""


def finish(response: Response) -> Response:
    """After a request: read what was not read of its body once it is answered, so that the next one can be told apart.

    gunicorn would do so 1 KiB at a time, copying up to 1 MiB for each, and let nobody else have a turn.
    """
    if sends_any():
        response.call_on_close(partial(discard, request.environ, current_app.config["BODY_TIMEOUT"]))
    return response


def discard(environ: dict[str, Any], seconds: float) -> None:
    left = UNREAD_LIMIT
    with suppress(OSError, ParseException, NoMoreData), gevent.Timeout(seconds, False):
        while left > 0:
            block = environ["wsgi.input"].read(BLOCK)
            if not block:
                return
            left -= len(block)
            next_turn()
    # For gunicorn: where the next request begins is not known, the connection ends here.
    environ["wsgi.input"].failed = True
