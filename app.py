"""The hall: reads the environment, opens the pool, hangs the doors, adds the commands."""

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from flask import Flask

import commands
import db
from db import embedded
from handlers import (
    BLUEPRINTS,
    access,
    bodies,
    contract,
    headers,
    idempotency,
    places,
    problems,
    quota,
    sockets,
    telemetry,
)
from handlers.events import open_feed
from handlers.lean import IdConverter, Lean, UuidConverter

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
"""Bytes, seconds and numbers; README.md says of what."""

OIDC = {"OIDC_ISSUER": "", "OIDC_AUDIENCE": "", "OIDC_ROLE_CLAIM": "role", "OIDC_PROJECT_CLAIM": "project"}
"""Whose JWTs are good, for whom, and which claims say what their holders may do."""

NOTIFY_DELAYS = "0.5,2,10,60"
"""Seconds between the tries to send an event."""


def create_app() -> Flask:
    """The application: its routes and commands, not yet a database."""
    app = Lean(__name__, static_folder=None)
    app.config |= limits()
    app.config["MAX_CONTENT_LENGTH"] = app.config["BODY_LIMIT"]
    app.url_map.converters |= {"id": IdConverter, "uuid": UuidConverter}
    telemetry.observe(app)
    app.config |= {name: os.environ.get(name) or default for name, default in OIDC.items()}
    app.config |= {name: os.environ.get(name, "").lower().split() for name in ("HOST", "ALLOWED_HOSTS", "CORS_ORIGINS")}
    headers.cover(app)
    problems.translate(app)
    app.config["SOCK_SERVER_OPTIONS"] = sockets.OPTIONS
    app.config |= {name: os.environ.get(name, "") for name in ("AMQP_URL", "NOTIFY_URL")}
    app.config["AMQP_QUEUE"] = os.environ.get("AMQP_QUEUE") or "rowhouse.events"
    app.config["NOTIFY_DELAYS"] = tuple(map(float, (os.environ.get("NOTIFY_DELAYS") or NOTIFY_DELAYS).split(",")))
    app.config["BACKUP_DIR"] = Path(os.environ.get("BACKUP_DIR") or data_dir() / "backups").absolute()
    app.before_request(access.check_access)
    app.before_request(contract.check_contract)
    app.after_request(quota.tell)
    app.after_request(bodies.finish)
    app.teardown_request(places.leave_place)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    idempotency.cover(app)
    commands.add(app, database)
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


def database() -> AbstractContextManager[str]:
    """The database of a command: DATABASE_URL's, or the private one in DATA_DIR for as long as the command runs."""
    return nullcontext(url) if (url := os.environ.get("DATABASE_URL")) else embedded.server(data_dir())


def data_dir() -> Path:
    return Path(os.environ.get("DATA_DIR") or ".data").absolute()
