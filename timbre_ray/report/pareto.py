"""What a search over several metrics found: the finished trials that no other beats in all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from timbre_ray.report.numbers import number
from timbre_ray.report.results import Results, point_in_force

READING = (
    "These trials are the front: none of the others is at least as good in every metric and better in one. Every trial counts "
    "with its last scores, which may be early ones: “at step” says of which step."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """Trials at their last evaluation, the best of the first metric first."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Trial, its values of the metrics, the step of these, what the search chose for it."""
    num_trials: int
    """Finished trials that they were compared with, themselves among them."""


def front(results: Results) -> Front | None:
    """None unless the sweep is a search over more than one metric of which a trial has finished."""
    objectives = dict(results.sweep.get("objectives") or {})
    finished = [trial for trial in results.with_status("finished") if trial["evaluations"]]
    if len(objectives) < 2 or not finished:
        return None
    last = {trial["trial_id"]: trial["evaluations"][-1] for trial in finished}
    values = {name: [evaluation["metrics"][metric] for metric in objectives] for name, evaluation in last.items()}
    found = {name: losses(measured, objectives) for name, measured in values.items()}
    best = [name for name in found if not any(dominates(other, found[name]) for other in found.values())]
    points = {trial["trial_id"]: settings(point_in_force(trial)) for trial in finished}
    rows = [
        (name, *(number(value) for value in values[name]), str(last[name]["step"]), points[name])
        for name in sorted(best, key=lambda name: found[name])
    ]
    headers = ("trial", *(f"{metric} ({mode})" for metric, mode in objectives.items()), "at step", "settings")
    return Front(headers=headers, rows=tuple(rows), num_trials=len(finished))


def settings(point: Mapping[str, Any]) -> str:
    """What a search chose for a trial, on one line."""
    return ", ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in point.items())


def losses(values: Sequence[float], objectives: Mapping[str, str]) -> list[float]:
    """Values of the objectives so that less is better; objectives: metric -> min or max."""
    return [value if mode == "min" else -value for value, mode in zip(values, objectives.values(), strict=True)]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Pareto dominance of losses."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
