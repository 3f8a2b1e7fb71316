"""Tables as CSV (one score a line), Parquet with the same lines, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from timbre_ray.report.comparisons import Contrasts
from timbre_ray.report.numbers import NOTHING
from timbre_ray.report.paper import COLUMN_HEADER
from timbre_ray.report.results import Results
from timbre_ray.report.tables import COMMON_NOTE, Cell, Column, Row, Table

CSV_HEADER = ("target", "row", "metric", "step", "mean", "std", "num_seeds", "num_clips", "paper")
CONTRAST_HEADER = (
    "metric", "arm", "baseline", "mean", "baseline_mean", "difference", "low", "high", "p_adjusted", "margin", "num_pairs",
    "verdict",
)  # fmt: skip
TEXTS = ("step", "num_clips", "paper", "verdict")
"""Columns that hold text beside numbers: a step may be "last"."""
MAY_BE_EMPTY = ("std", "low", "high", "p_adjusted")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "é": r"\'e", "±": r"$\pm$", "−": "$-$", "–": "--", "’": "'",
    "“": "``", "”": "''", "×": r"$\times$", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


def write_all(tables: Sequence[Table], results: Results, folder: Path) -> None:
    """.csv, .parquet and .tex of each table, and trials.*: every finished trial's scores, of which the tables are made."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        write_lines(CSV_HEADER, _csv_lines(table), folder / f"{table.slug}.csv")
        (folder / f"{table.slug}.tex").write_text(latex(table), encoding="utf-8")
    write_frame(results.frame.drop(columns="final"), folder / "trials.csv")


def write_contrasts(contrasts: Contrasts, folder: Path) -> None:
    """comparisons.*: every arm against the baseline; empty but for its header where there is nothing to compare."""
    lines: list[list[object]] = []
    for c in contrasts.found:
        low, high = c.difference.interval or ("", "")
        p = "" if c.p_adjusted is None else c.p_adjusted
        scores = [c.arm_mean, c.baseline_mean, c.difference.mean, low, high, p, c.margin]
        lines.append([c.metric, c.arm, c.baseline, *scores, c.difference.num_pairs, c.verdict_text])
    write_lines(CONTRAST_HEADER, lines, folder / "comparisons.csv")


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """path: of the .csv; the .parquet lies beside it."""
    frame.to_csv(path, index=False, lineterminator="\n")
    frame.to_parquet(path.with_suffix(".parquet"), index=False)


