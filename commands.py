"""What `flask --app app` can do besides serving: migrate, seed, look at plans, send events, prune history."""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import click
import psycopg
from flask import Flask
from flask.cli import AppGroup

import db
from db import embedded, schema, seeding
from db.queries import STATEMENTS
from handlers.channels import by_line, by_webhook
from handlers.notifier import notify
from handlers.relay import relay

Database = Callable[[], AbstractContextManager[str]]
"""The database of a command, by its address, for as long as the command runs."""

MOST = click.IntRange(0, 10_000_000)
SEEDS = click.IntRange(0, 2**31 - 1)


class one_line_errors(AbstractContextManager[None]):
    """Ends a command with one line on standard error where the database cannot be used."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError):
            sys.exit(f"The database is not reachable: {str(error).splitlines()[0]}")
        if isinstance(error, (schema.Refused, embedded.Unavailable, psycopg.Error)):
            sys.exit(str(error).splitlines()[0])


def stopped(until_eof: bool = False) -> threading.Event:
    """An event that is set by Ctrl-C, by SIGTERM, or when standard input ends."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def wait_for_eof() -> None:
        sys.stdin.read()
        stop.set()

    if until_eof:
        threading.Thread(target=wait_for_eof, daemon=True).start()
    return stop


def add(app: Flask, database: Database) -> None:
    """Add the commands to an app."""

    @app.cli.command("migrate")
    def migrate() -> None:
        """Bring the database up to date."""
        with one_line_errors(), database() as url:
            applied = schema.migrate(url)
            click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    @app.cli.command("seed")
    @click.option("--users", type=MOST, help="So many people. [default: 100 where there are projects]")
    @click.option("--projects", type=MOST, default=0, help="So many projects, with ten milestones each.")
    @click.option("--userstories", type=MOST, help="So many stories in all. [default: 100 a project]")
    @click.option("--seed", type=SEEDS, default=1, show_default=True, help="Another number makes other data.")
    def seed(users: int | None, projects: int, userstories: int | None, seed: int) -> None:
        """Put in sample data: a small demonstration, or as much as the options say.

        The same options give the same rows, and what is there already stays: a run that was broken off is taken up
        where it stopped. A story has about five tasks and five comments.
        """
        if userstories and not projects:
            raise click.UsageError("--userstories needs --projects.")
        if not projects and users is None:
            with one_line_errors(), database() as url:
                schema.seed(url)
                click.echo("The demonstration is in.")
            return
        people = users if users is not None else 100
        stories = userstories if userstories is not None else 100 * projects
        with (
            one_line_errors(),
            database() as url,
            click.progressbar(length=people + projects + stories, label="Seeding", show_pos=True) as progress,
        ):
            for rows in seeding.seed(url, people, projects, stories, seed):
                progress.update(rows)

    @app.cli.command("explain")
    @click.argument("statement", type=click.Choice(sorted(STATEMENTS)), metavar="STATEMENT")
    @click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
    def explain(statement: str, parameters: tuple[str, ...]) -> None:
        """Run a named statement, show its plan, and take back what it changed: flask explain users.get id=7"""
        with one_line_errors(), database() as url:
            values = dict(parameter.split("=", 1) for parameter in parameters)
            click.echo("\n".join(db.explain(url, statement, values)))

    @app.cli.command("notifier")
    @click.option("--until-eof", is_flag=True, help="Stop when standard input ends, too: with whoever started it.")
    def notifier(until_eof: bool) -> None:
        """Send the events that wait, until Ctrl-C: through RabbitMQ if AMQP_URL is set, with a relay inside.

        Each is printed; with NOTIFY_URL it is first sent there as a POST, its event_id as Idempotency-Key.
        """
        url = app.config["NOTIFY_URL"]
        with one_line_errors(), database() as dsn:
            send = by_webhook(url) if url else by_line
            notify(
                dsn,
                app.config["AMQP_URL"],
                app.config["AMQP_QUEUE"],
                send,
                app.config["NOTIFY_DELAYS"],
                stopped(until_eof),
            )

    @app.cli.command("relay")
    def hand_on() -> None:
        """Hand the events that wait on to the queue AMQP_QUEUE of the RabbitMQ at AMQP_URL, until Ctrl-C."""
        if not app.config["AMQP_URL"]:
            raise click.UsageError("There is no AMQP_URL.")
        with one_line_errors(), database() as dsn:
            relay(dsn, app.config["AMQP_URL"], app.config["AMQP_QUEUE"], stopped())

    history = AppGroup("history", help="Care for the history.")
    app.cli.add_command(history)

    @history.command("prune")
    @click.option("--before", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The first day to be kept.")
    def prune(before: datetime) -> None:
        """Drop the months of history that ended before a day (by UTC): they can no longer be read or resumed from."""
        with one_line_errors(), database() as url:
            dropped = schema.prune(url, before.replace(tzinfo=UTC))
            click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There was nothing to drop.")
