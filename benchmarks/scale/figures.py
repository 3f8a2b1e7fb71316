"""The curves of reports/scale as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS, MARKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"), ("o", "s", "^", "D", "v")
#: Trials that one point of the curve of seconds a trial stands for, as a share of the run.
WINDOW = 0.02


def _canvas(num_axes: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(1, num_axes, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_tune(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """The driver's memory, its CPU time and the seconds a trial takes, over the trials of each run."""
    figure, (memory, cpu, seconds) = _canvas(3, (11, 3.4))
    for run, colour in zip(runs, COLOURS, strict=False):
        name = f"{run['finished']:,} trials"
        during = [s for s in run["samples"] if s["begun"] > 0]
        begun = [s["begun"] for s in during]
        memory.plot(begun, [s["rss_mib"] for s in during], color=colour, label=name)
        cpu.plot(begun[1:], [s["cpu_s"] - during[0]["cpu_s"] for s in during[1:]], color=colour)
        ends = run["finished_at_s"]
        step = max(2, round(WINDOW * len(ends)))
        places = range(step, len(ends), step)
        seconds.plot(places, [(ends[i] - ends[i - step]) / step for i in places], color=colour)
    titles = {memory: "driver's memory (RSS), MiB", cpu: "driver's CPU time, s", seconds: "wall seconds a trial, two at once"}
    for axes, title in titles.items():
        axes.set(xlabel="trials", title=title, xscale="log")
        if axes is cpu:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    memory.legend(frameon=False, loc="lower right")
    _save(figure, path)


def draw_spot(found: dict[str, Any], path: Path) -> None:
    """Makespan over the ideal, and GPU hours computed beyond it, over the rate of interruptions."""
    figure, (makespan, waste) = _canvas(2, (11, 3.6))
    modes = list(dict.fromkeys(row["mode"] for row in found["rows"]))
    rates = sorted({row["rate"] for row in found["rows"] if row["rate"]})
    for mode, colour, mark in zip(modes, COLOURS, MARKS, strict=True):
        rows = [row for row in found["rows"] if row["mode"] == mode and row["rate"]]
        places = [rates.index(row["rate"]) for row in rows]
        makespan.plot(places, [row["times_ideal"] for row in rows], color=colour, marker=mark, label=mode)
        waste.plot(places, [row["beyond_ideal_gpu_h"] / found["ideal_gpu_h"] for row in rows], color=colour, marker=mark)
    titles = {makespan: "simulated makespan over the ideal", waste: "simulated GPU hours beyond the ideal, as a share of it"}
    for axes, title in titles.items():
        axes.set(title=title, xlabel="interruptions a GPU-hour")
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    makespan.axhline(1, color="#8a8a86", linewidth=0.8, linestyle=":")
    makespan.legend(frameon=False, fontsize=8)
    waste.set_ylim(bottom=0)
    _save(figure, path)
