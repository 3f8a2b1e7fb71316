"""The paper's Tables 2 to 7 as data; ``textforms`` and ``page`` give them their shapes.

The paper's text could not be consulted while this was written: what each table compares is our reading of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from timbre_ray.report.paper import UNTOUCHED_KEY, PaperValues
from timbre_ray.report.results import Arm, Results

RowKind = Literal["floor", "untouched", "arm"]
FLOOR_LABEL = "real against real (floor)"
UNTOUCHED_LABEL = "untouched backbone"
COMMON_NOTE = (
    "Mean over seeds ± standard deviation between them. Bold: the best mean of the arms, which need not be told apart from "
    "the next. The untouched backbone makes the same clips at every seed and has no spread; recordings stand as a floor "
    "where a score needs no prompt."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    metric: str
    header: str
    step: int | None
    """None: each trial's last step. Columns at one step stand under one heading."""
    best: Literal["low", "high"]

    @property
    def group(self) -> str:
        return "" if self.step is None else f"step {self.step}"

    @property
    def full_header(self) -> str:
        return ", ".join(part for part in (self.group, self.header) if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    mean: float
    std: float | None
    """Sample standard deviation over seeds; None for one seed and for baselines."""
    num_seeds: int
    is_best: bool = False
    """The best mean of the section's arms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    label: str
    kind: RowKind
    cells: tuple[Cell | None, ...]
    num_seeds: int
    num_clips: str
    at_step: str
    """Of the trials' last scores; where these differ, the first and the last. Empty for recordings."""
    paper: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    target: str
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    number: str
    slug: str
    title: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    has_paper: bool
    has_steps: bool
    """Its rows' last scores are of different steps, or may be, as in a search that stops trials early."""
    notes: tuple[str, ...]


def build_all(results: Results, paper_values: PaperValues | None) -> tuple[Table, ...]:
    """Tables 2 to 7, in order, of a search without 2; a target beyond the second gets its own table after Table 4.

    Raises ValueError for a floor that is no finite number.
    """
    _check_floors(results)
    everyone = results.arms
    plain_and_taught = tuple(arm for arm in everyone if arm.method == "direct")

    def table(
        number: str, slug: str, title: str, columns: Sequence[Column], arms: Sequence[Arm], targets: Sequence[str]
    ) -> Table:
        rows_of_paper = (paper_values or {}).get(number, {})
        sections = tuple(_section(results, target, tuple(columns), arms, rows_of_paper) for target in targets)
        return Table(
            number=number,
            slug=slug,
            title=title,
            columns=tuple(columns),
            sections=sections,
            has_paper=bool(rows_of_paper),
            has_steps=any(column.step is None for column in columns) and (results.is_search or _differ_in_steps(sections)),
            notes=_notes(sections),
        )

    built = []
    if not results.is_search:  # whose trials end at many steps, and differ in more than teacher forcing
        over_steps = [column for step in results.steps for column in _fad_columns(results, step)]
        title = "Fréchet distance over steps, with and without teacher forcing"
        built.append(table("2", "table-2-teacher-forcing", title, over_steps, plain_and_taught, results.targets))
    for index, target in enumerate(results.targets):
        number, slug = (str(3 + index), f"table-{3 + index}-fad") if index < 2 else ("4", f"table-4-fad-{target}")
        title = f"Fréchet distance of all arms at the last step, {target}"
        built.append(table(number, slug, title, [*_fad_columns(results, None), *_measured_columns(results)], everyone, [target]))
    built += [
        table("5", "table-5-duet-rank", f"Rank of the {results.partner} in the duet",
              [_column("duet_partner_rank", "rank", step, "low") for step in results.steps], everyone, results.targets),
        table("6", "table-6-duet-confidence", f"The classifier’s confidence in target and {results.partner}",
              [_column("duet_target_confidence", "target, in the duet", None, "high"),
               _column("duet_partner_confidence", f"{results.partner}, in the duet", None, "high"),
               _column("solo_target_confidence", "target, in the solo", None, "high")], everyone, results.targets),
        table("7", "table-7-solo-piano", f"What is left of the solo {results.partner}",
              [_column("partner_confidence", f"confidence in the {results.partner}", None, "high"),
               _column("partner_rank", f"rank of the {results.partner}", None, "low")], everyone, results.targets),
    ]  # fmt: skip
    return tuple(built)


def _column(metric: str, header: str, step: int | None, best: Literal["low", "high"]) -> Column:
    return Column(metric=metric, header=header, step=step, best=best)


def _fad_columns(results: Results, step: int | None) -> list[Column]:
    columns = []
    for suffix in results.embedders or ("",):
        name = f" ({suffix[1:]})" if suffix else ""
        columns.append(_column(f"fad_held_out{suffix}", f"held-out{name}", step, "low"))
        columns.append(_column(f"fad_train{suffix}", f"training set{name}", step, "low"))
    return columns


def _measured_columns(results: Results) -> list[Column]:
    """What stands beside the distance where it was measured: extrapolated, by kernel, and CLAP's similarities."""
    measured = set(results.frame["metric"].unique())
    of_embedders = (("fad_inf_held_out", "FAD-inf, held-out"), ("kad_held_out", "KAD, held-out"))
    columns = [
        _column(f"{metric}{suffix}", f"{header}{f' ({suffix[1:]})' if suffix else ''}", None, "low")
        for metric, header in of_embedders
        for suffix in results.embedders
    ]
    columns += [_column("clap_t", "CLAP, to the prompt", None, "high"), _column("clap_a", "CLAP, to held-out", None, "high")]
    return [column for column in columns if column.metric in measured]


def _check_floors(results: Results) -> None:
    """As strict as with trials' scores."""
    for target, record in results.baselines.items():
        for metric, value in record["metrics"].items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(
                    f"baselines/{target}.json: metrics.{metric}={value!r}: a floor must be a finite number; delete the file "
                    "(of a sweep behind a URL, there too), then run the sweep again"
                )


def _section(
    results: Results, target: str, columns: tuple[Column, ...], arms: Sequence[Arm], paper: dict[str, dict[str, str]]
) -> Section:
    rows = [row for row in (_floor_row(results, target, columns), _untouched_row(results, target, columns, paper)) if row]
    arm_rows = []
    for arm in arms:
        cells = [_cell(_at(target, results.values(arm.label, column.metric, step=column.step))) for column in columns]
        lines = results.of_arm(arm.label)
        own = lines[lines["target"] == target]
        arm_rows.append(_row(arm.label, "arm", own, own.loc[own["final"], "step"], cells, paper.get(arm.label, {}).get(target)))
    return Section(target=target, rows=(*rows, *_mark_best(arm_rows, columns)))


def _floor_row(results: Results, target: str, columns: tuple[Column, ...]) -> Row | None:
    """The baseline's row; None where it has none of these metrics (a recording answers no prompt)."""
    record = results.baselines.get(target)
    metrics = record["metrics"] if record else {}
    cells = tuple(
        Cell(mean=float(metrics[c.metric]), std=None, num_seeds=0)
        if c.metric in metrics and _holds_reference(results, c)
        else None
        for c in columns
    )
    if record is None or not any(cells):
        return None
    clips = str(record["num_clips"])
    return Row(label=FLOOR_LABEL, kind="floor", cells=cells, num_seeds=0, num_clips=clips, at_step="", paper=None)


def _untouched_row(results: Results, target: str, columns: tuple[Column, ...], paper: dict[str, dict[str, str]]) -> Row | None:
    own = results.untouched[results.untouched["target"] == target]
    if own.empty:
        return None
    cells = []
    for column in columns:
        cell = _cell(own.loc[own["metric"] == column.metric, "value"]) if _holds_reference(results, column) else None
        cells.append(dataclasses.replace(cell, std=cell.std or None) if cell else None)
    return _row(UNTOUCHED_LABEL, "untouched", own, own["step"], cells, paper.get(UNTOUCHED_KEY, {}).get(target))


def _holds_reference(results: Results, column: Column) -> bool:
    """What no training changes stands once in a table over steps: under the first."""
    return column.step is None or column.step == results.steps[0]


def _row(
    label: str, kind: RowKind, lines: pd.DataFrame, last_steps: pd.Series, cells: Sequence[Cell | None], paper: str | None
) -> Row:
    """lines: of ``Results.frame``, those that the row is made of."""
    return Row(
        label=label,
        kind=kind,
        cells=tuple(cells),
        num_seeds=lines["seed"].nunique(),
        num_clips=_ends(lines["num_clips"]) or "0",
        at_step=_ends(last_steps),
        paper=paper,
    )


def _ends(numbers: pd.Series) -> str:
    """The least and the most, once where they are equal; empty for no numbers."""
    return " to ".join(str(n) for n in sorted({numbers.min(), numbers.max()})) if len(numbers) else ""


def _differ_in_steps(sections: Sequence[Section]) -> bool:
    steps = {row.at_step for section in sections for row in section.rows if row.kind == "arm" and row.num_seeds}
    return len(steps) > 1


def _at(target: str, values: pd.Series) -> pd.Series:
    """values: by (target, seed)."""
    return values[values.index.get_level_values("target") == target]


def _cell(values: pd.Series) -> Cell | None:
    """values: one a seed."""
    if values.empty:
        return None
    std = None
    if len(values) > 1:
        std = float(values.std(ddof=1)) if values.nunique() > 1 else 0.0  # rounding must not look like spread
    return Cell(mean=float(values.mean()), std=std, num_seeds=len(values))


def _mark_best(rows: list[Row], columns: tuple[Column, ...]) -> list[Row]:
    cells = [list(row.cells) for row in rows]
    for index, column in enumerate(columns):
        choose: Callable[[list[float]], float] = min if column.best == "low" else max
        means = [row[index].mean for row in cells if row[index] is not None]
        if not means or math.isclose(min(means), max(means), abs_tol=1e-9):
            continue
        best = choose(means)
        for row in cells:
            if row[index] is not None and math.isclose(row[index].mean, best, abs_tol=1e-9):
                row[index] = dataclasses.replace(row[index], is_best=True)
    return [dataclasses.replace(row, cells=tuple(each)) for row, each in zip(rows, cells, strict=True)]


def _notes(sections: Sequence[Section]) -> tuple[str, ...]:
    rows = [row for section in sections for row in section.rows]
    notes = []
    if len({row.num_clips for row in rows if row.num_seeds or row.kind == "floor"}) > 1:
        notes.append(
            "The number of clips differs between rows; a Fréchet distance shrinks with more clips, so these rows do not compare."
        )
    return tuple(notes)
