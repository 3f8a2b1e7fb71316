"""Figures as inline SVG: text stays text, colours are CSS variables, so that they follow the page in light and dark."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from timbre_ray.report.claims import FAD, PIANO, metric_name
from timbre_ray.report.results import Results
from timbre_ray.report.tables import UNTOUCHED_LABEL
from timbre_ray.specs import digest

# Okabe and Ito's colour-blind safe palette without its yellow; marks differ too, so colour is never alone.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT, PAPER = "#1a1a19", "#8a8a86", "#fcfbf8"
MAX_LABELS = 14
"""Beyond so many rows, names would cover each other; the tables name them."""
MAX_NAME = 34
"""Characters of an arm's name for which there is room beside the axes."""
WIDTH_IN, HEIGHT_IN = 5.6, 3.4
LABEL_PT, LABEL_GAP = 9.2, 0.066
"""Size of names, and the least distance between two in shares of the axes' height."""
TICK_PT = 9.5
UNTOUCHED_MARK = "x"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    title: str
    svg: str
    caption: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Style:
    name: str
    """The label as the figure writes it."""
    color: str
    mark: str
    dashed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Named:
    """A point in data coordinates whose name stands in the margin."""

    x: float
    y: float
    label: str
    color: str
    mark: str


def draw_all(results: Results) -> tuple[Drawing, ...]:
    """FAD over steps, piano over steps, the trade-off at the last step: each for every target, on axes of one scale."""
    if results.frame.empty:
        return ()
    styles = _styles(results)
    highest = float(results.frame.loc[results.frame["metric"] == FAD, "value"].max())
    frames = {target: results.frame[results.frame["target"] == target] for target in results.targets}
    floors = {target: results.baselines.get(target, {}).get("metrics", {}).get(FAD) for target in results.targets}
    untouched = {target: results.untouched[results.untouched["target"] == target] for target in results.targets}
    partner = results.partner
    drawings = [
        *(_over_steps(frames[t], t, FAD, partner, styles, floors[t], highest) for t in results.targets),
        *(_over_steps(frames[t], t, PIANO, partner, styles, None, 1.0) for t in results.targets),
        *(_trade_off(frames[t], t, partner, styles, floors[t], untouched[t], highest) for t in results.targets),
    ]
    return tuple(d for d in drawings if d is not None)


