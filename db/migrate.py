"""Brings the database of DATABASE_URL up to date, as `flask migrate` does, without loading what serves."""

import sys

import psycopg

import settings
from db.private_postgres import Unavailable
from db.schema import Refused, migrate


def one_line(error: BaseException) -> str | None:
    """What a person needs to know where the database cannot be used; None of other errors."""
    if isinstance(error, psycopg.OperationalError):
        return f"The database is not reachable: {str(error).splitlines()[0]}"
    if isinstance(error, psycopg.IntegrityError):
        # Not the details: they may hold the row.
        return error.diag.message_primary or "The database refused it."
    if isinstance(error, psycopg.ProgrammingError) and not error.sqlstate:
        return f"DATABASE_URL cannot be read: {str(error).splitlines()[0]}"
    return str(error).splitlines()[0] if isinstance(error, psycopg.Error | Refused | Unavailable) else None


if __name__ == "__main__":
    try:
        if applied := migrate(settings.read()["DATABASE_URL"]):
            print(f"The database was brought up to date: {', '.join(applied)}.", file=sys.stderr)
    except (psycopg.Error, Refused) as error:
        sys.exit(one_line(error))
