"""The feed under load: whether all comes once, how late the last of 1,000 sockets and streams has it, what they cost.

.venv/bin/python -m bench.events
"""

import gc
import multiprocessing
import re
import select
import socket
import subprocess
import time
from bisect import bisect_left
from contextlib import ExitStack
from statistics import median, quantiles

import psycopg

from bench.servers import database, free_port, memory, rowhouse
from tests.conftest import serve
from tests.test_feed import exactly_once

SOCKET = (
    "GET /ws/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

STREAM = "GET /changes HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"

SENT = b'"sent '
"""Before the time of its commit, 17 digits, in a change's diff."""


def crowd(port: int, heads: list[str], ready, seconds: float, answer) -> None:
    """A process that listens for each head: how many frames came, and when it got everything up to which change."""
    gc.disable()  # its pauses would be measured, too
    arrivals: dict[int, list[tuple[float, float]]] = {}
    number, waiting = 0, len(heads)
    with ExitStack() as ends:
        poll = ends.enter_context(select.epoll())
        clients = {}
        for head in heads:
            client = ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head.format(port=port).encode())
            poll.register(client, select.EPOLLIN)
            clients[client.fileno()], arrivals[client.fileno()] = client, []
        deadline = time.time() + 60
        while time.time() < deadline:
            for client, _ in poll.poll(0.1):
                block = clients[client].recv(2**18)
                if not block:
                    poll.unregister(client)
                elif (place := block.rfind(SENT)) >= 0:
                    number += block.count(b'"diff"')
                    arrivals[client].append((float(block[place + len(SENT) : place + len(SENT) + 17]), time.time()))
                elif b"subscribed" in block:
                    waiting -= 1
                    if not waiting:
                        ready.set()
                        deadline = time.time() + seconds
    answer.put((number, [*arrivals.values()]))


def write(url: str, rate: float, seconds: float) -> list[tuple[float, float]]:
    """Make changes at a steady rate; returns the time that each carries, and when it was committed."""
    with psycopg.connect(url, autocommit=True) as connection:
        begin, made = time.time(), []
        while (due := begin + len(made) / rate) < begin + seconds:
            time.sleep(max(0, due - time.time()))
            sent = round(time.time(), 6)
            task = len(made) % 400 + 1
            connection.execute("update tasks set status = %s where id = %s", [f"sent {sent:.6f}", task], prepare=True)
            made.append((sent, time.time()))
        return made


def latency(url: str, heads: list[str], rate: float = 200, seconds: float = 20) -> None:
    port = free_port()
    with rowhouse(url, port):
        ready, answer = multiprocessing.Event(), multiprocessing.Queue()
        listeners = multiprocessing.Process(target=crowd, args=(port, heads, ready, seconds + 5, answer))
        listeners.start()
        ready.wait()
        made = write(url, rate, seconds)
        came, arrivals = answer.get()
        listeners.join()
    late = [max(got[bisect_left(got, (sent,))][1] for got in arrivals) - committed for sent, committed in made]
    p99 = quantiles(late, n=100)[98]
    print(
        f"{told(heads)}, {rate:.0f} changes/s for {seconds:.0f} s: {len(made)} changes, {came} frames came;",
        end=" ",
    )
    print(f"from commit to the last of them: median {median(late) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    slow = quantiles((committed - sent for sent, committed in made), n=100)[98]
    print(f"(a commit itself took {slow * 1e3:.0f} ms at the p99)")


def requests_per_second(port: int) -> float:
    command = ["wrk", "-t1", "-c16", "-d5", f"http://127.0.0.1:{port}/users/1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


def told(heads: list[str]) -> str:
    return f"{heads.count(SOCKET)} sockets and {heads.count(STREAM)} streams of events on one process"


def weight(url: str, heads: list[str]) -> None:
    port = free_port()
    with rowhouse(url, port) as pid:
        requests_per_second(port)
        before = memory(pid, "VmRSS")
        ratios = []
        for _ in range(3):
            alone = requests_per_second(port)
            ready, answer = multiprocessing.Event(), multiprocessing.Queue()
            listeners = multiprocessing.Process(target=crowd, args=(port, heads, ready, 8, answer))
            listeners.start()
            ready.wait()
            held = memory(pid, "VmRSS")
            ratios.append(requests_per_second(port) / alone)
            answer.get()
            listeners.join()
        print(f"{told(heads)}: {(held - before) * 1024 / len(heads):.0f} KiB each;", end=" ")
        print(f"GET /users/1 at {median(ratios):.2f} of its rate without them (median of 3 rounds)")


def exactness(url: str, seconds: float = 60) -> None:
    """64 writers, three subscribers that fall off and resume; AssertionError where one misses or repeats a change."""
    with serve(url) as service:
        deadline = time.monotonic() + seconds
        changes, falls = exactly_once(service, lambda: iter(lambda: time.monotonic() < deadline, False))
    print(f"{changes} changes in {seconds:.0f} s, each once to each of 3 subscribers, who fell off {falls} times")


if __name__ == "__main__":
    with database(users=1000, projects=1, userstories=100) as address:
        exactness(address)
        for number in (100, 1000):
            latency(address, [SOCKET] * number)
            latency(address, [SOCKET, STREAM] * number)
        weight(address, [SOCKET] * 4000)
        weight(address, [SOCKET, STREAM] * 1000)
