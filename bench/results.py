"""What was seen, kept while it is measured, and written into RESULTS.md between its markers, with charts beside it."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import CONNECTIONS, Seen
from bench.servers import PEERS

PAGE = Path(__file__).parent / "RESULTS.md"
CHARTS = Path(__file__).parent / "charts"

BY_ID = {"FastAPI, async psycopg": 2.5, "FastAPI, SQLAlchemy": 10, "bare Flask, a constant, on our worker": 0.8}

ASKED: dict[str, dict[str, float]] = {
    "by id, 1 process": BY_ID,
    "by id, 2 processes": BY_ID,
    "by e-mail": {"FastAPI, async psycopg": 2},
    "page of 50": {"FastAPI, async psycopg": 2},
    "search by part of an address": {"FastAPI, async psycopg": 2},
    "PATCH": {"FastAPI, async psycopg": 1},
    "p99 at half of its own maximum": {"FastAPI, async psycopg": 1},
    "p99 at the same rate": {"FastAPI, async psycopg": 1},
    "by id among many": {"Rowhouse among 10,000": 0.9},
}
"""How many times the other's rate ours must at least be; of the waits, at most."""


class Figures:
    """What each side of each work showed in each round."""

    def __init__(self, **scale: Any) -> None:
        self.scale = scale
        self.rates: dict[str, dict[str, list[Seen]]] = {}
        self.waits: dict[str, dict[str, list[tuple[float, float, float]]]] = {}

    def median(self, work: str, name: str) -> float:
        return median(seen.rate for seen in self.rates[work][name])

    def ratios(self, work: str) -> dict[str, float]:
        """Ours over each other side's, the median of the rounds'."""
        values = {name: [seen.rate for seen in rounds] for name, rounds in self.rates.get(work, {}).items()}
        values |= {name: [p99 for _, p99, _ in rounds] for name, rounds in self.waits.get(work, {}).items()}
        ours = values.pop("Rowhouse")
        return {name: median(a / b for a, b in zip(ours, others, strict=True)) for name, others in values.items()}

    def short(self) -> Iterator[tuple[str, str, float, float]]:
        """Work, other side, ratio and what was asked, where it was not reached."""
        for work, asked in ASKED.items():
            if work in self.rates or work in self.waits:
                ratios = self.ratios(work)
                for name, least in asked.items():
                    reached = ratios[name] <= least if work in self.waits else ratios[name] >= least
                    if not reached:
                        yield work, name, ratios[name], least


def spread(values: list[float], digits: int = 0) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def asked_of(work: str, name: str, sign: str) -> str:
    asked = ASKED.get(work, {}).get(name)
    return f"{sign} {asked:g}" if asked else ""


def sides(
    figures: Figures, measured: dict[str, dict[str, list[Any]]]
) -> Iterator[tuple[str, str, list[Any], str, str]]:
    """Each server measured: its work, name and rounds; the work once more where it is to be shown, and the ratio."""
    for work, servers in measured.items():
        ratios = figures.ratios(work)
        for name, rounds in servers.items():
            ratio = f"{ratios[name]:.2f}" if name in ratios else ""
            yield work, name, rounds, work if name == "Rowhouse" else "", ratio


def rates_table(figures: Figures) -> Iterator[str]:
    yield "| work | server | answers/s | CPU, s per 1,000: server, database, generator | Rowhouse is x times | asked |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for work, name, rounds, shown, ratio in sides(figures, figures.rates):
        cpu = ", ".join(
            f"{median(getattr(seen, part) for seen in rounds):.2f}" for part in ("server", "database", "generator")
        )
        rate = spread([seen.rate for seen in rounds])
        yield f"| {shown} | {name} | {rate} | {cpu} | {ratio} | {asked_of(work, name, '≥')} |"


def waits_table(figures: Figures) -> Iterator[str]:
    yield "| work | server | requests/s | median, ms | p99, ms | Rowhouse's p99 is x times | asked |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for work, name, rounds, shown, ratio in sides(figures, figures.waits):
        p50, p99, rates = ([each[part] for each in rounds] for part in (0, 1, 2))
        asked = asked_of(work, name, "≤")
        yield f"| {shown} | {name} | {rates[0]:,.0f} | {spread(p50, 1)} | {spread(p99, 1)} | {ratio} | {asked} |"


def text(figures: Figures) -> str:
    scale = figures.scale
    lines = [
        f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {scale['postgres']};"
        f" {scale['users']:,} users, {CONNECTIONS} connections, random requests,",
        f"{scale['rounds']} rounds of {scale['seconds']:g} s each way in turn after one that is left out. Bodies were"
        " checked meanwhile, and none was wrong. All of Rowhouse is on.",
        "",
        *rates_table(figures),
        "",
        "At a constant rate, whether or not answers come; each wait counts from when its request was due. Each body was"
        " checked. What",
        "the constant shows is the generator's, gunicorn's and Flask's.",
        "",
        *waits_table(figures),
        "",
        "![Answers a second by id](charts/by-id.svg)",
        "![How many times the answers of others](charts/ratios.svg)",
        "![CPU of a thousand answers](charts/cpu.svg)",
        "",
    ]
    short = [
        f"- {work}, beside {name}: {ratio:.2f} where {asked:g} was asked."
        for work, name, ratio, asked in figures.short()
    ]
    return "\n".join([*lines, *(["Short of what was asked:", "", *short] if short else ["Nothing fell short."]), ""])


def put(part: str, words: str) -> None:
    """Write a part of RESULTS.md anew, between its markers."""
    begin, end = f"<!-- {part}: written by it -->\n", f"<!-- end of {part} -->\n"
    page = PAGE.read_text()
    before, found, rest = page.partition(begin)
    assert found and end in rest, f"{PAGE} has no place for {part}"
    PAGE.write_text(before + begin + words + end + rest.partition(end)[2])


def publish(figures: Figures) -> None:
    """Print what was seen; write it into RESULTS.md, and draw it."""
    words = text(figures)
    print(words)
    put("make bench", words)
    kept = {"scale": figures.scale, "rates": figures.rates, "waits": figures.waits}
    kept["ratios"] = {work: figures.ratios(work) for work in [*figures.rates, *figures.waits]}
    kept["asked"] = ASKED
    CHARTS.mkdir(exist_ok=True)
    (CHARTS / "figures.json").write_text(json.dumps(kept, indent=1, default=str) + "\n")
    draw = [str(PEERS / "python"), "-m", "bench.charts"]
    subprocess.run(draw, cwd=PAGE.parent.parent, check=True, stdout=sys.stdout)
