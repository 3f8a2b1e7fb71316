"""The effects of an ablation's factors as Markdown, CSV, Parquet and LaTeX."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from timbre_ray.report.claims import METRIC_NAMES
from timbre_ray.report.effects import Effect, Effects
from timbre_ray.report.numbers import NOTHING, digits_beside, interval_text, number, p_text
from timbre_ray.report.textforms import escape_latex, escape_markdown, write_lines

TITLE = "Effects of the factors"
HEADERS = ("effect", "off", "on", "difference", "95 % interval", "p, corrected", "pairs", "verdict")
CSV_HEADER = (
    "metric", "effect", "num_factors", "off", "on", "difference", "low", "high", "p_adjusted", "margin", "num_pairs", "verdict",
)  # fmt: skip


def by_score(effects: Effects, *, of_figures: bool) -> list[tuple[str, list[Effect]]]:
    """Score in words -> its effects: the scores that have a figure, or the others."""
    chosen = [effect for effect in effects.found if (effect.metric in METRIC_NAMES) == of_figures]
    return [(score, list(group)) for score, group in itertools.groupby(chosen, key=lambda effect: effect.score)]


def cells(effect: Effect) -> tuple[str, ...]:
    found = effect.difference
    p = NOTHING if effect.p_adjusted is None else p_text(effect.p_adjusted)
    means = (number(mean, digits=digits_beside(found.interval)) for mean in (effect.off, effect.on))
    return effect.name, *means, effect.change_text, interval_text(found.interval), p, found.pairs_text, effect.verdict_text


def markdown(effects: Effects) -> str:
    """The sentence, a table of every score, the rule."""
    parts = [escape_markdown(effects.sentence)]
    if effects.found:
        head = [f"| score | {' | '.join(HEADERS)} |", "|:--|:--|--:|--:|--:|--:|--:|--:|:--|"]
        rows = [_markdown_row((effect.score, *cells(effect))) for effect in effects.found]
        parts += ["\n".join([*head, *rows]), effects.rule]
    return "\n\n".join(parts)


def _markdown_row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, texts))} |"


def latex(effects: Effects) -> str:
    """A booktabs table of every score; the caption says what is compared."""
    lines = [
        "% needs \\usepackage{booktabs}", r"\begin{table}", r"\centering",
        rf"\caption{{{escape_latex(f'{TITLE}. {effects.rule}')}}}",
        r"\begin{tabular}{lrrrrrrl}", r"\toprule", _latex_row(HEADERS),
    ]  # fmt: skip
    for score, group in itertools.groupby(effects.found, key=lambda effect: effect.score):
        lines += [r"\midrule", rf"\multicolumn{{{len(HEADERS)}}}{{l}}{{\emph{{{escape_latex(score)}}}}} \\"]
        lines += [_latex_row(cells(effect)) for effect in group]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, texts)) + r" \\"


def write(effects: Effects, folder: Path) -> None:
    """effects.csv, .parquet and .tex."""
    lines: list[list[object]] = []
    for effect in effects.found:
        found = effect.difference
        low, high = found.interval or ("", "")
        p = "" if effect.p_adjusted is None else effect.p_adjusted
        scores = [effect.off, effect.on, found.mean, low, high, p, effect.margin]
        lines.append([effect.metric, effect.name, len(effect.factors), *scores, found.num_pairs, effect.verdict_text])
    write_lines(CSV_HEADER, lines, folder / "effects.csv")
    (folder / "effects.tex").write_text(latex(effects), encoding="utf-8")
