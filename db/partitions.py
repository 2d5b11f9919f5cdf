"""The months' partitions of history: made when the service starts, and daily by the notifier, which runs anyway.

Each is made in a transaction of its own, and gives up where a long reader is in the way: what is written meanwhile goes
to the default partition, and from there to its month the next time.
"""

import logging
import threading
from datetime import datetime

import psycopg

from db import Connection
from db.pool import SERVICE, connect

log = logging.getLogger("rowhouse")

EVERY, RETRY = 86_400.0, 300.0
"""Seconds between two looks at what is missing, and between two tries to make it."""

TIMEOUT = 600
"""Seconds in which what fell into the default partition must be moved to its month."""


def create(connection: Connection) -> list[str]:
    """Make the partitions that are missing, and close the months that are over; returns the names of what was made.

    Raises psycopg's errors, above all LockNotAvailable where others are in the way.
    """
    made = []
    while names := [name for (name,) in connection.execute("select history.create_partitions()")]:
        made += names
    connection.execute("select history.close_partitions()")
    return made


def keep(dsn: str, stop: threading.Event) -> None:
    """Make the partitions at once and daily, until told to stop; where others are in the way, once they may be gone."""
    while not stop.is_set():
        wait = EVERY
        try:
            with connect(dsn, f"{SERVICE} -c statement_timeout={TIMEOUT}s", "partitions") as connection:
                if made := create(connection):
                    log.info("History has the partitions %s.", ", ".join(made))
        except psycopg.Error as error:
            log.warning("The partitions of history are to be made later: %s", str(error).partition("\n")[0])
            wait = RETRY
        stop.wait(wait)


def prune(dsn: str, before: datetime) -> list[str]:
    """Drop the months of history that ended by then; returns the names of their partitions."""
    with connect(dsn) as connection:
        connection.execute("set statement_timeout = 0")
        return [name for (name,) in connection.execute("select history.prune($1)", [before])]
