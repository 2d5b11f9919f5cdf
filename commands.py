"""What `flask --app app` can do besides serving: migrate, seed, move tables, make tokens, explain, and more."""

import getpass
import hashlib
import logging.config
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import psycopg
from flask import Flask
from flask.cli import AppGroup
from werkzeug.exceptions import HTTPException

import db
import logs
from db import actor, embedded, schema, seeding
from db.pool import connect
from db.queries import STATEMENTS
from handlers import backing, csvfile, restoring, shelf
from handlers.access import ROLES
from handlers.avroblocks import Damaged
from handlers.channels import by_line, by_webhook, has_reader
from handlers.fields import BIGINT
from handlers.loading import COLUMNS, load
from handlers.notifier import notify
from handlers.progress import Progress
from handlers.relay import relay, run

Database = Callable[[], AbstractContextManager[str]]
"""The database of a command, by its address, for as long as the command runs."""

MOST = click.IntRange(0, 10_000_000)
SEEDS = click.IntRange(0, 2**31 - 1)


ONE_LINE = (schema.Refused, embedded.Unavailable, psycopg.Error, csvfile.Unreadable, Damaged, OSError)
"""Errors whose first line is all that a person needs."""


class one_line_errors(AbstractContextManager[None]):
    """Ends a command with one line on standard error where the database cannot be used."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, psycopg.OperationalError):
            sys.exit(f"The database is not reachable: {str(error).splitlines()[0]}")
        if isinstance(error, psycopg.IntegrityError):
            sys.exit(" ".join(filter(None, (error.diag.message_primary, error.diag.message_detail))))
        if isinstance(error, psycopg.ProgrammingError) and not error.sqlstate:
            sys.exit(f"DATABASE_URL cannot be read: {str(error).splitlines()[0]}")
        if isinstance(error, ONE_LINE):
            sys.exit(str(error).splitlines()[0])
        if isinstance(error, HTTPException):
            sys.exit(error.description)


def stopped(until_eof: bool = False) -> threading.Event:
    """For a command that goes on until it is told to stop: by Ctrl-C, by SIGTERM, or as standard input ends."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def wait_for_signal() -> None:
        signal.sigwait(numbers)
        stop.set()

    def wait_for_eof() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.set()

    logging.config.dictConfig(logs.config(os.environ.get("LOG_LEVEL") or "INFO"))
    # Not by a handler: it may run while the event's own lock is held, and would wait for that for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for wait in (wait_for_signal, wait_for_eof) if until_eof else (wait_for_signal,):
        threading.Thread(target=wait, daemon=True).start()
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
        if not url and not has_reader():
            sys.exit("Standard output cannot be written: nobody reads it.")
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
            stop = stopped()
            hands = threading.Thread(target=relay, args=(dsn, app.config["AMQP_URL"], app.config["AMQP_QUEUE"], stop))
            run([hands], stop)

    add_bulk(app, database)
    add_tokens(app, database)
    history = AppGroup("history", help="Care for the history.")
    app.cli.add_command(history)

    @history.command("prune")
    @click.option("--before", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The first day to be kept.")
    def prune(before: datetime) -> None:
        """Drop the months of history that ended before a day (by UTC): they can no longer be read or resumed from."""
        with one_line_errors(), database() as url:
            dropped = schema.prune(url, before.replace(tzinfo=UTC))
            click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There was nothing to drop.")


def add_bulk(app: Flask, database: Database) -> None:
    """Add the commands that move whole tables."""

    @contextmanager
    def working(label: str) -> Iterator[Any]:
        """A pool to work with, and a progress bar; one line where it fails."""
        actor.set((f"{getpass.getuser()} (flask)", ""))
        with one_line_errors(), database() as url:
            db.open_pool(url, 2)
            try:
                with click.progressbar(length=1, label=label, show_pos=True, file=sys.stderr) as bar:
                    yield bar
            finally:
                db.close_pool()

    def by_rows(bar: Any) -> Progress:
        """Moves a bar as far as the rows are."""

        def progress(rows: int, of: int | None = None) -> None:
            bar.length = bar.length if of is None else of
            bar.update(rows)

        return progress

    @app.cli.command("upload")
    @click.argument("table", type=click.Choice([*COLUMNS]))
    @click.argument("file", type=click.File("rb"))
    @click.option("--header", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True)
    @click.option("--mode", type=click.Choice(["partial", "atomic", "dry-run"]), default="partial", show_default=True)
    @click.option("--max-errors", type=click.IntRange(0), help="With more rejects nothing is kept.")
    def upload(table: str, file: BinaryIO, header: str, mode: str, max_errors: int | None) -> None:
        """Move a CSV file into departments, jobs or employees; rejects are kept aside: GET /errors/TABLE."""
        with working(f"Uploading {table}") as bar:
            bar.length = Path(file.name).stat().st_size

            def progress(rows: int, of: int | None = None) -> None:
                bar.update(file.tell() - bar.pos)

            row, sha256, undone = load(table, file, progress, app.config["REJECTS_LIMIT"], header, mode, max_errors)
        kept = "Nothing was kept." if undone else f"Upload {row.upload_id}."
        click.echo(f"{kept} {row.rows} rows: {row.accepted} accepted, {row.rejected} rejected. SHA-256 {sha256}")
        for reject in undone.rejects if undone else []:
            click.echo(f"line {reject['line']}: {reject['column_name'] or 'row'}: {reject['detail']}")
        if undone and undone.too_many:
            sys.exit(1)

    @app.cli.command("backup")
    @click.argument("table", type=click.Choice([*backing.TABLES, backing.ALL]))
    def backup(table: str) -> None:
        """Back a table up, or all from one snapshot, into BACKUP_DIR."""
        with working(f"Backing up {table}") as bar:
            manifest = backing.back_up(app.config["BACKUP_DIR"], table, by_rows(bar))
        click.echo(f"{manifest['name']}: {manifest['rows']} rows in {app.config['BACKUP_DIR']}")

    @app.cli.command("restore")
    @click.argument("table", type=click.Choice([*backing.TABLES, backing.ALL]))
    @click.option("--backup", "name", help="Its name; the newest of the table by default.")
    @click.option("--file", type=click.File("rb"), help="An Avro file instead.")
    @click.option("--dry-run", is_flag=True, help="Only tell what it would change.")
    def restore(table: str, name: str | None, file: BinaryIO | None, dry_run: bool) -> None:
        """Make a table, or all, equal to a backup; readers see the old rows or the new."""
        with working(f"Restoring {table}") as bar:
            name = None if file else shelf.known(name or shelf.newest(table))["name"]
            with restoring.files_of(app.config["BACKUP_DIR"], table, name, file) as files:
                found = restoring.restore(table, files, name or "a file", dry_run, by_rows(bar))
        for each in found:
            click.echo("{table}: {rows} rows, {added} added, {removed} removed, {changed} changed".format(**each))
        if dry_run:
            click.echo("This was a trial: nothing was changed.")


LIFETIME = {"d": "days", "h": "hours", "m": "minutes"}


def lifetime(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """90d, 12h or 30m as PostgreSQL's interval."""
    if value is None:
        return ""
    if not re.fullmatch("[1-9][0-9]{0,4}[dhm]", value):
        raise click.BadParameter("It is a number of days, hours or minutes: 90d, 12h, 30m.")
    return f"{value[:-1]} {LIFETIME[value[-1]]}"


def add_tokens(app: Flask, database: Database) -> None:
    """Add the commands that make tokens and take them back."""
    token = AppGroup("token", help="Make tokens and take them back.")
    app.cli.add_command(token)

    @token.command("create")
    @click.argument("name")
    @click.option("--role", type=click.Choice(ROLES[1:]), required=True, help="What its holder may do.")
    @click.option("--project", type=click.IntRange(1, BIGINT), help="The only project it reaches, by its id.")
    @click.option("--expires", callback=lifetime, help="After so long it is no longer good: 90d, 12h, 30m.")
    def create(name: str, role: str, project: int | None, expires: str) -> None:
        """Make a token and print it, this once. History calls its holder NAME.

        From the first token on nobody is let in without one.
        """
        secret = f"rh_{secrets.token_urlsafe(32)}"
        with one_line_errors(), database() as url, connect(url) as connection:
            digest = hashlib.sha256(secret.encode()).hexdigest()
            of = "" if project is None else project
            given = {"name": name, "role": role, "sha256": digest, "expires": expires, "project": of}
            try:
                made = next(db.run(connection, "access.create", **given), None)
            except psycopg.errors.UniqueViolation:
                sys.exit(f"There is a token of the name {name} already, if only a revoked one.")
            if not made:
                sys.exit(f"There is no project {project}.")
        click.echo(secret)

    @token.command("list")
    def every() -> None:
        """Show all tokens, without what they are."""
        with one_line_errors(), database() as url, connect(url) as connection:
            for each in db.run(connection, "access.all"):
                reach = f"project {each.project}" if each.project else "everything"
                state = "revoked" if each.revoked_at else f"until {each.expires_at or 'revoked'}"
                click.echo(f"{each.name}\t{each.role}\t{reach}\t{state}\tlast used {each.last_used_at or 'never'}")

    @token.command("revoke")
    @click.argument("name")
    def revoke(name: str) -> None:
        """Take a token back: within 2 seconds it is refused."""
        with one_line_errors(), database() as url, connect(url) as connection:
            if not next(db.run(connection, "access.revoke", name=name), None):
                sys.exit(f"There is no good token of the name {name}.")
        click.echo("It is revoked.")

    @token.command("exist")
    def exist() -> None:
        """Fail unless a token was made."""
        with one_line_errors(), database() as url, connect(url) as connection:
            sys.exit(0 if next(db.run(connection, "access.made")).made else 1)