def write_lines(header: Sequence[str], lines: list[list[object]], path: Path) -> None:
    """An empty field of the .csv is null in the .parquet."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    kept = [[_typed(name, value) for name, value in zip(header, line, strict=True)] for line in lines]
    frame = pd.DataFrame(kept, columns=list(header))
    types = {name: "string" for name in TEXTS if name in header} | {name: "float64" for name in MAY_BE_EMPTY if name in header}
    frame.astype(types).to_parquet(path.with_suffix(".parquet"), index=False)


def _typed(name: str, value: object) -> object:
    if value == "":
        return None
    return str(value) if name in TEXTS else value


def digits_of(table: Table) -> dict[Column, int]:
    """Decimals of each column: two, three where every value is below 0.1."""
    digits = {}
    for index, column in enumerate(table.columns):
        means = [abs(row.cells[index].mean) for section in table.sections for row in section.rows if row.cells[index]]
        digits[column] = 3 if means and max(means) < 0.1 else 2
    return digits


def mean_text(cell: Cell, digits: int) -> str:
    return f"{cell.mean:.{digits}f}".replace("-", "−")


def std_text(cell: Cell, digits: int) -> str:
    return "" if cell.std is None else f"± {cell.std:.{digits}f}"


def seeds_text(row: Row) -> str:
    return NOTHING if row.kind == "floor" else str(row.num_seeds)


def margin_headers(table: Table) -> list[str]:
    """Headings of what stands right of the scores."""
    steps, paper = ["at step"] if table.has_steps else [], [COLUMN_HEADER] if table.has_paper else []
    return [*steps, "seeds", "clips", *paper]


def margin_texts(table: Table, row: Row) -> list[str]:
    """What stands right of the scores, under ``margin_headers``."""
    steps, paper = [row.at_step or NOTHING] if table.has_steps else [], [row.paper or NOTHING] if table.has_paper else []
    return [*steps, seeds_text(row), row.num_clips, *paper]


def _csv_lines(table: Table) -> list[list[object]]:
    lines: list[list[object]] = []
    for section in table.sections:
        for row in section.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell:
                    step = "last" if column.step is None else column.step
                    std = "" if cell.std is None else cell.std
                    scores = [step if row.kind == "arm" else "", cell.mean, std, cell.num_seeds]
                    lines.append([section.target, row.label, column.metric, *scores, row.num_clips, row.paper or ""])
    return lines


def markdown(table: Table) -> str:
    names = [c.full_header for c in table.columns] if heading_spans(table) else headers(table)
    header = ["", *names, *margin_headers(table)]
    lines = ["| " + " | ".join(map(escape_markdown, header)) + " |", "|:--|" + "--:|" * (len(header) - 1)]
    digits = digits_of(table)
    for section in table.sections:
        if len(table.sections) > 1:
            lines.append(f"| **{escape_markdown(section.target)}** |" + " |" * (len(header) - 1))
        for row in section.rows:
            lines.append("| " + " | ".join(_texts(table, row, digits, escape_markdown, "**{}**".format)) + " |")
    return "\n".join(lines)


def latex(table: Table) -> str:
    """A booktabs table; the caption says what is compared."""
    spans, margin = heading_spans(table), margin_headers(table)
    width = 1 + len(table.columns) + len(margin)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}. {escape_latex(' '.join([COMMON_NOTE, *table.notes]))}}}",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
    ]
    if spans:
        heads = (rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(g)}}}" for g, n in spans)
        lines.append(" & ".join(["", *heads, *[""] * len(margin)]) + r" \\")
    lines.append(" & ".join(escape_latex(text) for text in ["", *headers(table), *margin]) + r" \\")
    digits = digits_of(table)
    for section in table.sections:
        lines.append(r"\midrule")
        if len(table.sections) > 1:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(section.target)}}}}} \\")
        lines += [" & ".join(_texts(table, row, digits, escape_latex, r"\textbf{{{}}}".format)) + r" \\" for row in section.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _texts(
    table: Table, row: Row, digits: dict[Column, int], escape: Callable[[str], str], bold: Callable[[str], str]
) -> list[str]:
    texts = [escape(row.label)]
    for column, cell in zip(table.columns, row.cells, strict=True):
        if cell is None:
            texts.append(escape(NOTHING))
            continue
        mean = escape(mean_text(cell, digits[column]))
        texts.append(f"{bold(mean) if cell.is_best else mean} {escape(std_text(cell, digits[column]))}".rstrip())
    return [*texts, *map(escape, margin_texts(table, row))]


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Neighbouring columns of one step: (heading, number of columns)."""
    spans: list[tuple[str, int]] = []
    for column in columns:
        if spans and spans[-1][0] == column.group:
            spans[-1] = (column.group, spans[-1][1] + 1)
        else:
            spans.append((column.group, 1))
    return spans


def heading_spans(table: Table) -> list[tuple[str, int]]:
    """The upper row of headings; empty where one row is enough."""
    spans = _spans(table.columns)
    return spans if any(group for group, _ in spans) and any(width > 1 for _, width in spans) else []


def headers(table: Table) -> list[str]:
    """The lower row of headings, or the only one."""
    return [c.header if not c.group or heading_spans(table) else c.group for c in table.columns]


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Text that Markdown must show as it is: no markup, no HTML, no line break inside a table."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)
