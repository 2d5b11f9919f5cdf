"""Draws what make bench saw: bench/charts/figures.json to SVG files that can be read on white and on black.

.venv-bench/bin/python -m bench.charts
"""

import json
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

CHARTS = Path(__file__).parent / "charts"

GREY, OURS, THEIRS, THIRD = "#808080", "#2f81c7", "#a8a8a8", "#d98e3b"

plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "rowhouse",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "ytick.left": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    }
)


def save(figure: "plt.Figure", name: str) -> None:
    # Without a date, so that the same figures make the same file.
    figure.savefig(CHARTS / f"{name}.svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def by_id(figures: dict) -> None:
    works = [work for work in ("by id, 1 process", "by id, 2 processes") if work in figures["rates"]]
    figure, plots = plt.subplots(len(works), 1, figsize=(8, 2.4 * len(works)), squeeze=False, sharex=True)
    for plot, work in zip(plots[:, 0], works, strict=True):
        # The statement alone makes ten times as many: beside it all else would look the same.
        sides = {name: rounds for name, rounds in figures["rates"][work].items() if not name.startswith("pgbench")}
        rates = {name: [seen[0] for seen in rounds] for name, rounds in sides.items()}
        middle = {name: median(values) for name, values in rates.items()}
        reach = [
            [middle[name] - min(values) for name, values in rates.items()],
            [max(values) - middle[name] for name, values in rates.items()],
        ]
        colors = [OURS if name == "Rowhouse" else THEIRS for name in rates]
        plot.barh([*rates], [*middle.values()], xerr=reach, color=colors, ecolor=GREY, height=0.6)
        plot.invert_yaxis()
        plot.set_title(f"{work}: answers a second", loc="left", fontsize=10)
    save(figure, "by-id")


def ratios(figures: dict) -> None:
    """Each ratio beside what was asked of it, on a scale on which half and double are equally far from one."""
    rows = [
        (f"{work} / {name}", figures["ratios"][work][name], asked, work in figures["waits"])
        for work, sides in figures["asked"].items()
        if work in figures["ratios"]
        for name, asked in sides.items()
    ]
    figure, plot = plt.subplots(figsize=(8, 0.36 * len(rows) + 0.6))
    for row, (_, ratio, asked, least) in enumerate(rows):
        reached = ratio <= asked if least else ratio >= asked
        plot.plot([ratio, asked], [row, row], color=GREY, linewidth=1)
        plot.plot(asked, row, marker="|", markersize=14, color=GREY)
        plot.plot(ratio, row, marker="o", color=OURS if reached else THIRD)
        plot.annotate(f"{ratio:.2f}", (ratio, row), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    plot.set_yticks(range(len(rows)), [label for label, *_ in rows])
    plot.invert_yaxis()
    plot.set_xscale("log")
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    plot.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    plot.minorticks_off()
    title = (
        "How many times the other's (dot; orange: short of what was asked); asked (line); of p99 the less, the better"
    )
    plot.set_title(title, loc="right", fontsize=9)
    save(figure, "ratios")


def cpu(figures: dict) -> None:
    rows = [
        (f"{work}: {name}", [median(seen[part] for seen in rounds) for part in (1, 2, 3)])
        for work, sides in figures["rates"].items()
        for name, rounds in sides.items()
    ]
    figure, plot = plt.subplots(figsize=(8, 0.26 * len(rows) + 0.8))
    left = [0.0] * len(rows)
    parts = zip(("server", "database", "generator"), (OURS, THIRD, THEIRS), strict=True)
    for part, (label, color) in enumerate(parts):
        values = [cost[part] for _, cost in rows]
        plot.barh([name for name, _ in rows], values, left=left, color=color, label=label, height=0.7)
        left = [sum(pair) for pair in zip(left, values, strict=True)]
    plot.invert_yaxis()
    plot.set_title("CPU seconds of 1,000 answers", loc="left", fontsize=10)
    plot.legend(frameon=False, loc="lower right")
    save(figure, "cpu")


def main() -> None:
    figures = json.loads((CHARTS / "figures.json").read_text())
    for draw in (by_id, ratios, cpu):
        draw(figures)


if __name__ == "__main__":
    main()