def _styles(results: Results) -> dict[str, _Style]:
    """Every arm its own pair of colour and mark, up to 49 of them: marks shift by one with each round of the colours."""
    names = _short_names([arm.label for arm in results.arms])
    styles = {}
    for place, arm in enumerate(results.arms):
        color, mark = SERIES[place % len(SERIES)], MARKS[(place + place // len(SERIES)) % len(MARKS)]
        styles[arm.label] = _Style(name=names[arm.label], color=color, mark=mark, dashed=arm.teacher)
    return styles


def _over_steps(
    frame: pd.DataFrame, target: str, metric: str, partner: str, styles: Mapping[str, _Style], floor: float | None, highest: float
) -> Drawing | None:
    title = "Fréchet distance" if metric == FAD else f"Solo {partner}"
    scores = frame[frame["metric"] == metric]
    if scores.empty:
        return None
    styles = {label: style for label, style in styles.items() if label in set(scores["arm"])}
    with mpl.rc_context(rc(f"{metric}-{target}")):
        figure, axes = _canvas([style.name for style in styles.values()])
        ends = []
        for label, style in styles.items():
            own = scores[scores["arm"] == label]
            means = own.groupby("step")["value"].mean()
            axes.plot(
                own["step"], own["value"], style.mark, color=style.color, markersize=3, alpha=0.4, linewidth=0, clip_on=False
            )
            line = "--" if style.dashed else "-"
            axes.plot(
                means.index, means, line, color=style.color, marker=style.mark, markersize=5.5, linewidth=1.6, clip_on=False
            )
            ends.append(
                _Named(x=float(means.index[-1]), y=float(means.iloc[-1]), label=style.name, color=style.color, mark=style.mark)
            )
        steps = sorted(scores["step"].unique())
        axes.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
        axes.set_xticks(steps, _tick_labels(steps, axes.get_position().width * WIDTH_IN * 72))
        axes.set_xlabel("training steps (square-root scale)")
        axes.set_xlim(0, max(steps[-1], 1))
        axes.set_ylim(0, highest * 1.04)
        axes.set_ylabel("FAD to held-out recordings" if metric == FAD else metric_name(PIANO, partner))
        if floor is not None:
            _floor_line(axes, floor, horizontal=True)
        _label(axes, ends, tied=True)
        described = _describe(scores, metric_name(metric, partner))
        svg = as_svg(figure, f"{metric}-{target}", f"{title} over steps, {target}", described)
    caption = "Line: mean over seeds; small marks: each seed; dashed: with teacher forcing."
    return Drawing(title=f"{title} over steps, {target}", svg=svg, caption=caption)


def _trade_off(
    frame: pd.DataFrame,
    target: str,
    partner: str,
    styles: Mapping[str, _Style],
    floor: float | None,
    untouched: pd.DataFrame,
    highest: float,
) -> Drawing | None:
    last = _wide(frame[frame["final"]])
    if last is None:
        return None
    styles = {label: style for label, style in styles.items() if label in last.index.get_level_values("arm")}
    start = _wide(untouched)
    shown = [style.name for style in styles.values()] + ([] if start is None else [UNTOUCHED_LABEL])
    with mpl.rc_context(rc(f"trade-off-{target}")):
        figure, axes = _canvas(shown)
        names = []
        for label, style in styles.items():
            own = last.loc[label]
            axes.plot(own[FAD], own[PIANO], style.mark, color=style.color, markersize=3.5, alpha=0.4, linewidth=0)
            axes.plot(own[FAD].mean(), own[PIANO].mean(), style.mark, color=style.color, markersize=8, linewidth=0)
            names.append(
                _Named(x=float(own[FAD].mean()), y=float(own[PIANO].mean()), label=style.name, color=style.color, mark=style.mark)
            )
        if start is not None:
            x, y = float(start[FAD].mean()), float(start[PIANO].mean())
            axes.plot(x, y, UNTOUCHED_MARK, color=INK, markersize=10, markeredgewidth=1.3)
            names.append(_Named(x=x, y=y, label=UNTOUCHED_LABEL, color=INK, mark=UNTOUCHED_MARK))
        axes.set_xlabel("FAD to held-out recordings (← closer)")
        axes.set_ylabel(metric_name(PIANO, partner))
        axes.set_xlim(0, highest * 1.04)
        axes.set_ylim(0, 1.04)
        if floor is not None:
            _floor_line(axes, floor, horizontal=False)
        _label(axes, names, tied=False)
        described = "; ".join(f"{n.label}: FAD {n.x:.2f}, {partner} {n.y:.2f}" for n in names)
        svg = as_svg(figure, f"trade-off-{target}", f"The trade-off at the last step, {target}", described)
    caption = f"Upper left is best: close to the recordings, and the {partner} kept. Large marks: means; small marks: each seed."
    return Drawing(title=f"The trade-off at the last step, {target}", svg=svg, caption=caption)


def _wide(frame: pd.DataFrame) -> pd.DataFrame | None:
    """FAD and piano side by side, by (arm, seed)."""
    chosen = frame[frame["metric"].isin((FAD, PIANO))]
    wide = chosen.pivot_table(index=["arm", "seed"], columns="metric", values="value")
    return wide.dropna() if {FAD, PIANO} <= set(wide.columns) and len(wide.dropna()) else None


def _short_names(labels: Sequence[str]) -> dict[str, str]:
    """Where every arm's name continues that of one arm, the others are written …-prior, …-lora: the room belongs to the data.
    What is longer than MAX_NAME even so is cut in its middle, or near it, so that no two names become one."""
    stem = min(labels, key=len)
    names = list(labels)
    if all(label == stem or label.startswith(f"{stem}-") for label in labels):
        names = [label if label == stem else f"…{label.removeprefix(stem)}" for label in labels]
    for left in sorted(range(MAX_NAME), key=lambda left: abs(left - MAX_NAME // 2)):
        cut = [_cut(name, left) for name in names]
        if len(set(cut)) == len(set(names)):
            return dict(zip(labels, cut, strict=True))
    numbered = [_cut(f"{name} ({place})", MAX_NAME // 2) for place, name in enumerate(names, start=1)]
    return dict(zip(labels, numbered, strict=True))


def _cut(name: str, left: int) -> str:
    """At most MAX_NAME characters: ``left`` of the beginning, an ellipsis, the rest of the end."""
    return name if len(name) <= MAX_NAME else f"{name[:left]}…{name[len(name) - (MAX_NAME - 1 - left) :]}"


def _tick_labels(steps: Sequence[int], width_pt: float) -> list[str]:
    """The last step, and, from the first on, those with room for them on the square-root scale; the others are left blank."""
    places = [width_pt * (step / max(steps[-1], 1)) ** 0.5 for step in steps]
    half = [0.6 * TICK_PT * len(str(step)) / 2 + TICK_PT / 4 for step in steps]
    kept: list[int] = []
    for i in range(len(steps) - 1):
        neighbours = [*kept[-1:], len(steps) - 1]
        if all(abs(places[i] - places[other]) >= half[i] + half[other] for other in neighbours):
            kept.append(i)
    return [str(step) if i in kept or i == len(steps) - 1 else "" for i, step in enumerate(steps)]


def rc(salt: str) -> dict[str, object]:
    return {
        "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": salt, "font.size": TICK_PT,
        "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
        "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    }  # fmt: skip


def _canvas(labels: Iterable[str]) -> tuple[Figure, Axes]:
    """Axes with room for the names on their right, where there are not too many of them."""
    names = list(labels)
    names_pt = LABEL_PT * 0.6 * max(map(len, names)) + 22 if len(names) <= MAX_LABELS else 12
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.11, 0.15, max(0.35, 1 - 0.11 - names_pt / (WIDTH_IN * 72)), 0.81))
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def _floor_line(axes: Axes, floor: float, *, horizontal: bool) -> None:
    if horizontal:
        axes.axhline(floor, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("real against real", (0.99, floor), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", ha="right", fontsize=8, color=FAINT)  # fmt: skip
    else:
        axes.axvline(floor, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("real against real", (floor, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0),
                      textcoords="offset points", rotation=90, va="bottom", fontsize=8, color=FAINT)  # fmt: skip


def _label(axes: Axes, points: Sequence[_Named], *, tied: bool) -> None:
    """Names in the right margin, ordered as the points' heights, each with its mark or (``tied``) a hairline to its point."""
    if not points or len(points) > MAX_LABELS:
        return
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point.y)
    heights: list[float] = []
    for point in ordered:
        wanted = max((point.y - low) / (high - low), 0.0)
        heights.append(max(wanted, heights[-1] + LABEL_GAP) if heights else wanted)
    ceiling = 1.0
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - LABEL_GAP
    margin = axes.get_yaxis_transform()  # x in shares of the axes, y in data
    left = 1 + 14 / (axes.get_position().width * WIDTH_IN * 72)
    for point, height in zip(ordered, heights, strict=True):
        y = low + height * (high - low)
        if tied:
            axes.plot([1, left], [point.y, y], color=point.color, linewidth=0.7, alpha=0.8, transform=margin, clip_on=False)
        else:
            axes.plot([left], [y], point.mark, color=point.color, markersize=5.5, transform=margin, clip_on=False)
        offset_pt = 2 if tied else 6
        axes.annotate(point.label, (left, height), xycoords="axes fraction", xytext=(offset_pt, 0), textcoords="offset points",
                      va="center_baseline", fontsize=LABEL_PT, color=INK, annotation_clip=False)  # fmt: skip


def _describe(scores: pd.DataFrame, score: str) -> str:
    means = scores.groupby(["arm", "step"], sort=False)["value"].mean()
    arms = dict.fromkeys(means.index.get_level_values("arm"))
    series = (f"{arm}: " + ", ".join(f"{v:.2f} at step {s}" for s, v in means.loc[arm].sort_index().items()) for arm in arms)
    return f"{score}, mean over seeds. " + "; ".join(series) + "."


def as_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as one <svg> element: unique ids, the page's fonts and colours, a text alternative, no link anywhere."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    prefix = f"figure-{digest(name)[:8]}"
    text = buffer.getvalue()
    inner = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'id="', f'id="{prefix}-', inner)
    inner = re.sub(r"(url\(|href=\")#", rf"\g<1>#{prefix}-", inner)
    inner = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--sans, sans-serif)", inner)
    inner = inner.replace(INK, "currentColor").replace(FAINT, f"var(--faint, {FAINT})").replace(PAPER, f"var(--paper, {PAPER})")
    for index, color in enumerate(SERIES):
        inner = inner.replace(color, f"var(--series-{index}, {color})")
    width, height = (inches * 72 for inches in figure.get_size_inches())
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{prefix}-title {prefix}-desc">'
        f'<title id="{prefix}-title">{_escape(title)}</title><desc id="{prefix}-desc">{_escape(description)}</desc>{inner}</svg>'
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
