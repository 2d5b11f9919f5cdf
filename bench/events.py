"""The channel under load: from commit to the last of 1,000 sockets, and what 4,000 sockets cost.

.venv/bin/python -m bench.events
"""

import asyncio
import multiprocessing
import re
import subprocess
import time
from statistics import median, quantiles

import psycopg

from bench.servers import database, free_port, memory, rowhouse

HEAD = (
    "GET /ws/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

SENT = re.compile(rb'"sent ([0-9.]+)"\]')
"""The time of its commit in a change's diff."""


async def listen(port: int, sockets: int, ready, seconds: float, late: list[list[float]]) -> None:
    """Hold so many sockets and note how late each change comes to each."""
    streams = []
    for _ in range(sockets):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(HEAD.format(port=port).encode())
        streams.append((reader, writer))
    for reader, _ in streams:
        await reader.readuntil(b"subscribed")
    ready.set()

    async def note(reader: asyncio.StreamReader) -> None:
        while block := await reader.read(2**16):
            now = time.time()
            for found in SENT.finditer(block):
                late.append((float(found[1]), now))

    tasks = [asyncio.create_task(note(reader)) for reader, _ in streams]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    for _, writer in streams:
        writer.close()


def crowd(port: int, sockets: int, ready, seconds: float, answer) -> None:
    """A process of listeners: for each change, when the last of them got it."""
    late: list = []
    asyncio.run(listen(port, sockets, ready, seconds, late))
    last: dict[float, float] = {}
    number: dict[float, int] = {}
    for sent, now in late:
        last[sent] = max(last.get(sent, 0), now)
        number[sent] = number.get(sent, 0) + 1
    answer.put([(now - sent, number[sent]) for sent, now in sorted(last.items())])


def write(url: str, rate: float, seconds: float) -> int:
    """Commit changes at a steady rate, each with the time of its commit."""
    with psycopg.connect(url, autocommit=True) as connection:
        begin, number = time.time(), 0
        while (due := begin + number / rate) < begin + seconds:
            time.sleep(max(0, due - time.time()))
            connection.execute(
                "update tasks set status = %s where id = %s", [f"sent {time.time()}", number % 400 + 1], prepare=True
            )
            number += 1
        return number


def latency(url: str, sockets: int = 1000, rate: float = 200, seconds: float = 20) -> None:
    port = free_port()
    with rowhouse(url, port):
        ready, answer = multiprocessing.Event(), multiprocessing.Queue()
        listeners = multiprocessing.Process(target=crowd, args=(port, sockets, ready, seconds + 5, answer))
        listeners.start()
        ready.wait()
        written = write(url, rate, seconds)
        found = answer.get()
        listeners.join()
    whole = [after for after, number in found if number == sockets]
    print(f"{sockets} sockets, {rate:.0f} writes/s for {seconds:.0f} s: {written} changes,", end=" ")
    print(f"{len(whole)} reached all;", end=" ")
    p99 = quantiles(whole, n=100)[98]
    print(f"from commit to the last socket: median {median(whole) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")


def requests_per_second(port: int) -> float:
    command = ["wrk", "-t1", "-c16", "-d5", f"http://127.0.0.1:{port}/users/1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


def weight(url: str, sockets: int = 4000) -> None:
    port = free_port()
    with rowhouse(url, port) as pid:
        requests_per_second(port)
        before = memory(pid, "VmRSS")
        ratios = []
        for _ in range(3):
            alone = requests_per_second(port)
            ready, answer = multiprocessing.Event(), multiprocessing.Queue()
            listeners = multiprocessing.Process(target=crowd, args=(port, sockets, ready, 8, answer))
            listeners.start()
            ready.wait()
            held = memory(pid, "VmRSS")
            ratios.append(requests_per_second(port) / alone)
            answer.get()
            listeners.join()
        print(f"{sockets} sockets on one process: {(held - before) * 1024 / sockets:.0f} KiB each;", end=" ")
        print(f"GET /users/1 at {median(ratios):.2f} of its rate without them (median of 3 rounds)")


if __name__ == "__main__":
    with database(users=1000, projects=1, userstories=100) as address:
        latency(address)
        weight(address)
