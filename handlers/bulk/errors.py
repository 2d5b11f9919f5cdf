"""Why tables cannot be moved: each with its message; routes and commands translate them."""


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
