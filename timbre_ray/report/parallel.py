"""A search in parallel coordinates: one line a trial, from setting to setting to its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from timbre_ray.report.figures import FAINT, INK, LABEL_PT, PAPER, SERIES, WIDTH_IN, Drawing, as_svg, rc
from timbre_ray.report.importances import Drawn, Search
from timbre_ray.report.numbers import number
from timbre_ray.report.pareto import dominates, losses
from timbre_ray.run_specs import RangeSpec

HEIGHT_IN = 3.2
MAX_LINES = 300
"""More would be one grey field; the best by the first objective are drawn."""
NUM_BEST = 3
TICK_PT = 8.0
Height = Callable[[Any], float]


def draw(search: Search) -> Drawing:
    best = best_trials(search)
    ordered = sorted(search.trials, key=lambda trial: losses(trial.values, search.objectives))
    shown = [trial for trial in ordered if trial not in best][: MAX_LINES - len(best)]
    axes_of = [*((_short(key, search.space), _range_height(r), _range_ticks(r)) for key, r in search.space.items())]
    for index, metric in enumerate(search.objectives):
        axes_of.append(_score_axis(metric, [trial.values[index] for trial in search.trials]))
    with mpl.rc_context(rc("parallel")):
        figure = Figure(figsize=(max(WIDTH_IN, 1.15 * len(axes_of)), HEIGHT_IN))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.06, 0.13, 0.86, 0.75))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        _draw_axes(axes, [(name, ticks) for name, _, ticks in axes_of])
        heights = [height for _, height, _ in axes_of]
        for trial in shown:
            _draw_trial(axes, trial, heights, color=FAINT, alpha=0.35, linewidth=0.9)
        for trial in reversed(best):
            _draw_trial(axes, trial, heights, color=SERIES[1 if trial is best[0] else 0], linewidth=2.0)
        title = "Trials in parallel coordinates"
        svg = as_svg(figure, "parallel", title, _describe(search, best))
    return Drawing(title=title, svg=svg, caption=_caption(search, len(shown) + len(best)))


def best_trials(search: Search) -> list[Drawn]:
    """Of one objective the best NUM_BEST trials, of several those that none beats in all; the best by the first come first."""
    ordered = sorted(search.trials, key=lambda trial: losses(trial.values, search.objectives))
    if len(search.objectives) == 1:
        return ordered[:NUM_BEST]
    found = [losses(trial.values, search.objectives) for trial in ordered]
    return [trial for trial, own in zip(ordered, found, strict=True) if not any(dominates(other, own) for other in found)]


def _caption(search: Search, num_shown: int) -> str:
    if len(search.objectives) == 1:
        num = min(NUM_BEST, len(search.trials))
        told = f"One line a finished trial; thick: the best {num}, the very best in the other colour."
    else:
        told = "One line a finished trial; thick: the Pareto front, the best in the first score in the other colour."
    left_out = f" Of {len(search.trials)} trials the best {num_shown} are drawn." if num_shown < len(search.trials) else ""
    return f"{told} The last axes are scores, as they were measured last.{left_out}"


def _describe(search: Search, best: Sequence[Drawn]) -> str:
    told = "; ".join(f"{_settings(trial)}: {_scores(search, trial)}" for trial in best)
    return f"{len(search.trials)} finished trials. Thick lines: {told}."


def _settings(trial: Drawn) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in trial.in_force.items())


def _scores(search: Search, trial: Drawn) -> str:
    return ", ".join(f"{metric} {number(value)}" for metric, value in zip(search.objectives, trial.values, strict=True))


def _draw_axes(axes: Axes, named: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    for place, (name, ticks) in enumerate(named):
        axes.plot([place, place], [0, 1], color=FAINT, linewidth=0.8)
        # Names stand at two heights in turn, so that long ones have room.
        axes.annotate(name, (place, 1), xytext=(0, 8 + 11 * (place % 2)), textcoords="offset points", ha="center",
                      fontsize=LABEL_PT, color=INK, annotation_clip=False)  # fmt: skip
        for text, height in ticks.items():
            ground = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 0.8}  # else lines run through the words
            axes.annotate(text, (place, height), xytext=(4, 0), textcoords="offset points", va="center", fontsize=TICK_PT,
                          color=INK, annotation_clip=False, bbox=ground, zorder=5)  # fmt: skip
    axes.set_xlim(0, len(named) - 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_axis_off()


def _draw_trial(axes: Axes, trial: Drawn, heights: Sequence[Height], **style: Any) -> None:
    values = [*trial.point.values(), *trial.values]
    axes.plot(range(len(values)), [height(value) for height, value in zip(heights, values, strict=True)], clip_on=False, **style)


def _short(key: str, space: Mapping[str, RangeSpec]) -> str:
    """The last part of a dotted key where no other key ends so."""
    name = key.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == name for other in space) == 1 else key


def _range_height(range_: RangeSpec) -> Height:
    if range_.type == "categorical":
        last = max(len(range_.choices) - 1, 1)
        return lambda value: range_.choices.index(value) / last
    scale = math.log if range_.log else float
    low, high = scale(range_.low), scale(range_.high)
    return lambda value: (scale(value) - low) / (high - low)


def _range_ticks(range_: RangeSpec) -> dict[str, float]:
    """Text -> height: every choice, or both ends."""
    height = _range_height(range_)
    return {_text(value): height(value) for value in range_.ends()}


def _score_axis(metric: str, values: Sequence[float]) -> tuple[str, Height, dict[str, float]]:
    low, high = min(values), max(values)
    width = high - low or 1.0
    return metric, lambda value: (value - low) / width, {number(low): 0.0, number(high): (high - low) / width}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
