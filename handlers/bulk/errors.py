"""Why tables cannot be moved or changes undone: each with its message; routes and commands translate them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Unreadable(Exception):
    """The file as a whole cannot be read; the message says why."""


class Damaged(Exception):
    """The file cannot be taken as rows of this table; the message says why."""


class TooLarge(Exception):
    """The file is larger than its limit once unpacked."""


class TooManyRejects(Exception):
    """More rows break a rule than are kept of a file."""


class NoBackup(Exception):
    """There is no such backup."""


class ChangedSince(Exception):
    """What is to be undone was changed by others since: `conflicts` tells what, and of which objects."""

    def __init__(self, conflicts: list[dict[str, Any]]) -> None:
        super().__init__("Others changed the same since, or took away what it needs.")
        self.conflicts = conflicts


class NoSuchType(Exception):
    """A column is of a type that no backup has; the message says which."""


@contextmanager
def damaged(sentence: str) -> Iterator[None]:
    """Whatever a parser makes of bytes that it does not expect is Damaged, and said so."""
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(sentence) from error
