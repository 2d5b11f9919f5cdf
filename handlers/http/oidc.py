"""OpenID Connect: a JWT of the issuer in OIDC_ISSUER is as good as a token, for the role that its claims name."""

import json
import time
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent
import jwt
from flask import current_app
from jwt.exceptions import PyJWKClientError

from handlers.http import fetch
from handlers.http.fields import BIGINT
from handlers.http.problems import ProblemException

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
"""Signatures by a key pair only: with a shared secret, whoever checks a token could make one."""

REQUIRED = ["iss", "sub", "aud", "exp"]
"""Claims without which a JWT is not good."""

ANSWER_WITHIN, DOCUMENT_LIMIT = 5, 256 * 1024
"""Seconds for the issuer to tell where its keys are, and to tell them; bytes of either."""

ASK_AGAIN = 2
"""Seconds after an issuer could not be asked, in which it is not asked again: whoever waits would do so in turns."""

KEYS_KEPT = 300
"""Seconds for which its keys are believed; for a key that is not among them it is asked again, every 30 s at most."""

NAME_LIMIT = 255
"""Characters of a sub."""

GRANTED = ("admin", "writer", "reader")
"""The roles that a claim may name; of several the first of these counts."""


ABSENT = object()
"""What stands for a claim that is not there: one that is null is."""


class Away(Exception):
    """The issuer cannot be asked for its keys."""


class Claims(NamedTuple):
    """Whoever a JWT was issued to."""

    name: str
    role: str
    project: str


def is_jwt(token: str) -> bool:
    """Whether to ask the issuer's keys about it: there is an issuer, and a token of ours has no dots."""
    return bool(current_app.config["OIDC_ISSUER"]) and token.count(".") == 2


def holder(token: str) -> Claims | None:
    """Whoever holds a JWT; None where it is not good. 503 where the issuer cannot be asked for its keys."""
    config = current_app.config
    try:
        claims = jwt.decode(
            token,
            signing_key(token),
            algorithms=ALGORITHMS,
            audience=config["OIDC_AUDIENCE"],
            issuer=config["OIDC_ISSUER"],
            options={"require": REQUIRED},
        )
    except Away:
        raise ProblemException("issuer-away", "The issuer of the token cannot be asked for its keys.") from None
    except (jwt.PyJWTError, PyJWKClientError, OverflowError, RecursionError):  # an endless exp; deep JSON
        return None
    if not (is_name(claims["sub"]) and is_time(claims["exp"])):
        return None
    named = claim(claims, config["OIDC_ROLE_CLAIM"])
    roles = named if isinstance(named, list) else [named]
    role = next((role for role in GRANTED if role in roles), "anyone")
    return Claims(f"oidc:{claims['sub']}", role, project(claim(claims, config["OIDC_PROJECT_CLAIM"])))


def is_name(sub: Any) -> bool:
    """Whether history can call a caller so: visible text, of what OpenID Connect Core 1.0 (2) allows in length."""
    return isinstance(sub, str) and 0 < len(sub) <= NAME_LIMIT and sub.isprintable() and not sub.isspace()


def is_time(exp: Any) -> bool:
    """Whether it is a NumericDate (RFC 7519, 2): PyJWT also takes a number's text."""
    return isinstance(exp, int | float) and not isinstance(exp, bool)


def signing_key(token: str) -> Any:
    """The issuer's key that a JWT names. An RSA key of no algorithm is good for PS256, too (RFC 7517, 4.4)."""
    found = keys(current_app.config["OIDC_ISSUER"]).get_signing_key_from_jwt(token)
    probabilistic = jwt.get_unverified_header(token).get("alg") == "PS256" and found.key_type == "RSA"
    return found.key if probabilistic and "alg" not in found._jwk_data else found


def claim(claims: Any, path: str) -> Any:
    """A claim by its name, or by the names on the way to it: realm_access.roles. ABSENT where the last object on the
    way lacks the next; None where what is on the way is no object."""
    for name in path.split("."):
        if not isinstance(claims, dict):
            return None
        if name not in claims:
            return ABSENT
        claims = claims[name]
    return claims


def project(named: Any) -> str:
    """The only project that is reached, empty for all: without the claim alone. What is no project's id, as null,
    reaches none: an issuer that fills the claim of somebody who has no project shall not open all to them."""
    if named is ABSENT:
        return ""
    id = str(named)
    return id if id.isascii() and id.isdigit() and len(id) < 20 and 0 < int(id) <= BIGINT else "0"


class Keys(jwt.PyJWKClient):
    """PyJWT's, which keeps them, by our way to ask for them."""

    def fetch_data(self) -> jwt.PyJWKSet:
        try:
            found = jwt.PyJWKSet.from_dict(document(self.uri))
        except (jwt.PyJWTError, NotImplementedError):  # the last for a key of the algorithm "none"
            raise Away from None
        self._last_successful_fetch = time.monotonic()
        return found

    def get_signing_key(self, kid: str) -> jwt.PyJWK:
        """Without PyJWT's lock where the key is known and its age is good: it is held while somebody asks the issuer
        for a key that nobody has, which anybody may name."""
        kept = self.jwk_set_cache.get() if self.jwk_set_cache else None
        known = kept and self.match_kid(self._get_signing_keys_from_jwk_set(kept), kid)
        return known or super().get_signing_key(kid)


@cache
def keys(issuer: str) -> Keys:
    """The keys of an issuer, where its configuration says they are (OpenID Connect Discovery 1.0). Raises Away."""
    where = str(document(f"{issuer.rstrip('/')}/.well-known/openid-configuration").get("jwks_uri"))
    # Not by a weaker way than the issuer itself: whoever stands in between would choose the keys.
    if not where.startswith(("https://", f"{urlsplit(issuer).scheme}://")):
        raise Away
    return Keys(where, lifespan=KEYS_KEPT)


failed: dict[str, float] = {}
"""When an address could not be asked."""


def document(url: str) -> dict[str, Any]:
    """A JSON object that the issuer has at this address. Raises Away."""
    if time.monotonic() - failed.get(url, float("-inf")) < ASK_AGAIN:
        raise Away
    try:
        # Around all of it: also names must be found, and TLS agreed on, in time.
        with gevent.Timeout(ANSWER_WITHIN, TimeoutError("timed out")):
            body = fetch.fetch(url, ANSWER_WITHIN, DOCUMENT_LIMIT + 1)
        found = json.loads(body)
        if len(body) > DOCUMENT_LIMIT or not isinstance(found, dict):
            raise ValueError("No JSON object of that size is looked into.")
        return found
    except (*fetch.Failed, RecursionError):
        failed[url] = time.monotonic()
        raise Away from None
