"""The hall: reads the environment, opens the pool, hangs the doors, adds the commands."""

import atexit
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import psycopg
from flask import Flask
from werkzeug.routing import IntegerConverter, Map

import db
from db import embedded, schema
from db.queries import STATEMENTS
from handlers import BLUEPRINTS, access, contract, fields, problems, telemetry

JSON_LIMIT = 1024 * 1024
"""Bytes of a body, unless its route says otherwise."""

POOL_SIZE = 10
"""Connections a process may hold."""


class IdConverter(IntegerConverter):
    """An id in a path: what no bigint can hold leads nowhere, as any other id that does not exist."""

    def __init__(self, map: Map) -> None:
        super().__init__(map, min=1, max=fields.BIGINT)


def create_app() -> Flask:
    """The application: its routes and commands, not yet a database."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = JSON_LIMIT
    app.url_map.converters["id"] = IdConverter
    app.url_map.strict_slashes = True
    telemetry.observe(app)
    problems.translate(app)
    app.before_request(access.check_access)
    app.before_request(contract.check_contract)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    add_commands(app)
    return app


def serve() -> Flask:
    """The application of a process that serves, its pool open on DATABASE_URL. Raises KeyError without one."""
    db.open_pool(os.environ["DATABASE_URL"], int(os.environ.get("POOL_SIZE") or POOL_SIZE))
    atexit.register(db.close_pool)
    return create_app()


def database() -> AbstractContextManager[str]:
    """The database of a command: DATABASE_URL's, or the private one in DATA_DIR for as long as the command runs."""
    if url := os.environ.get("DATABASE_URL"):
        return nullcontext(url)
    return embedded.server(Path(os.environ.get("DATA_DIR") or ".data").absolute())


def add_commands(app: Flask) -> None:
    """Add what `flask --app app` can do besides serving."""

    @app.cli.command("migrate")
    def migrate() -> None:
        """Bring the database up to date."""
        with one_line_errors(), database() as url:
            applied = schema.migrate(url)
            click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    @app.cli.command("seed")
    def seed() -> None:
        """Put in a small demonstration; what is there already stays."""
        with one_line_errors(), database() as url:
            schema.seed(url)
            click.echo("The demonstration is in.")

    @app.cli.command("explain")
    @click.argument("statement", type=click.Choice(sorted(STATEMENTS)), metavar="STATEMENT")
    @click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
    def explain(statement: str, parameters: tuple[str, ...]) -> None:
        """Run a named statement, show its plan, and take back what it changed: flask explain users.get id=7"""
        with one_line_errors(), database() as url:
            values = dict(parameter.split("=", 1) for parameter in parameters)
            click.echo("\n".join(db.explain(url, statement, values)))


class one_line_errors(AbstractContextManager[None]):
    """Ends a command with one line on standard error where the database cannot be used."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError):
            sys.exit(f"The database is not reachable: {str(error).splitlines()[0]}")
        if isinstance(error, (schema.Refused, embedded.Unavailable, psycopg.Error)):
            sys.exit(str(error).splitlines()[0])
