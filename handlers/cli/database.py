"""flask migrate, roles, seed, explain."""

import re
import sys

import click

import db
from db import migration_status, schema, seeding
from db.queries import STATEMENTS
from handlers.cli.common import commands, database, one_line_errors

BY_INDEX = r"(?:Index Scan|Index Only Scan|Bitmap Index Scan)(?: Backward)? (?:using|on) (\S+)"
WHOLE = r"Seq Scan on (\S+)"
ROWS, TOUCHED = r"actual time=\S+ rows=(\d+)", r"Buffers: shared((?: (?:hit|read)=\d+)+)"
"""How PostgreSQL says so in the text of a plan: of rows and pages the first is that of the whole."""

MOST = click.IntRange(0, 10_000_000)
SEEDS = click.IntRange(0, 2**31 - 1)


@commands.cli.command("migrate")
@click.option("--status", is_flag=True, help="Only say what was applied and what is pending; 1 where something is.")
@click.option("--dry-run", is_flag=True, help="Only print the SQL and its locks: others wait for these meanwhile.")
def migrate(status: bool, dry_run: bool) -> None:
    """Bring the database up to date."""
    if status and dry_run:
        raise click.UsageError("Either --status or --dry-run.")
    with one_line_errors(), database() as url:
        if status:
            tell_status(url)
        elif dry_run:
            for statements in migration_status.rehearse(url):
                click.echo(statements)
        else:
            applied = schema.migrate(url)
            click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


def tell_status(url: str) -> None:
    found = migration_status.status(url)
    for name, applied_at in found:
        click.echo(f"{name}\t{applied_at or 'pending'}")
    if not all(applied_at for _, applied_at in found):
        sys.exit(1)


@commands.cli.command("roles")
def roles() -> None:
    """Print the SQL that an administrator runs once, where the owner of the tables may not make roles and schemas."""
    with one_line_errors(), database() as url:
        for statement in migration_status.rights(url):
            click.echo(statement)


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
            seeding.put_in_demonstration(url)
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
    values: dict[str, str] = {}
    known = (STATEMENTS[statement].filtered or STATEMENTS[statement]).parameters
    for parameter in parameters:
        name, separator, value = parameter.partition("=")
        if not separator:
            raise click.UsageError(f"{parameter} is no NAME=VALUE.")
        if name in values:
            raise click.UsageError(f"{name} is given twice.")
        if name not in known:
            raise click.UsageError(f"{statement} has no parameter {name}; it has {', '.join(known) or 'none'}.")
        values[name] = value
    with one_line_errors(), database() as url:
        plan = db.explain(url, statement, values)
        click.echo("\n".join([*plan, "", verdict(plan)]))
    if absent := [name for name in known if name not in values]:
        click.echo(f"Not given, and so empty: {', '.join(absent)}.")


def verdict(plan: list[str]) -> str:
    """What a plan comes to: the indexes it went by, the tables it read whole, and what it found and touched."""
    text = "\n".join(plan)
    indexes, tables = (", ".join(dict.fromkeys(re.findall(each, text))) or "none" for each in (BY_INDEX, WHOLE))
    rows, pages = re.search(ROWS, text), re.search(TOUCHED, text)
    touched = sum(map(int, re.findall(r"=(\d+)", pages[1]))) if pages else 0
    return f"Indexes: {indexes}. Read whole: {tables}. Rows: {rows[1] if rows else 0}. Pages: {touched}."
