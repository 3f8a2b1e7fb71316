"""All that a report says in figures, as one value: the page and report.md give it their shapes."""

from __future__ import annotations

import dataclasses

from timbre_ray.report.arms import Line
from timbre_ray.report.comparisons import Contrasts
from timbre_ray.report.effects import Effects
from timbre_ray.report.importances import Search
from timbre_ray.report.results import Results
from timbre_ray.report.spread import Spread
from timbre_ray.report.tables import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    results: Results
    tables: tuple[Table, ...]
    contrasts: Contrasts
    arm_lines: tuple[Line, ...]
    spreads: tuple[Spread, ...]
    effects: Effects | None
    """None for a sweep that is no ablation by factors."""
    search: Search | None
    """None for a sweep that is no search."""
