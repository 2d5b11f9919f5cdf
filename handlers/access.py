"""Who may do what. Every route states the role it needs; on loopback, while no token exists, all roles are granted."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, TypeVar

from flask import abort, current_app, g, request

from db import actor

ROLES = ("anyone", "reader", "writer", "admin")
"""Each may do what those before it may."""

ANONYMOUS = "anonymous"
"""What history calls a caller without a token."""

View = TypeVar("View", bound=Callable[..., object])


def needs(role: str) -> Callable[[View], View]:
    """State the role that a route needs."""
    assert role in ROLES, role

    def state(view: View) -> View:
        view.role = role  # type: ignore[attr-defined]
        return view

    return state


def current_view() -> Any:
    """The function of the route that is asked for, with all that its decorators stated."""
    return current_app.view_functions[request.endpoint or ""]


def check_access() -> None:
    """Before a request: 403 for a caller without the role that its route needs. History is told who calls."""
    if request.endpoint is None:
        return
    role = current_view().role
    if role != "anyone" and not ip_address(request.remote_addr or "::").is_loopback:
        abort(403, f"This needs the role {role}; without a token it is granted on this machine only.")
    actor.set((ANONYMOUS, g.request_id))
