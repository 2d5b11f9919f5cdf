"""Metrics: what cannot be counted on a full disk is counted in memory, and no process ends of it."""

import subprocess
import sys
import tempfile

import pytest

from tests.conftest import ROOT

COUNTING = """
import os
from contextlib import suppress
from pathlib import Path
directory = os.environ["PROMETHEUS_MULTIPROC_DIR"]
ROOMS = [0, 40, 132]  # KiB that are left, of 1024

from handlers.http.metrics import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

def count(name):
    kinds = [Counter(f"c{name}", "x", ["label"]), Histogram(f"h{name}", "x", ["label"])]
    kinds += [
        Gauge(f"g{mode}{name}", "x", ["label"], multiprocess_mode=mode)
        for mode in ("all", "livesum", "max", "mostrecent")
    ]
    for number in range(150):
        for kind in kinds:
            labelled = kind.labels("x" * 40 + str(number))
            take = getattr(labelled, "observe", None) or getattr(labelled, "set", None) or labelled.inc
            take(number)

for room in ROOMS:
    for path in Path(directory).iterdir():
        path.unlink()
    with (Path(directory) / "fill").open("wb", buffering=0) as fill:
        with suppress(OSError):
            while fill.write(bytes(2**12)):
                pass
        fill.truncate(fill.tell() - room * 2**10)
    pid = os.fork()
    if not pid:
        count(room)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, room
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    generate_latest(registry)
    (Path(directory) / "fill").unlink()
    if not os.fork():
        count("again")
        os._exit(0)
    assert os.wait()[1] == 0
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    assert b"cagain_total{label" in generate_latest(registry), room
print(len(ROOMS))
"""


def test_a_disk_without_room_for_them_ends_no_process():
    with tempfile.TemporaryDirectory(prefix="rowhouse-") as name:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", name], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be had: {mounted.stderr.decode().strip()}")
        try:
            environment = {"PROMETHEUS_MULTIPROC_DIR": name}
            found = subprocess.run(
                [sys.executable, "-c", COUNTING], cwd=ROOT, env=environment, capture_output=True, text=True
            )
        finally:
            subprocess.run(["umount", name], check=True)
    assert (found.returncode, found.stdout) == (0, "3\n"), found.stderr
