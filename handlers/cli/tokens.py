"""flask token create, list, revoke, exist."""

import re
import sys

import click
import psycopg
from flask.cli import AppGroup
from marshmallow import ValidationError

import db
from db.pool import connect
from handlers.cli.common import commands, database, one_line_errors
from handlers.cli.common import create_app as create_app
from handlers.http.auth import ROLES
from handlers.http.fields import BIGINT
from handlers.http.tokens import HolderName, digest, new_secret

token = AppGroup("token", help="Make tokens and take them back.")
commands.cli.add_command(token)

LIFETIME = {"d": "days", "h": "hours", "m": "minutes"}


def lifetime(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """90d, 12h or 30m as PostgreSQL's interval."""
    if value is None:
        return ""
    if not re.fullmatch("[1-9][0-9]{0,4}[dhm]", value):
        raise click.BadParameter("It is a number of days, hours or minutes: 90d, 12h, 30m.")
    return f"{value[:-1]} {LIFETIME[value[-1]]}"


def holder(context: click.Context, argument: click.Parameter, value: str) -> str:
    """Whom history will call so: nobody that it calls so already for another reason."""
    try:
        return str(HolderName().deserialize(value))
    except ValidationError as error:
        raise click.BadParameter(" ".join(error.messages)) from None


@token.command("create")
@click.argument("name", callback=holder)
@click.option("--role", type=click.Choice(ROLES[1:]), required=True, help="What its holder may do.")
@click.option("--project", type=click.IntRange(1, BIGINT), help="The only project it reaches, by its id.")
@click.option("--expires", callback=lifetime, help="After so long it is no longer good: 90d, 12h, 30m.")
def create(name: str, role: str, project: int | None, expires: str) -> None:
    """Make a token and print it, this once. History calls its holder NAME.

    From the first token on nobody is let in without one.
    """
    secret = new_secret()
    with one_line_errors(), database() as url, connect(url) as connection:
        of = "" if project is None else project
        given = {"name": name, "role": role, "sha256": digest(secret), "expires": expires, "project": of}
        # Kept only once it was printed: nobody else could ever say what it is.
        with connection.transaction():
            try:
                made = next(db.run(connection, "tokens.create", **given), None)
            except psycopg.errors.UniqueViolation:
                sys.exit(f"There is a token of the name {name} already, if only a revoked one.")
            if not made:
                sys.exit(f"There is no project {project}.")
            click.echo(secret)


@token.command("list")
def every() -> None:
    """Show all tokens, without what they are."""
    with one_line_errors(), database() as url, connect(url) as connection:
        for each in db.run(connection, "tokens.all"):
            reach = f"project {each.project}" if each.project else "everything"
            state = "revoked" if each.revoked_at else f"until {each.expires_at or 'revoked'}"
            click.echo(f"{each.name}\t{each.role}\t{reach}\t{state}\tlast used {each.last_used_at or 'never'}")


@token.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Take a token back: within 2 seconds it is refused."""
    with one_line_errors(), database() as url, connect(url) as connection:
        if not next(db.run(connection, "tokens.revoke_named", name=name), None):
            sys.exit(f"There is no good token of the name {name}.")
    click.echo("It is revoked.")


@token.command("exist")
def exist() -> None:
    """Fail unless a token was made."""
    with one_line_errors(), database() as url, connect(url) as connection:
        sys.exit(0 if next(db.run(connection, "access.made")).made else 1)
