"""README.md of reports/scale, from the parts' JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import figures

PARTS = ("plan", "records", "tune", "spot")
GOALS_S = {"plan": 10.0, "report": 60.0}
"""At ten thousand trials; of the CPU time of the one thread that works, which other work on the machine lengthens less."""
MANY = 10_000

Found = dict[str, Any]


def write(folder: Path) -> Path:
    """Reads the JSON of the parts in ``folder``; returns the README written beside it, with the figures."""
    parts = {part: _read(folder, part) for part in PARTS}
    writers = {"plan": _plan, "records": _records, "tune": _tune, "spot": _spot}
    lines = [
        "# Scale", "",
        "Written by `make scale`. What a sweep of many trials costs besides the trials, and a simulation of spot GPUs.",
        "The trials are stubs without torch (benchmarks/scale/stub.py); their sweep has five arms, two targets and five",
        "rates, and as many seeds as it takes. Each time is of one run; CPU times stand beside wall times, which other",
        "work on the machine lengthens.",
    ]  # fmt: skip
    for part, found in parts.items():
        if found:
            lines += ["", *writers[part](found)]
    if parts["tune"]:
        figures.draw_tune(parts["tune"], folder / "tune.svg")
    if parts["spot"]:
        figures.draw_spot(parts["spot"][0], folder / "spot.svg")
    path = folder / "README.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _read(folder: Path, part: str) -> list[Found]:
    paths = (*folder.glob(f"{part}-*.json"), *folder.glob(f"{part}.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(found, key=lambda one: one.get("trials", one.get("planned", 0)))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|:--|" + "--:|" * (len(header) - 1), *(f"| {' | '.join(row)} |" for row in rows)]


def _where(found: Sequence[Found]) -> str:
    """With the load averages of a minute, before and after: above the number of cores, other work shared them."""
    loads = ", ".join("{:g} to {:g}".format(*one["loads"]) for one in found)
    places = "; ".join(dict.fromkeys(f"{one['machine']}, {one['date']}" for one in found))
    return f"{places}; load average by row: {loads}"


def _against(seconds: float, trials: int, goal: str) -> str:
    if trials != MANY:
        return f"{seconds:.1f}"
    limit = GOALS_S[goal]
    return f"{seconds:.1f} ({'under' if seconds < limit else '**not** under'} {limit:g})"


def _plan(found: Sequence[Found]) -> list[str]:
    rows = [
        (f"{one['trials']:,}", f"{one['wall_s']:.1f}", _against(one["cpu_s"], one["trials"], "plan"), f"{one['peak_mib']:.0f}")
        for one in found
    ]
    return ["## Planning", "", f"`timbre-ray plan`, the whole process, nothing in the store ({_where(found)}).", "",
            *_table(("trials", "wall, s", "CPU, s", "largest memory, MiB"), rows)]  # fmt: skip


def _records(found: Sequence[Found]) -> list[str]:
    rows = []
    for one in found:
        report = one["report"]
        rows.append((
            f"{one['trials']:,}", f"{one['write_s']:.1f}", f"{one['read_s']:.2f}", f"{one['difference_s']:.2f}",
            f"{one['status']['cpu_s']:.1f}", f"{report['wall_s']:.1f}", _against(report["cpu_s"], one["trials"], "report"),
            f"{report['peak_mib']:.0f}", f"{one['page_mib']:.1f}", _opening(one["opens_s"]), f"{one['plan']['cpu_s']:.1f}",
        ))  # fmt: skip
    header = ("trials", "write the ledger, s", "read it, s", "compare with the sweep, s", "`status`, CPU s", "`report`, s",
              "its CPU, s", "its memory, MiB", "its page, MiB", "opens in Chromium, s",
              "`plan` of the finished sweep, CPU s")  # fmt: skip
    return [
        "## Ledger and report", "",
        "Records of finished trials with two evaluations of ten scores each, and in the store the scores of each last step, as a "
        f"report reads them; no audio ({_where(found)}).", "", *_table(header, rows),
    ]  # fmt: skip


def _opening(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})" if seconds else "no Chromium here"


def _tune(found: Sequence[Found]) -> list[str]:
    rows = [
        (
            f"{run['finished']:,} of {run['planned']:,}", f"{run['wall_s'] / 60:.1f}", f"{run['trial_s']:.3f}",
            f"{run['overhead_s']:.3f}", f"{run['early_trial_s']:.3f} / {run['late_trial_s']:.3f}",
            f"{1000 * run['driver_cpu_s']:.0f}", f"{run['early_rss_mib']:.0f} / {run['late_rss_mib']:.0f}", _workers(run),
        )
        for run in found
    ]  # fmt: skip
    header = ("trials finished", "minutes", "s a trial", "overhead, s a trial", "s a trial, early / late",
              "driver's CPU, ms a trial", "driver's memory, MiB, early / late",
              "worker's memory, MiB, first / last trial")  # fmt: skip
    cut = [run for run in found if run["finished"] < run["planned"]]
    short = [
        f"The run of {run['planned']:,} was ended after {run['wall_s'] / 60:.0f} minutes with {run['finished']:,} trials "
        "finished; nothing here is extrapolated." for run in cut
    ]  # fmt: skip
    own = ", ".join(f"{1000 * run['own_s']:.0f}" for run in found)
    return [
        "## A real run of Ray Tune", "",
        f"Two trials at a time, one evaluation actor, Ray's start not counted ({_where(found)}). Overhead: what a trial "
        f"takes of its slot beyond the stub's own time (measured without Ray: {own} ms). Early and late: the first and "
        "the last fifth of the run.",
        "",
        *_table(header, rows), *(["", *short] if short else []), "", "![memory and time over the trials](tune.svg)",
    ]  # fmt: skip


def _workers(run: Found) -> str:
    """Of the process that ran most trials."""
    pids = [worker["pid"] for worker in run["workers"]]
    own = [worker["rss_mib"] for worker in run["workers"] if worker["pid"] == max(set(pids), key=pids.count)]
    return f"{own[0]:.0f} / {own[-1]:.0f}"


def _spot(found: Sequence[Found]) -> list[str]:
    (one,) = found
    return [
        "## A week on spot GPUs: a simulation", "",
        f"**Nothing in this section was run.** {one['trials']:,} trials (the arms and targets of sweeps/mini-ablation.yaml at "
        f"five rates, {one['seeds']} seeds) go through {one['num_gpus']} GPUs that are taken away at random, at a rate that does "
        f"not depend on the time; another comes after {one['restart_s']:g} s. Which stages there are and which are shared is "
        f"what `StageKeys` says of each trial. Times are those below, all multiplied by one factor, {one['factor']:.1f}, chosen "
        f"so that a trial of the plain arm that shares nothing lasts {one['trial_s'] / 3600:g} h: no stage was measured at full "
        f"size. A checkpoint is taken every {one['checkpoint_s']:g} s of Dreambooth; other stages begin anew. Saving, loading "
        f"and transfers take no time. The ideal shares stages and is never interrupted: {one['ideal_days']:.2f} days, "
        f"{one['ideal_gpu_h']:,.0f} GPU-hours (work over GPUs alone: {one['bound_days']:.2f} days). Means of {one['draws']} "
        "draws; in brackets the range.", "",
        *_table(("interruptions a GPU-hour, and how", "makespan, days", "times the ideal", "GPU-hours computed",
                 "beyond the ideal", "of them repeated", "waiting for a shared stage", "interruptions"),
                [_spot_row(row) for row in one["rows"]]), "",
        "![makespan and waste](spot.svg)", "",
        f"Where the stages' times come from: {one['source']}; medians by unit of work (a clip times a sampler step, a clip "
        "trained on, a clip scored).", "",
        *_table(("stage", "measured, s a unit", "simulated, s a unit", "artifacts measured"), [
            (f"{row['stage']} {row['variant']}".strip(), f"{row['measured_s']:.4f}", f"{row['simulated_s']:.3f}",
             str(row["artifacts"]))
            for row in one["times"]
        ]),
    ]  # fmt: skip


def _spot_row(row: Found) -> tuple[str, ...]:
    low, high = row["range"]
    spread = f" ({low:.3f} to {high:.3f})" if high > low else ""
    return (
        f"{row['rate']:g}: {row['mode']}", f"{row['days']:.2f}", f"{row['times_ideal']:.3f}{spread}",
        f"{row['computed_gpu_h']:,.0f}", f"{row['beyond_ideal_gpu_h']:,.0f}", f"{row['repeated_gpu_h']:,.1f}",
        f"{row['waiting_gpu_h']:,.1f}", f"{row['interruptions']:,.0f}",
    )  # fmt: skip
