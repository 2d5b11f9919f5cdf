"""Counters, gauges and histograms, which processes keep together in files that can end none of them.

prometheus_client maps its files into memory. A page for which the disk has no room ends the process that touches it
(SIGBUS), so each page is on disk before it is mapped; where there is no room, the process goes on counting by itself.
"""

import mmap
import struct
from contextlib import suppress
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict

__all__ = [
    "CONTENT_TYPE_LATEST",
    "REGISTRY",
    "CollectorRegistry",
    "Counter",
    "Gauge",
    "GaugeMetricFamily",
    "Histogram",
    "generate_latest",
    "multiprocess",
]

ENTRY = 32
"""Bytes of a number beside its name, at most."""


class Reserved(MmapedDict):
    """A process's numbers, in a file whose pages are on disk; in memory alone where the disk has no room for them."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            if not Path(filename).exists():
                reserve(f"{filename}.new", _INITIAL_MMAP_SIZE)
                Path(f"{filename}.new").rename(filename)  # none is seen that is not whole
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError:
            self._f, self._m = None, mmap.mmap(-1, _INITIAL_MMAP_SIZE)  # type: ignore[assignment]
            self._fname, self._capacity, self._positions, self._used = filename, _INITIAL_MMAP_SIZE, {}, 8
            self._m[:4] = struct.pack("i", self._used)

    def _init_value(self, key: str) -> None:
        while self._used + len(key.encode()) + ENTRY > self._capacity:
            self.grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def grow(self) -> None:
        """Twice the room, in the file where it can be had."""
        old, self._capacity = self._m, self._capacity * 2
        self._m = mmap.mmap(-1, self._capacity)
        if self._f:
            with suppress(OSError):
                reserve(self._fname, self._capacity)
                self._m = mmap.mmap(self._f.fileno(), self._capacity)
        self._m[: len(old)] = old[:]


def reserve(filename: str, size: int) -> None:
    """Write zeros behind a file, made if absent, until it has this size. Raises OSError."""
    with Path(filename).open("ab", buffering=0) as file:
        while file.tell() < size:
            file.write(bytes(size - file.tell()))


values.MmapedDict = Reserved  # type: ignore[attr-defined]
