"""What the commands share: their database, errors in one line, and when they are told to stop."""

import logging.config
import os
import signal
import sys
import threading
import traceback
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType

from flask import Blueprint, Flask, current_app

import logs
import settings
from db import private_postgres
from db.migrate import one_line
from handlers.bulk import errors

commands = Blueprint("cli", __name__, cli_group=None)


def create_app() -> Flask:
    """An application of the commands that were imported, and of no routes: for a process that does nothing else."""
    app = Flask("app", static_folder=None)
    app.config |= settings.read()
    app.register_blueprint(commands)
    return app


ONE_LINE = (
    OSError,
    errors.Unreadable,
    errors.Damaged,
    errors.TooLarge,
    errors.TooManyRejects,
    errors.NoBackup,
    errors.NoSuchType,
)
"""Errors whose first line is all that a person needs."""


class one_line_errors(AbstractContextManager[None]):
    """Ends a command with one line on standard error where the database cannot be used."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and (line := one_line(error)):
            sys.exit(line)
        if isinstance(error, OSError) and of_output(error):
            sys.exit(unwritten(error))
        if isinstance(error, ONE_LINE):
            sys.exit(str(error).splitlines()[0])


def of_output(error: BaseException) -> bool:
    """Whether it was raised by click.echo, for commands of Flask's own as well."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.name == "echo" and frame.filename.endswith("click/utils.py") for frame in frames)


def unwritten(error: OSError) -> str:
    return f"Standard output cannot be written: {error.strerror}."


def one_line_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As sys.excepthook, but for what no command can help: where it prints to."""
    if isinstance(error, OSError) and of_output(error):
        print(unwritten(error), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = one_line_hook


def stopped(until_eof: bool = False) -> threading.Event:
    """For a command that goes on until it is told to stop: by Ctrl-C, by SIGTERM, or as standard input ends."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def wait_for_signal() -> None:
        signal.sigwait(numbers)
        stop.set()

    def wait_for_eof() -> None:
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        stop.set()

    logging.config.dictConfig(logs.config(current_app.config["LOG_LEVEL"]))
    # Not by a handler: it may run while the event's own lock is held, and would wait for that for ever.
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for wait in (wait_for_signal, wait_for_eof) if until_eof else (wait_for_signal,):
        threading.Thread(target=wait, daemon=True).start()
    return stop


def database() -> AbstractContextManager[str]:
    """The database of a command: DATABASE_URL's, or the private one in DATA_DIR for as long as the command runs."""
    url = current_app.config["DATABASE_URL"]
    return nullcontext(url) if url else private_postgres.server(current_app.config["DATA_DIR"])
