"""Which names the service answers to, and of whose pages: no site may use it through somebody's browser.

A page of another site may send most requests without asking, and a name of its own DNS may lead here. The first is told
by what browsers say of a page, the second by the Host. Where no token is needed, a proxy would make the whole world a
neighbour: nothing is answered there that was forwarded.
"""

import re
from functools import lru_cache
from typing import Any

from flask import Request, abort, current_app

from handlers.http.hosts import PORTS, SHORT, is_local, named
from handlers.http.problems import ProblemException

READING = {"GET", "HEAD", "OPTIONS"}
"""The methods that change nothing (RFC 9110): what they answer, browsers keep from pages of others."""

OWN_SITES = {"same-origin", "none"}
"""What Sec-Fetch-Site says of the service's own pages, and of an address that was typed in."""

FORWARDED = re.compile(
    r"""^HTTP_(?:
        .{0,40}(?:FORWARD|PROXIED)                                  # Forwarded, X-Forwarded-For, X-Forwarder-For …
        | (?:.{0,40}_)?(?:
            (?:VIA|CDN_LOOP)$
            | (?:CLIENT|SOCKET)?IP(?:V[46]|_ADDR(?:ESS)?)?$         # X-Real-IP, True-Client-IP, X-Azure-ClientIP …
            | IPV[46]$
            | (?:REMOTE|CLIENT|VIEWER|EXTERNAL)_(?:ADDR(?:ESS)?|USER|HOST)$
        )
        | .{1,40}_HOST(?:_OVERRIDE)?$                               # X-Original-Host …
        | X_(?:ORIGINAL|REWRITE)_UR[LI]$
    )""",
    re.MULTILINE | re.VERBOSE,
)
"""How the headers are called by which proxies say for whom they ask. The repeats have bounds: names may be long."""

REMEMBERED = 2000
"""Characters of all names of a request's headers that are remembered, once they were looked through."""


def check_host(asked: Request, guarded: Any) -> None:
    """400 for a Host that is none; 421 for a name that is not answered to, 403 for what was forwarded, without tokens.

    Whoever does not need to know is not asked whether the service is `guarded` by tokens: the database may be away.
    """
    environ, allowed = asked.environ, current_app.config["ALLOWED_HOSTS"]
    name = named(environ.get("HTTP_HOST", ""))
    if name is None:
        abort(400, "The Host must be a name or an address, and no more than a port behind it.")
    local = is_local(name) or name == current_app.config["HOST"]
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
    own = site in OWN_SITES and (
        origin is None or (len(origin) <= SHORT and is_own(origin, environ.get("HTTP_HOST", ""), asked.scheme))
    )
    if not own and origin not in current_app.config["CORS_ORIGINS"]:
        raise ProblemException("foreign-origin", "This is not for pages of other origins.")


def was_forwarded(environ: dict[str, Any]) -> bool:
    """Whether a proxy says that it asks for somebody else."""
    names = "\n".join(environ)
    return tells_of_others(names) if len(names) <= REMEMBERED else tells_of_others.__wrapped__(names)


@lru_cache(1024)
def tells_of_others(names: str) -> bool:
    return bool(FORWARDED.search(names))


@lru_cache(1024)
def is_own(origin: str, host: str, scheme: str) -> bool:
    """Whether an origin is the service's own, as its client sees it: where a proxy ends TLS, we see another scheme."""
    theirs, _, place = origin.lower().partition("://")
    return theirs in ({"https"} if scheme == "https" else PORTS) and whole(place, theirs) == whole(host.lower(), theirs)


def whole(place: str, scheme: str) -> str:
    """A host without the port that its scheme has anyway."""
    return place.removesuffix(f":{PORTS[scheme]}")
