"""Metrics: what cannot be counted on a full disk is counted in memory, and no process ends of it."""

import subprocess
import sys
import tempfile

import psycopg
import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from app import create_app
from db import private_postgres
from tests.conftest import ROOT, serve, wait_for
from tests.test_frozen import frozen

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


def test_the_counts_of_all_processes_are_found_whatever_their_directory_is_called(tmp_path, monkeypatch):
    directory = tmp_path / "a[b]*?"
    directory.mkdir()
    counts = MmapedDict(str(directory / "counter_1.db"))
    counts.write_value(mmap_key("found_total", "found_total", [], [], "x"), 3.0, 0.0)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    assert "\nfound_total 3.0" in create_app().test_client().get("/metrics").text


def waiting(service):
    """How many events wait, and for how many seconds the oldest: as /metrics says it, if it does."""
    found = [line.split() for line in service.get("/metrics").text.splitlines() if line.startswith("rowhouse_events_")]
    values = {name: float(value) for name, value in found}
    return values.get("rowhouse_events_waiting"), values.get("rowhouse_events_oldest_seconds")


@pytest.mark.thorough
def test_what_waits_is_told_whoever_sends_it_or_nobody(tmp_path):
    """It is in the database; a notifier that is away, or ends again and again, could not say so."""
    directory = tmp_path / "data"
    with private_postgres.server(directory) as url, serve(url) as service:
        assert waiting(service) == (0, 0)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "insert into events (user_id, description, created_at) select 'ann', 'x', now() - interval '1 hour' * i"
                " from generate_series(3, 1, -1) as i"
            )
            wait_for(lambda: waiting(service)[0] == 3)
            assert 3 * 3600 <= waiting(service)[1] < 3 * 3600 + 60
            connection.execute(
                "update events set status = 'Processed' where id = (select min(id::text) from events)::uuid"
            )
            wait_for(lambda: waiting(service)[0] == 2)
            assert 2 * 3600 <= waiting(service)[1] < 2 * 3600 + 60
            connection.execute("delete from events")
            wait_for(lambda: waiting(service) == (0, 0))
        with frozen(directory):
            wait_for(lambda: waiting(service) == (None, None), 40)
        wait_for(lambda: waiting(service) == (0, 0))
