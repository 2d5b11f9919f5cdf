"""gunicorn's master, which also keeps the processes beside its workers: PostgreSQL's supervisor and the notifier."""

import json
import mmap
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

import logs

RESTART_AFTER = 1.0
"""Seconds before what died, or could not start, is started again."""


REFUSED_WITHIN = 5.0
"""Seconds in which what stands beside a start that is refused should have ended."""

output = logs.Writer(1)
"""Standard output, which nobody waits for."""


class Beside:
    """A process beside the workers, out of Ctrl-C's reach; it ends when its standard input does: with this one."""

    def __init__(self, name: str, *command: str, **options: Any) -> None:
        self.name, self.command, self.options = name, command, options
        self.ended: float | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, start_new_session=True, **self.options)
        self.ended = None

    def look(self, log: Any) -> None:
        """Pass on what it says, and start it again when it has died."""
        for line in self.said().splitlines():
            with suppress(ValueError):
                if error := json.loads(line).get("error"):
                    log.warning("%s", error)
        if self.process.poll() is None:
            return
        if self.ended is None:
            self.ended = time.monotonic()
            log.warning("%s ended and is started again.", self.name)
        elif time.monotonic() - self.ended > RESTART_AFTER:
            try:
                self.start()
            except OSError as error:
                log.error("%s cannot be started: %s", self.name, error.strerror)
                self.ended = time.monotonic()

    def said(self) -> bytes:
        if self.process.stdout is None:
            return b""
        os.set_blocking(self.process.stdout.fileno(), False)
        with suppress(BlockingIOError):
            return os.read(self.process.stdout.fileno(), 2**16)
        return b""

    def let_go(self, within: float) -> bool:
        """Let it end; whether it did in time."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, within: float) -> None:
        """Let it end; it is killed where it does not in time."""
        if not self.let_go(within):
            self.process.kill()


STOPS = 2
"""What a worker's byte says once the service stops."""

DRAIN = 1.0
"""Seconds in which /health/ready is 503 already, and requests go on: a load balancer learns to send no more."""


class Master(Arbiter):  # type: ignore[misc]
    """Reloads without a gap, and is not ended by code that cannot start."""

    beside: ClassVar[list[Beside]] = []
    served = renew = False

    def start(self) -> None:
        """A start that is refused leaves nothing behind; what is not ready to go is not killed, and goes by itself."""
        try:
            super().start()
        except SystemExit:
            for each in self.beside:
                each.let_go(REFUSED_WITHIN)
            raise

    def handle_hup(self) -> None:
        """Workers start anew, with the code as it is now. Settings stay: they are of the environment."""
        self.renew = True

    def handle_int(self) -> None:
        """Ctrl-C: as TERM, and says so; a second one hurries."""
        output.write("Rowhouse stops.\n")
        self.handle_term()

    def handle_usr2(self) -> None:
        """Another master could have neither this one's database nor its port."""
        self.log.warning("USR2 is not supported: HUP starts the workers anew.")

    def spawn_worker(self) -> Any:
        pid = super().spawn_worker()
        self.WORKERS[pid].leaves = False
        return pid

    def manage_workers(self) -> None:
        """As many workers as there should be; of those too many the oldest go, once as many younger ones serve."""
        for each in self.beside:
            each.look(self.log)
        stay = sorted((worker for worker in self.WORKERS.values() if not worker.leaves), key=lambda worker: worker.age)
        for _ in range(self.num_workers if self.renew else self.num_workers - len(stay)):
            stay.append(self.WORKERS[self.spawn_worker()])
            time.sleep(0.1 * random.random())
        self.renew = False
        serving = sum(worker.serves[0] for worker in stay)
        self.served = self.served or serving > 0
        for worker in stay[: len(stay) - self.num_workers]:
            worker.leaves = not worker.serves[0] or serving > self.num_workers
            serving -= worker.leaves and worker.serves[0]
        for worker in [*self.WORKERS.values()]:
            if worker.leaves:
                self.kill_worker(worker.pid, signal.SIGTERM)

    def stop(self, graceful: bool = True) -> None:
        self.served = True  # what cannot start while all ends ends nothing
        if graceful and any(worker.serves[0] for worker in self.WORKERS.values()):
            for worker in self.WORKERS.values():
                worker.serves[0] = STOPS
            time.sleep(DRAIN)
        super().stop(graceful)

    def reap_workers(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:
            # Where one has served before, the fault may be mended as it came: a full disk, a file half written.
            if not self.served:
                raise
            time.sleep(RESTART_AFTER)


def announce(worker: Any) -> None:
    """Before the fork: a byte that both see, by which the worker says that it serves."""
    worker.serves = mmap.mmap(-1, 1)


def end_at_once(*_: object) -> None:
    """What a worker does that is told to stop while it starts."""
    os._exit(0)
