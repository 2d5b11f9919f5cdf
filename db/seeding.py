"""Sample data in any amount: sql/seed/bulk.sql run slice by slice, each a transaction of its own."""

from collections.abc import Iterator

from db import run
from db.pool import connect
from db.schema import SQL

USERS_SLICE, PROJECTS_SLICE, STORIES_SLICE = 10_000, 500, 500
"""Rows of a slice: what is lost when a run is broken off, and taken up again by the next with the same numbers."""


def seed(dsn: str, users: int, projects: int, userstories: int, seed: int) -> Iterator[int]:
    """Put in what is missing of so many users, projects, and stories in all; yields how many of these a slice has."""
    with connect(dsn) as connection:
        connection.execute("set statement_timeout = 0")
        for first, last in slices(users, USERS_SLICE):
            run(connection, "bulk.users", seed=seed, first=first, last=last)
            yield last - first + 1
        for first, last in slices(projects, PROJECTS_SLICE):
            run(connection, "bulk.projects", seed=seed, first=first, last=last)
            run(connection, "bulk.milestones", seed=seed, first=first, last=last)
            yield last - first + 1
        for project in range(1, projects + 1):
            share = userstories // projects + (project <= userstories % projects)
            for first, last in slices(share, STORIES_SLICE):
                run(connection, "bulk.userstories", seed=seed, project=project, first=first, last=last)
                yield last - first + 1
        connection.execute("analyze")


def slices(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """The first and last number of each slice of the numbers 1 to `rows`."""
    return ((first, min(first + size - 1, rows)) for first in range(1, rows + 1, size))


def put_in_demonstration(dsn: str) -> None:
    """Put in the small demonstration of sql/seed/demo.sql; what is there already stays."""
    with connect(dsn) as connection:
        connection.execute((SQL / "seed" / "demo.sql").read_bytes())
