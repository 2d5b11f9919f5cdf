"""The application factory: reads the environment, opens the pool, registers the routes and commands."""

import atexit
import os
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pkgutil import iter_modules

from flask import Blueprint, Flask

import db
import handlers
import settings
from handlers import cli
from handlers.http import (
    auth,
    contract,
    headers,
    idempotency,
    places,
    problems,
    rate_limit,
    request_body,
    telemetry,
    websocket,
)
from handlers.http.flask_app import App, IdConverter, UuidConverter
from handlers.http.subscribers import open_feed


def create_app() -> Flask:
    """The application: its routes and commands, not yet a database."""
    app = App(__name__, static_folder=None)
    app.config |= settings.read()
    app.config["MAX_CONTENT_LENGTH"] = app.config["BODY_LIMIT"]
    app.url_map.converters |= {"id": IdConverter, "uuid": UuidConverter}
    telemetry.init_app(app)
    headers.init_app(app)
    problems.init_app(app)
    app.config["SOCK_SERVER_OPTIONS"] = websocket.OPTIONS
    app.before_request(auth.check_access)
    app.before_request(contract.check_contract)
    app.after_request(rate_limit.tell)
    app.after_request(request_body.finish)
    app.teardown_request(places.leave_place)
    for blueprint in blueprints():
        app.register_blueprint(blueprint)
    for view in app.view_functions.values():
        if not hasattr(view, "role"):
            raise TypeError(f"{view.__module__.replace('.', '/')}.py: {view.__name__}() lacks @requires_role(…).")
    idempotency.init_app(app)
    return app


def serve() -> Flask:
    """The application of a process that serves, its pool open on DATABASE_URL. Raises KeyError without one."""
    url = os.environ["DATABASE_URL"]
    app = create_app()
    db.open_pool(url, app.config["POOL_SIZE"], app.config["STATEMENT_TIMEOUT"])
    open_feed(url)
    atexit.register(db.close_pool)
    return app


def blueprints() -> Iterator[Blueprint]:
    """Those of every module of handlers/ and handlers/cli/, once each: a new one is found there."""
    modules = [each for room in (handlers, cli) for each in iter_modules(room.__path__, f"{room.__name__}.")]
    members = chain.from_iterable(vars(import_module(found.name)).values() for found in modules)
    yield from dict.fromkeys(member for member in members if isinstance(member, Blueprint))
