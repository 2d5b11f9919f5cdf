"""How far long work is, and that it may be broken off: what those who do it know of whoever waits for it."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

Row = TypeVar("Row")

STATEMENT_TIMEOUT = 600
"""Seconds that each statement of long work may take."""

TELL_EVERY = 500
"""Rows after which somebody is told."""


class Progress(Protocol):
    """Told of so many rows more, and of how many in all once that is known."""

    def __call__(self, rows: int, of: int | None = None) -> None: ...


def unseen(rows: int, of: int | None = None) -> None:
    """Progress that nobody looks at."""


def with_progress(rows: Iterator[Row], progress: Progress, all: bool = False) -> Iterator[Row]:
    """The rows, while somebody is told how many there were; where these are `all`, in the end also that they were."""
    number = 0
    for number, row in enumerate(rows, 1):
        yield row
        if number % TELL_EVERY == 0:
            progress(TELL_EVERY)
    progress(number % TELL_EVERY, of=number if all else None)


class Canceled(Exception):
    """Somebody asked for the operation to be broken off, or its client has gone."""
