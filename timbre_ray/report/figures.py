"""Figures as inline SVG: text stays text, colours are CSS variables, so that they follow the page in light and dark."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from timbre_ray.report.claims import FAD, METRIC_NAMES, PIANO
from timbre_ray.report.results import Results

# Okabe and Ito's colour-blind safe palette without its yellow; marks differ too, so colour is never alone.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#1a1a19", "#8a8a86"
MAX_LABELS = 14
"""Beyond so many rows, names would cover each other; the tables name them."""
WIDTH_IN, HEIGHT_IN = 5.6, 3.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    title: str
    svg: str
    caption: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Style:
    color: str
    mark: str
    dashed: bool


def draw_all(results: Results) -> tuple[Drawing, ...]:
    """For each target: FAD over steps, piano over steps, and the trade-off at the last step."""
    if results.frame.empty:
        return ()
    drawings = []
    for target in results.targets:
        frame = results.frame[results.frame["target"] == target]
        if frame.empty:
            continue
        floor = results.baselines.get(target, {}).get("metrics", {}).get(FAD)
        styles = {
            arm.label: _Style(color=SERIES[i % len(SERIES)], mark=MARKS[i % len(MARKS)], dashed=arm.teacher)
            for i, arm in enumerate(results.arms)
        }
        drawings.append(_over_steps(frame, target, FAD, "Fréchet distance to held-out recordings", styles, floor))
        drawings.append(_over_steps(frame, target, PIANO, "Confidence in the solo piano", styles, None))
        drawings.append(_trade_off(frame, target, styles, floor, results.untouched.label if results.untouched else None))
    return tuple(d for d in drawings if d is not None)


def _over_steps(
    frame: pd.DataFrame, target: str, metric: str, title: str, styles: Mapping[str, _Style], floor: float | None
) -> Drawing | None:
    scores = frame[frame["metric"] == metric]
    if scores.empty:
        return None
    with mpl.rc_context(_rc(f"{metric}-{target}")):
        figure, axes = _canvas()
        ends = []
        for label, style in styles.items():
            own = scores[scores["arm"] == label]
            if own.empty:
                continue
            means = own.groupby("step")["value"].mean()
            axes.plot(own["step"], own["value"], style.mark, color=style.color, markersize=3, alpha=0.4, linewidth=0)
            line = "--" if style.dashed else "-"
            axes.plot(means.index, means, line, color=style.color, marker=style.mark, markersize=5.5, linewidth=1.6)
            ends.append((float(means.index[-1]), float(means.iloc[-1]), label, style.color))
        steps = sorted(scores["step"].unique())
        axes.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
        axes.set_xticks(steps, [str(step) for step in steps])
        axes.set_xlabel("training steps (square-root scale)")
        _limit(axes, metric, scores["value"].max())
        if floor is not None:
            _floor_line(axes, floor, horizontal=True)
        _label_ends(axes, ends)
        svg = _svg(figure, f"{metric}-{target}", f"{title}, {target}", _describe(scores, metric))
    caption = "Line: mean over seeds; small marks: each seed; dashed: with teacher forcing."
    return Drawing(title=f"{title}, {target}", svg=svg, caption=caption)


def _trade_off(
    frame: pd.DataFrame, target: str, styles: Mapping[str, _Style], floor: float | None, untouched: str | None
) -> Drawing | None:
    last = _wide(frame[frame["final"]])
    if last is None:
        return None
    with mpl.rc_context(_rc(f"trade-off-{target}")):
        figure, axes = _canvas()
        names = []
        for label, style in styles.items():
            if label not in last.index.get_level_values("arm"):
                continue
            own = last.loc[label]
            axes.plot(own[FAD], own[PIANO], style.mark, color=style.color, markersize=3.5, alpha=0.4, linewidth=0)
            axes.plot(own[FAD].mean(), own[PIANO].mean(), style.mark, color=style.color, markersize=8, linewidth=0)
            names.append((float(own[FAD].mean()), float(own[PIANO].mean()), label, style.color))
        start = _wide(frame[(frame["step"] == 0) & (frame["arm"] == untouched)])
        if start is not None:
            x, y = float(start[FAD].mean()), float(start[PIANO].mean())
            axes.plot(x, y, "o", color=INK, markersize=8, markerfacecolor="none", markeredgewidth=1.4)
            names.append((x, y, "untouched backbone", INK))
        axes.set_xlabel("Fréchet distance to held-out recordings  (← closer)")
        axes.set_ylabel("confidence in the solo piano")
        axes.set_xlim(0, max(x for x, _, _, _ in names) * 1.08)
        _limit(axes, PIANO, 1)
        if floor is not None:
            _floor_line(axes, floor, horizontal=False)
        _label_ends(axes, names)
        described = "; ".join(f"{label}: FAD {x:.2f}, piano {y:.2f}" for x, y, label, _ in names)
        svg = _svg(figure, f"trade-off-{target}", f"The trade-off at the last step, {target}", described)
    caption = "Upper left is best: close to the recordings, and the piano kept. Large marks: means; small marks: each seed."
    return Drawing(title=f"The trade-off at the last step, {target}", svg=svg, caption=caption)


def _wide(frame: pd.DataFrame) -> pd.DataFrame | None:
    """FAD and piano side by side, by (arm, seed)."""
    chosen = frame[frame["metric"].isin((FAD, PIANO))]
    wide = chosen.pivot_table(index=["arm", "seed"], columns="metric", values="value")
    return wide.dropna() if {FAD, PIANO} <= set(wide.columns) and len(wide.dropna()) else None


def _rc(salt: str) -> dict[str, object]:
    return {
        "svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    }  # fmt: skip


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.1, 0.14, 0.56, 0.81))
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def _limit(axes: Axes, metric: str, highest: float) -> None:
    if metric == PIANO:
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(0, highest * 1.08)


def _floor_line(axes: Axes, floor: float, *, horizontal: bool) -> None:
    if horizontal:
        axes.axhline(floor, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("real against real", (0.99, floor), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", ha="right", fontsize=8, color=FAINT)  # fmt: skip
    else:
        axes.axvline(floor, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("real against real", (floor, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0),
                      textcoords="offset points", rotation=90, va="bottom", fontsize=8, color=FAINT)  # fmt: skip


def _label_ends(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names in the right margin, in the order of the points' heights, each tied to its point by a hairline."""
    if not points or len(points) > MAX_LABELS:
        return
    low, high = axes.get_ylim()
    gap = 0.062
    ordered = sorted(points, key=lambda point: point[1])
    heights: list[float] = []
    for _, y, _, _ in ordered:
        wanted = (y - low) / (high - low)
        heights.append(max(wanted, heights[-1] + gap) if heights else max(wanted, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    for (x, y, label, color), height in zip(ordered, heights, strict=True):
        axes.annotate(label, (x, y), xytext=(1.05, height), textcoords="axes fraction", va="center", fontsize=8.5, color=INK,
                      annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.7, "shrinkA": 1, "shrinkB": 5})  # fmt: skip


def _describe(scores: pd.DataFrame, metric: str) -> str:
    means = scores.groupby(["arm", "step"], sort=False)["value"].mean()
    arms = dict.fromkeys(means.index.get_level_values("arm"))
    series = (f"{arm}: " + ", ".join(f"{v:.2f} at step {s}" for s, v in means.loc[arm].sort_index().items()) for arm in arms)
    return f"{METRIC_NAMES[metric]}, mean over seeds. " + "; ".join(series) + "."


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as one <svg> element: unique ids, the page's fonts and colours, a text alternative, no link anywhere."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    prefix = re.sub(r"[^a-zA-Z0-9]+", "-", name)
    text = buffer.getvalue()
    inner = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'id="', f'id="{prefix}-', inner)
    inner = re.sub(r"(url\(|href=\")#", rf"\g<1>#{prefix}-", inner)
    inner = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--sans, sans-serif)", inner)
    inner = inner.replace(INK, "currentColor").replace(FAINT, f"var(--faint, {FAINT})")
    for index, color in enumerate(SERIES):
        inner = inner.replace(color, f"var(--series-{index}, {color})")
    width, height = WIDTH_IN * 72, HEIGHT_IN * 72
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{prefix}-title {prefix}-desc">'
        f'<title id="{prefix}-title">{_escape(title)}</title><desc id="{prefix}-desc">{_escape(description)}</desc>{inner}</svg>'
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
