"""GET /projects/{id}/tree beside FastAPI with SQLAlchemy and pydantic: time, first byte, memory.

make bench-tree, or: .venv/bin/python -m bench.tree [--large]
"""

import json
import sys
import time
from http.client import HTTPConnection
from statistics import median
from typing import Any

from bench.servers import database, fastapi, free_port, memory, rowhouse

ROUNDS = 5


def fetch(port: int, project: int) -> tuple[float, float, bytes]:
    """Seconds to the first byte of the body and to the last, and the body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    connection.request("GET", f"/projects/{project}/tree")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    body = answer.read(1)
    first = time.perf_counter() - began
    body += answer.read()
    return first, time.perf_counter() - began, body


def size(port: int, project: int) -> tuple[float, float, int]:
    """As fetch, but keeps only the length: for trees that are not to be held here either."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    connection.request("GET", f"/projects/{project}/tree")
    answer = connection.getresponse()
    length = len(answer.read(1))
    first = time.perf_counter() - began
    while block := answer.read(2**20):
        length += len(block)
    return first, time.perf_counter() - began, length


def told(tree: dict[str, Any]) -> list[Any]:
    """What both trees must tell, whatever their shape."""
    return [
        [m["id"] for m in tree["milestones"]],
        [
            (
                s["id"],
                s["subject"],
                s["description"],
                s["tags"],
                s["points"],
                [(t["id"], t["subject"], t["status"]) for t in s["tasks"]],
                [(c["id"], c["text"]) for c in s["comments"]],
            )
            for s in tree["userstories"]
        ],
    ]


def compare() -> None:
    with database(users=1000, projects=1, userstories=5000) as url:
        ours, theirs = free_port(), free_port()
        with rowhouse(url, ours) as our_pid, fastapi("orm", url, theirs) as their_pid:
            servers = {"Rowhouse": (ours, our_pid), "FastAPI + ORM": (theirs, their_pid)}
            before = {name: memory(pid) for name, (_, pid) in servers.items()}
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            bodies = {}
            for _ in range(ROUNDS + 1):
                for name, (port, _) in servers.items():
                    first, total, bodies[name] = fetch(port, 1)
                    times[name].append((first, total))
            trees = {name: json.loads(body) for name, body in bodies.items()}
            assert told(trees["Rowhouse"]) == told(trees["FastAPI + ORM"])
            stories = trees["Rowhouse"]["userstories"]
            tasks, comments = (sum(len(s[below]) for s in stories) for below in ("tasks", "comments"))
            print(f"{len(stories)} stories, {tasks} tasks, {comments} comments; {ROUNDS} rounds, the first left out\n")
            print("| | first byte, ms | all, ms (least to most) | body, MB | memory growth, MiB |")
            print("| --- | --- | --- | --- | --- |")
            for name, (_, pid) in servers.items():
                firsts, totals = zip(*times[name][1:], strict=True)
                spread = f"{median(totals) * 1e3:.0f} ({min(totals) * 1e3:.0f} to {max(totals) * 1e3:.0f})"
                growth = memory(pid) - before[name]
                length = len(bodies[name]) / 1e6
                print(f"| {name} | {median(firsts) * 1e3:.0f} | {spread} | {length:.1f} | {growth:.0f} |")
            ratio = [their[1] / our[1] for our, their in zip(*(times[name][1:] for name in servers), strict=True)]
            print(f"\nRatio of all: {median(ratio):.1f} (median of rounds)")


def large() -> None:
    with database(users=1000, projects=1, userstories=100_000) as url:
        port = free_port()
        with rowhouse(url, port) as pid:
            size(port, 1000)  # absent: the process has answered once
            before = memory(pid)
            first, total, length = size(port, 1)
            print(
                f"100,000 stories: {length / 1e6:.0f} MB, first byte {first * 1e3:.0f} ms, all {total:.1f} s,", end=" "
            )
            print(f"memory growth {memory(pid) - before:.0f} MiB")


if __name__ == "__main__":
    large() if "--large" in sys.argv else compare()
