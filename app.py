"""The application factory: reads the environment, opens the pool, registers the routes and commands."""

import atexit
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from flask import Blueprint, Flask

import db
import handlers
from handlers.feed import open_feed
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

LIMITS = {
    "BODY_LIMIT": 2**20,
    "BODY_TIMEOUT": 30,
    "UPLOAD_LIMIT": 2**30,
    "UPLOAD_TIMEOUT": 3600,
    "SPOOL_LIMIT": 2**31,
    "REJECTS_LIMIT": 100_000,
    "RATE_LIMIT": 60_000,
    "ANSWERS_LIMIT": 100_000,
    "ANSWERS_BYTES_LIMIT": 2**26,
    "SOCKETS_PER_TOKEN": 100,
    "SOCKETS_LIMIT": 4500,
    "STATEMENT_TIMEOUT": 5,
    "POOL_SIZE": 10,
}
"""Bytes, seconds and numbers; docs/operators.md says of what."""

OIDC = {"OIDC_ISSUER": "", "OIDC_AUDIENCE": "", "OIDC_ROLE_CLAIM": "role", "OIDC_PROJECT_CLAIM": "project"}
"""Whose JWTs are good, for whom, and which claims say what their holders may do."""

NOTIFY_DELAYS = "0.5,2,10,60"
"""Seconds between the tries to send an event."""


def create_app() -> Flask:
    """The application: its routes and commands, not yet a database."""
    app = App(__name__, static_folder=None)
    app.config |= limits()
    app.config["MAX_CONTENT_LENGTH"] = app.config["BODY_LIMIT"]
    app.url_map.converters |= {"id": IdConverter, "uuid": UuidConverter}
    telemetry.init_app(app)
    app.config |= {name: os.environ.get(name) or default for name, default in OIDC.items()}
    app.config |= {name: os.environ.get(name, "").lower().split() for name in ("HOST", "ALLOWED_HOSTS", "CORS_ORIGINS")}
    headers.init_app(app)
    problems.init_app(app)
    app.config["SOCK_SERVER_OPTIONS"] = websocket.OPTIONS
    app.config |= {name: os.environ.get(name, "") for name in ("AMQP_URL", "NOTIFY_URL")}
    app.config["AMQP_QUEUE"] = os.environ.get("AMQP_QUEUE") or "rowhouse.events"
    app.config["NOTIFY_DELAYS"] = tuple(map(float, (os.environ.get("NOTIFY_DELAYS") or NOTIFY_DELAYS).split(",")))
    app.config["LOG_LEVEL"] = os.environ.get("LOG_LEVEL") or "INFO"
    app.config |= {"DATABASE_URL": os.environ.get("DATABASE_URL", ""), "DATA_DIR": data_dir()}
    app.config["BACKUP_DIR"] = Path(os.environ.get("BACKUP_DIR") or data_dir() / "backups").absolute()
    app.before_request(auth.check_access)
    app.before_request(contract.check_contract)
    app.after_request(rate_limit.tell)
    app.after_request(request_body.finish)
    app.teardown_request(places.leave_place)
    for blueprint in blueprints():
        app.register_blueprint(blueprint)
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


def limits() -> dict[str, int]:
    """LIMITS, or what the environment says instead."""
    return {name: int(os.environ.get(name) or default) for name, default in LIMITS.items()}


def blueprints() -> Iterator[Blueprint]:
    """Those of every module of handlers/: a new one is found there."""
    for found in iter_modules(handlers.__path__, "handlers."):
        members = vars(import_module(found.name)).values()
        yield from (member for member in members if isinstance(member, Blueprint))


def data_dir() -> Path:
    return Path(os.environ.get("DATA_DIR") or ".data").absolute()
