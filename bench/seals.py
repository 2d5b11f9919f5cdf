"""What seals cost writers: UPDATE and INSERT at 8 clients on a tracked table, without seals and with one each second.

.venv/bin/python -m bench.seals, with pgbench on the PATH or in /usr/lib/postgresql
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psycopg

from bench.history import CLIENTS, ROUNDS, SECONDS, TABLES, WORK, rate
from bench.servers import database


@contextmanager
def sealing(url: str, taken: list[float]) -> Iterator[None]:
    """Seal each second until the block ends: 3,600 times as often as the notifier does."""
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(1):
                began = time.monotonic()
                connection.execute("select history.seal()")
                taken.append(time.monotonic() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main() -> None:
    with database(users=1000, projects=0, userstories=0) as url, psycopg.connect(url, autocommit=True) as connection:
        for statement in TABLES.split(";\n"):
            connection.execute(statement)
        print(f"{CLIENTS} clients, {ROUNDS} rounds of {SECONDS} s each; load {os.getloadavg()[0]:.1f} before\n")
        print("| | without, /s | a seal each second, /s | ratio (least to most) |")
        print("| --- | --- | --- | --- |")
        taken: list[float] = []
        for work in WORK:
            rates = []
            for _ in range(ROUNDS):
                connection.execute("select history.seal()")
                without = rate(url, work, "tracked")
                # What was written meanwhile is not sealed on the time of the others.
                connection.execute("select history.seal()")
                with sealing(url, taken):
                    rates.append((without, rate(url, work, "tracked")))
            ratios = [sealed / without for without, sealed in rates]
            plain, kept = (median(column) for column in zip(*rates, strict=True))
            print(
                f"| {work} | {plain:.0f} | {kept:.0f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
            )
        seals, entries = connection.execute("select count(*), sum(entries) from history.seals").fetchone() or (0, 0)
        print(f"\n{seals} seals of {entries:,} entries; each second's took {median(taken):.2f} s (median)")
        began = time.monotonic()
        wrong = connection.execute("select count(*) from history.verify()").fetchone()
        print(f"verify: {wrong} findings in {time.monotonic() - began:.1f} s; load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
