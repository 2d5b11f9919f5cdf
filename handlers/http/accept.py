"""Accept: which of the media types on offer a client is answered in (RFC 9110, 12.5.1)."""

import re
from functools import lru_cache

from flask import Request, abort
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from handlers.http.hosts import SHORT

SHORT_QUALITY = re.compile(r"(;[ \t]*q=)(?=\.?\d)(\d*)\.(\d*)", re.IGNORECASE)
"""A quality with a point that has no digit on one side, as well as others: what Werkzeug cannot read it passes over."""


def media(offers: tuple[str, ...], asked: Request) -> str:
    """The media type to answer with. 406 where the client takes none of those on offer."""
    accept = asked.environ.get("HTTP_ACCEPT", "*/*")
    if accept in ("*/*", offers[0]):
        return offers[0]
    choose = acceptable if len(accept) <= SHORT else acceptable.__wrapped__
    return choose(offers, accept) or abort(406, f"There is only {', '.join(offers)}.")


@lru_cache(1024)
def acceptable(offers: tuple[str, ...], accept: str) -> str | None:
    """The best of the media types on offer; the first where the header is empty. Parameters but q mean nothing."""
    found = parse_accept_header(SHORT_QUALITY.sub(r"\g<1>0\2.\g<3>0", accept), MIMEAccept)
    # An asterisk alone is what Java's HttpURLConnection says of any.
    ranges = [(name if (name := kind.partition(";")[0].strip()) != "*" else "*/*", quality) for kind, quality in found]
    return MIMEAccept(ranges).best_match(offers) if accept.strip(" \t,") else offers[0]
