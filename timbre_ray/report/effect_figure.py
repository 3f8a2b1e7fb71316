"""The effects of an ablation's factors as a forest plot: one figure a score, one line an effect with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from timbre_ray.report.effect_forms import by_score
from timbre_ray.report.effects import Effect, Effects
from timbre_ray.report.figures import FAINT, INK, LABEL_PT, SERIES, WIDTH_IN, Drawing, as_svg, rc
from timbre_ray.report.numbers import interval_text

ROW_IN, MARGINS_IN = 0.3, (0.12, 0.62)
"""Height of a line; what is left free above and below the lines."""
MAX_LINES = 40
"""Beyond so many effects a figure is no easier to read than the table."""
CAPTION = (
    "Dot: mean over targets and seeds; bar: its 95 % interval, without correction; diamonds: interactions. In colour: better or "
    "worse after correction. Shaded: effects so small that they count as level."
)


def draw_all(effects: Effects) -> tuple[Drawing, ...]:
    """Of the scores that have figures, where an interval is known and lines are few enough."""
    found = []
    for score, own in by_score(effects, of_figures=True):
        known = [effect for effect in own if effect.difference.interval is not None]
        if known and len(known) <= MAX_LINES:
            found.append(_forest(score, known))
    return tuple(found)


def _forest(score: str, effects: Sequence[Effect]) -> Drawing:
    name, title = f"effects-{effects[0].metric}", f"Effects on {score}"
    with mpl.rc_context(rc(name)):
        height_in = ROW_IN * len(effects) + sum(MARGINS_IN)
        figure = Figure(figsize=(WIDTH_IN, height_in))
        FigureCanvasSVG(figure)
        names_in = LABEL_PT * 0.53 * max(len(effect.name) for effect in effects) / 72 + 0.2
        left, bottom = min(0.6, names_in / WIDTH_IN), MARGINS_IN[1] / height_in
        axes = figure.add_axes((left, bottom, 0.97 - left, ROW_IN * len(effects) / height_in))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        _draw(axes, effects)
        axes.set_xlabel(f"change in {score}")
        described = "; ".join(_in_words(effect) for effect in effects)
        svg = as_svg(figure, name, title, f"Effect and 95 % interval. {described}.")
    return Drawing(title=title, svg=svg, caption=CAPTION)


def _in_words(effect: Effect) -> str:
    return f"{effect.name}: {effect.change_text} ({interval_text(effect.difference.interval)})"


def _draw(axes: Axes, effects: Sequence[Effect]) -> None:
    """The first effect on top."""
    axes.axvspan(-effects[0].margin, effects[0].margin, color=FAINT, alpha=0.15, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=0.9)
    for row, effect in enumerate(reversed(effects)):
        low, high = effect.difference.interval or (effect.difference.mean,) * 2
        shown = effect.verdict in ("better", "worse")
        color = SERIES[0] if shown else INK
        axes.plot([low, high], [row, row], color=color, linewidth=1.8, solid_capstyle="butt")
        mark = "o" if len(effect.factors) == 1 else "D"
        axes.plot(effect.difference.mean, row, mark, color=color, markersize=7 if mark == "o" else 6)
    axes.set_yticks(range(len(effects)), [effect.name for effect in reversed(effects)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(effects) - 0.4)
