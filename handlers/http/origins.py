"""Which names the service answers to, and of whose pages: no site may use it through somebody's browser.

A page of another site may send most requests without asking, and a name of its own DNS may lead here. The first is told
by what browsers say of a page, the second by the Host. Where no token is needed, a proxy would make the whole world a
neighbour: nothing is answered there that was forwarded.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from flask import Request, abort, current_app

from handlers.http.problems import ProblemException

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{0,5}))?")
"""A Host in small letters: its name, and its port."""

READING = {"GET", "HEAD", "OPTIONS"}
"""The methods that change nothing (RFC 9110): what they answer, browsers keep from pages of others."""

OWN_SITES = {"same-origin", "none"}
"""What Sec-Fetch-Site says of the service's own pages, and of an address that was typed in."""

PORTS = {"http": "80", "https": "443"}

FORWARDED = "HTTP_X_FORWARDED"
"""How the headers begin by which most proxies say for whom they ask."""

FORWARDED_TOO = {
    *("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_X_CLUSTER_CLIENT_IP"),
    *("HTTP_TRUE_CLIENT_IP", "HTTP_CF_CONNECTING_IP", "HTTP_FASTLY_CLIENT_IP", "HTTP_X_ENVOY_EXTERNAL_ADDRESS"),
    *("HTTP_X_ORIGINAL_FORWARDED_FOR", "HTTP_X_ORIGINAL_HOST", "HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL"),
}
"""And the others."""


def check_host(asked: Request, guarded: Any) -> None:
    """400 for a Host that is none; 421 for a name that is not answered to, 403 for what was forwarded, without tokens.

    Whoever does not need to know is not asked whether the service is `guarded` by tokens: the database may be away.
    """
    environ, allowed = asked.environ, current_app.config["ALLOWED_HOSTS"]
    name = named(environ.get("HTTP_HOST", ""))
    if name is None:
        abort(400, "The Host must be a name or an address, and no more than a port behind it.")
    local = is_local(name) or name in current_app.config["HOST"]
    forwarded = was_forwarded(environ)
    if local and not forwarded and not allowed:
        return
    if guarded():
        answered = not allowed or name in allowed
    elif forwarded:
        raise ProblemException("forwarded", "Without a token nothing is answered that was forwarded: make one first.")
    else:
        answered = local
    if not answered:
        raise ProblemException(421, f"The service does not answer to the name {name}.")


def check_origin(asked: Request) -> None:
    """403 for what a page of another origin would change, or a socket that it opens, unless it is in CORS_ORIGINS."""
    if asked.method in READING and not (asked.url_rule and asked.url_rule.websocket):
        return
    environ = asked.environ
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE", "none")
    own = site in OWN_SITES and (origin is None or is_own(origin, environ.get("HTTP_HOST", ""), asked.scheme))
    if not own and origin not in current_app.config["CORS_ORIGINS"]:
        raise ProblemException("foreign-origin", "This is not for pages of other origins.")


@lru_cache(1024)
def named(header: str) -> str | None:
    """The name or address in a Host, in small letters; None where it is none."""
    found = HOST.fullmatch(header.lower())
    return found[1] if found else None


@lru_cache(1024)
def is_local(name: str) -> bool:
    """Whether a name means this machine wherever it is asked: nobody's DNS says otherwise (RFC 6761)."""
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def was_forwarded(environ: dict[str, Any]) -> bool:
    """Whether a proxy says that it asks for somebody else."""
    return FORWARDED in "\n".join(environ) or not FORWARDED_TOO.isdisjoint(environ)


@lru_cache(1024)
def is_own(origin: str, host: str, scheme: str) -> bool:
    """Whether an origin is the service's own, as its client sees it: where a proxy ends TLS, we see another scheme."""
    theirs, _, place = origin.lower().partition("://")
    return theirs in ({"https"} if scheme == "https" else PORTS) and whole(place, theirs) == whole(host.lower(), theirs)


def whole(place: str, scheme: str) -> str:
    """A host without the port that its scheme has anyway."""
    return place.removesuffix(f":{PORTS[scheme]}")
