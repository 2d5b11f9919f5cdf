"""What is written to standard error: a line stays a line whatever is in it, and nobody waits for its reader."""

import logging
import os
import re
import time
from _queue import SimpleQueue
from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

# The system's own thread and sleep, from before gevent takes their places: the writer alone may stand still.
sleep = time.sleep

LIMIT = 2**20
"""Bytes that may wait for their reader; what comes beyond them is dropped."""

GATHER = 0.01
"""Seconds in which lines are gathered, to be written at once."""

FLUSH_WITHIN = 1.0
"""Seconds at the end of a process for what still waits."""

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""What a terminal obeys or ends a line at, what turns the direction of text, what is no character, and tags,
which nobody sees."""


def escape(text: str) -> str:
    """A text as one line that only shows what is in it: `\\n`, `\\x1b` and `\\u202e` stand for what they name."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Plain(logging.Formatter):
    """For terminals: lines of a traceback are indented, so that none passes for a line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return escape(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"    {escape(line)}" for line in super().formatException(ei).split("\n"))


class Writer:
    """Writes to a descriptor in a thread of its own, the only one that waits where nobody reads there."""

    def __init__(self, descriptor: int, notice: Callable[[int], str] | None = None) -> None:
        self.descriptor, self.notice = descriptor, notice
        self.begin()
        # A thread stays behind in a fork, and what waits is the parent's to write.
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.texts: SimpleQueue[bytes] = SimpleQueue()
        # Each is counted in one thread alone: no lock.
        self.given = self.taken = self.refused = self.failed = 0
        self.runs = False

    @property
    def dropped(self) -> int:
        """How many texts were never written."""
        return self.refused + self.failed

    def write(self, text: str) -> None:
        """Have a text written, or dropped where too much waits already."""
        data = text.encode("utf-8", "backslashreplace")
        if self.given - self.taken + len(data) > LIMIT:
            self.refused += 1
            return
        self.given += len(data)
        self.texts.put(data)
        if not self.runs:
            self.runs = True
            start_new_thread(self.run, ())

    def run(self) -> None:
        told = 0
        while True:
            texts = [self.texts.get()]
            sleep(GATHER)
            texts += [self.texts.get() for _ in range(self.texts.qsize())]
            try:
                self.put(b"".join(texts))
                if self.notice and self.dropped > told:
                    count = self.dropped
                    self.put(self.notice(count - told).encode())
                    told = count
            except OSError:
                self.failed += len(texts)
            self.taken += sum(map(len, texts))

    def put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.descriptor, data) :]

    def flush(self, within: float = FLUSH_WITHIN) -> None:
        """Wait until all is written, but not for long."""
        deadline = time.monotonic() + within
        while self.taken < self.given and time.monotonic() < deadline:
            sleep(GATHER / 2)


class Handler(logging.Handler):
    """Writes the log to standard error. `count` is told how many lines were dropped since it was told last."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = Writer(2, self.notice)
        self.count: Callable[[int], None] | None = None
        self.counted = 0
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.counted = 0

    def notice(self, lines: int) -> str:
        text = "%s lines of the log were dropped: nobody read them, or they could not be written."
        return self.format(logging.LogRecord("rowhouse", logging.WARNING, "", 0, text, (lines,), None)) + "\n"

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.write(self.format(record) + "\n")
        if self.count and (dropped := self.writer.dropped) > self.counted:
            self.count(dropped - self.counted)
            self.counted = dropped

    def flush(self) -> None:
        self.writer.flush()


def config(level: str) -> dict[str, Any]:
    """The configuration of logging: plain on a terminal, else a JSON object a line."""
    plain = {"()": "logs.Plain", "format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%H:%M:%S"}
    # JSON escapes by itself all that `escape` does.
    lines = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
        "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        "datefmt": "%Y-%m-%dT%H:%M:%S%z",
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"log": plain if os.isatty(2) else lines},
        "handlers": {"stderr": {"()": "logs.Handler", "formatter": "log"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": "WARNING", "propagate": True},
            "rowhouse": {"level": level.upper(), "propagate": True},
        },
    }


def open_missing() -> None:
    """Let what was closed before the start lead nowhere, else the next file that is opened takes its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
