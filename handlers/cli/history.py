"""flask history track, untrack, seal, verify, prune."""

import getpass
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from flask.cli import AppGroup

import db
from db import partitions
from db.pool import connect
from handlers.cli.common import commands, database, one_line_errors

history = AppGroup("history", help="Care for the history.")
commands.cli.add_command(history)

NO_TABLE = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InvalidName,
    psycopg.errors.SyntaxError,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.NumericValueOutOfRange,
)
"""What PostgreSQL says of a name under which there is no table, or could be none."""

UNFIT = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidTableDefinition,
    psycopg.errors.InvalidParameterValue,
)
"""What history.track() says of a table that it cannot take as it is asked to."""


TOLD = 10
"""Findings that are told one by one."""


def hexadecimal(context: click.Context, option: click.Parameter, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Roots as they were printed."""
    for root in roots:
        if not re.fullmatch("[0-9a-fA-F]{64}", root):
            raise click.BadParameter("It is 64 hexadecimal digits: as flask history seal prints it.")
    return roots


@contextmanager
def working() -> Iterator[db.Connection]:
    """A connection with the rights of the owner, whose statements may take as long as they need."""
    with one_line_errors(), database() as url, connect(url) as connection:
        connection.execute("set statement_timeout = 0")
        yield connection


@contextmanager
def table_errors(table: str) -> Iterator[None]:
    """One line for what a table cannot be, or cannot be now."""
    try:
        yield
    except UNFIT as error:
        sys.exit(f"{str(error.diag.message_primary).removeprefix('history.track: ')}.")
    except psycopg.errors.UniqueViolation:
        sys.exit("Another table is tracked as this kind of object.")
    except psycopg.errors.LockNotAvailable:
        sys.exit(f"{table} is in use: others write to it. Try again.")


def found(connection: db.Connection, table: str) -> str:
    """The table of this name, as PostgreSQL writes it."""
    try:
        row = next(db.run(connection, "history.table", table=table), None)
    except NO_TABLE:
        row = None
    if not row:
        sys.exit(f"There is no table {table}.")
    return str(row.name)


@history.command("track")
@click.argument("table")
@click.option("--obj-type", default="", help="What a row of it is called. [default: as the table, or as it is called]")
@click.option("--project", default="", help="The column that says which project a row belongs to.")
@click.option("--baseline", is_flag=True, help="Note each row that is there: readers of the feed see it created.")
def track(table: str, obj_type: str, project: str, baseline: bool) -> None:
    """Put a table under history and the feed; again without harm: what is not told stays as it is."""
    with working() as connection:
        name = found(connection, table)
        if not next(db.run(connection, "history.keyed", table=name), None):
            sys.exit(f"{name} has no primary key: history could not tell its rows apart.")
        with table_errors(name), connection.transaction():
            db.run(connection, "history.act", actor=f"{getpass.getuser()} (flask)")
            given = {"obj_type": obj_type, "project": project, "baseline": baseline}
            db.run(connection, "history.track", table=name, **given)
        kind = next(db.run(connection, "history.kind", table=name)).obj_type
    click.echo(f"{name} is under history as {kind}.")


@history.command("untrack")
@click.argument("table")
def untrack(table: str) -> None:
    """Take a table out of history and the feed; its entries stay."""
    with working() as connection:
        name = found(connection, table)
        with table_errors(name):
            if not next(db.run(connection, "history.untrack", table=name), None):
                sys.exit(f"{name} is not under history.")
    click.echo(f"{name} is no longer under history; its entries stay.")


@history.command("seal")
def seal() -> None:
    """Seal what is new in history, and print the root: keep it where nobody who may write to the database can.

    The notifier does so each hour, and each backup's manifest has the last root.
    """
    with working() as connection:
        db.run(connection, "seals.make", only_if_due="no")
        made = next(db.run(connection, "seals.last"))
    click.echo(f"Sealed {made.entries:,} entries. The root of seal {made.id:,} is {made.root}")


@history.command("verify")
@click.option("--root", "roots", multiple=True, callback=hexadecimal, help="A root that was kept; any number of them.")
def verify(roots: tuple[str, ...]) -> None:
    """Tell whether history is as it was sealed, up to the latest ROOT that was kept; fail and name what is not.

    Without one, it is told only whether entries and seals agree: who may write both may have changed both.
    """
    with working() as connection:
        found = [*db.run(connection, "seals.verify", roots=[*roots])]
        last = next(db.run(connection, "seals.last"), None)
        proven = [row for root in roots for row in db.run(connection, "seals.of_root", root=root)]
    for each in found:
        if each.finding == "pruned":
            click.echo(f"pruned: {each.entries:,} entries of {each.operation_date[:7]}")
    if wrong := [sentence(each) for each in found if each.finding != "pruned"]:
        more = len(wrong) - TOLD
        sys.exit("\n".join(wrong[:TOLD] + [f"… and {more:,} more"] * (more > 0)))
    if not last:
        sys.exit("There is no seal yet: flask history seal")
    click.echo(f"{last.in_all:,} entries are as they were sealed, in {last.id:,} seals up to {last.sealed_at}.")
    if proven:
        click.echo(f"Up to {max(proven).sealed_at} that is proven by the root that was kept.")
    else:
        click.echo("Nothing proves the seals themselves: give a root that was kept elsewhere, --root.")


def sentence(found: Any) -> str:
    """What is wrong, in a line."""
    if found.finding == "no such root":
        return f"no such root: no seal has {found.obj_type}; seals up to that one were made anew, or removed"
    if found.finding == "seal rewritten":
        return f"seal rewritten: {found.seal:,}, of {found.sealed_at}"
    which = f"entry {found.entry}"
    if found.finding != "removed":
        of = f" {found.obj_id}" if found.obj_id else ""
        which += f", {found.obj_type}{of}, dated {found.operation_date}"
    behind = "after" if found.finding == "slipped in" else "since"
    return f"{found.finding}: {which}, {behind} seal {found.seal:,} of {found.sealed_at}"


def past_day(context: click.Context, option: click.Parameter, value: datetime) -> datetime:
    """A day up to today: what did not end yet is never dropped, and a year that was mistyped drops nothing."""
    if value.replace(tzinfo=UTC) > datetime.now(UTC):
        raise click.BadParameter("It is after today: only months that ended can be dropped.")
    return value


@history.command("prune")
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    callback=past_day,
    required=True,
    help="The first day to be kept, today at the latest.",
)
def prune(before: datetime) -> None:
    """Drop the months of history that ended before a day (by UTC): they can no longer be read or resumed from."""
    with one_line_errors(), database() as url:
        dropped = partitions.prune(url, before.replace(tzinfo=UTC))
        click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There was nothing to drop.")
