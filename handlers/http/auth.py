"""Who may do what. Every route states the role it needs; whoever holds a token has its role, some for one project only.

While no token was ever made, all roles are granted on loopback, and the service answers nowhere else.
A view runs only for a caller who was admitted: `check_access` says who, `check_admitted` looks right before the view.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import psycopg
from flask import Request, abort, current_app, g, request
from flask.globals import app_ctx, request_ctx
from werkzeug.datastructures import WWWAuthenticate

from db import actor, project, read, unrestrict, write
from handlers.http import oidc
from handlers.http.hosts import is_local
from handlers.http.origins import check_host, check_origin
from handlers.http.problems import ProblemException
from handlers.http.rate_limit import spend
from handlers.http.tokens import ANONYMOUS, digest

ROLES = ("anyone", "reader", "writer", "admin")
"""Each may do what those before it may."""

KNOWN_FOR = 1.0
"""Seconds for which a process believes what it read of a token: so much later one that was revoked is refused."""

REMEMBERED = 10_000
"""Tokens, good and bad, that a process remembers."""

View = TypeVar("View", bound=Callable[..., object])


@dataclass(frozen=True)
class Anonymous:
    """Whoever asks, where no token is needed."""

    role: str = "anyone"


@dataclass(frozen=True)
class Pending:
    """Whoever has opened a socket and has still to send its token."""


@dataclass(frozen=True)
class Holder:
    """Whoever holds a good token or JWT."""

    token: str
    role: str


Caller = Anonymous | Pending | Holder
"""What a request is admitted as."""

seen: dict[str, tuple[float, Any]] = {}
"""What was read of tokens, and when, by their SHA-256."""


def requires_role(
    role: str, *, of_project: bool = False, by_message: bool = False, any_host: bool = False
) -> Callable[[View], View]:
    """State the role that a route needs.

    A token of one project reaches what is `of_project`; what it sees there is for the database to say. The first
    message of a socket may have the token where `by_message` says so. `any_host` is for what tells nothing but whether
    the service works: load balancers ask by address, or name no Host at all.
    """
    assert role in ROLES, role

    def state(view: View) -> View:
        view.role, view.of_project = role, of_project  # type: ignore[attr-defined]
        view.by_message, view.any_host = by_message, any_host  # type: ignore[attr-defined]
        return view

    return state


def current_view() -> Any:
    """The function of the route that is asked for, with all that its decorators stated."""
    return current_app.view_functions[request.endpoint or ""]


def check_access() -> None:
    """Before a request: 401 without a good token, 403 without the role, 421 for a Host; history is told who asks."""
    kept, asked = app_ctx.g, request_ctx.request
    kept.token = None
    actor.set((ANONYMOUS, kept.request_id))
    unrestrict()
    view = kept.view = current_view() if asked.url_rule else None
    if not getattr(view, "any_host", False):
        check_host(asked, guarded)
    check_origin(asked)
    # A browser asks for the OPTIONS before it sends a token.
    if view is None or asked.method == "OPTIONS":
        return
    kept.caller = caller(view, asked)


def caller(view: Any, asked: Request) -> Caller:
    """Who asks for a view, admitted to it."""
    role = getattr(view, "role", None) or abort(403, "The route says for nobody that it may be used.")
    given = asked.environ.get("HTTP_AUTHORIZATION")
    if role == "anyone":
        return Anonymous()
    if given is not None:
        return admit(bearer(given), role)
    if guarded():
        # A browser's WebSocket cannot send the header.
        return Pending() if view.by_message else refuse("A token is needed: Authorization: Bearer …", {})
    if not is_local(asked.remote_addr or ""):
        abort(403, f"This needs the role {role}; without a token it is granted on this machine only.")
    return Anonymous(ROLES[-1])


def check_admitted(view: Any) -> None:
    """Right before a view: 401 where nobody was admitted to it."""
    kept = app_ctx.g
    if not ("caller" in kept and kept.view is view) or (type(kept.caller) is Pending and not view.by_message):
        refuse("Nobody was admitted to this.", {})


def may(role: str) -> bool:
    """Whether the caller has a role."""
    return ROLES.index(g.caller.role) >= ROLES.index(role)


def admit(token: str, role: str) -> Holder:
    """Let the holder of a token in. 401 where it is not good, 403 where it has not the role, 429 too often."""
    found = holder(token)
    if found is None:
        refuse("The token is not good, or no longer.", {"error": "invalid_token"})
    spend(found.name)
    if ROLES.index(found.role) < ROLES.index(role):
        abort(403, f"This needs the role {role}; the token has the role {found.role}.")
    if found.project and not current_view().of_project:
        raise ProblemException("project-token", f"The token is for project {found.project} only.")
    g.token = token
    project.set(found.project)
    actor.set((found.name, g.request_id))
    return Holder(token, found.role)


def is_still_admitted(token: str | None, known_for: float = KNOWN_FOR) -> bool:
    """Whether who was let in with a token, or while there was none, would be let in now."""
    return holder(token, known_for) is not None if token else not guarded(known_for)


def refuse(detail: str, told: dict[str, str | None]) -> NoReturn:
    abort(401, description=detail, www_authenticate=WWWAuthenticate("bearer", {"realm": "rowhouse", **told}))


def bearer(given: str) -> str:
    """The token of an Authorization header; of another scheme none, which nobody holds."""
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def guarded(known_for: float = KNOWN_FOR) -> bool:
    """Whether nobody is let in without a token: one was made, or there is an issuer of JWTs."""
    return bool(current_app.config["OIDC_ISSUER"] or remembered("", lambda: read("access.made").made, known_for))


def waits_for_token() -> bool:
    """Whether the caller was let in to say its token first."""
    return type(g.caller) is Pending


def holder(token: str, known_for: float = KNOWN_FOR) -> Any:
    """Who holds a token, with `name` and `role`; None where it is not good."""
    sha256 = digest(token)
    return remembered(sha256, lambda: oidc.holder(token) if oidc.is_jwt(token) else looked_up(sha256), known_for)


def looked_up(sha256: str) -> Any:
    # Not held to the project of whoever asks: it cannot see tokens.
    found = Context().run(read, "access.holder", sha256=sha256)
    if found and found.unnoted:
        with suppress(psycopg.Error):  # on a standby nothing can be noted
            Context().run(write, "access.used", id=found.id)
    return found


def remembered(key: str, ask: Callable[[], Any], known_for: float) -> Any:
    """What was read of a token within so many seconds, or is read now."""
    now = time.monotonic()
    at, found = seen.get(key, (0.0, None))
    if not at or now - at > known_for:
        found = ask()
        if len(seen) >= REMEMBERED:
            seen.clear()
        seen[key] = now, found
    return found
