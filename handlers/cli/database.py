"""flask migrate, seed, explain, history prune."""

from datetime import UTC, datetime

import click
from flask.cli import AppGroup

import db
from db import schema, seeding
from db.queries import STATEMENTS
from handlers.cli.common import commands, database, one_line_errors

MOST = click.IntRange(0, 10_000_000)
SEEDS = click.IntRange(0, 2**31 - 1)

history = AppGroup("history", help="Care for the history.")
commands.cli.add_command(history)


@commands.cli.command("migrate")
def migrate() -> None:
    """Bring the database up to date."""
    with one_line_errors(), database() as url:
        applied = schema.migrate(url)
        click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


@commands.cli.command("seed")
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


@commands.cli.command("explain")
@click.argument("statement", type=click.Choice(sorted(STATEMENTS)), metavar="STATEMENT")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
def explain(statement: str, parameters: tuple[str, ...]) -> None:
    """Run a named statement, show its plan, and take back what it changed: flask explain users.get id=7"""
    with one_line_errors(), database() as url:
        values = dict(parameter.split("=", 1) for parameter in parameters)
        click.echo("\n".join(db.explain(url, statement, values)))


@history.command("prune")
@click.option("--before", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The first day to be kept.")
def prune(before: datetime) -> None:
    """Drop the months of history that ended before a day (by UTC): they can no longer be read or resumed from."""
    with one_line_errors(), database() as url:
        dropped = schema.prune(url, before.replace(tzinfo=UTC))
        click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There was nothing to drop.")
