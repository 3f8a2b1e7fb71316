"""What a sweep showed: tables, verdicts on the claims, figures and sound, from the ledger and the store.

``build`` writes index.html (one self-contained page), report.md, tables/*.csv and
tables/*.tex and tables/*.parquet. Neither torch nor Ray is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing the package must not cost the time of pandas
    from timbre_ray.report.comparisons import Contrasts
    from timbre_ray.report.results import Results
    from timbre_ray.report.spread import Spread
    from timbre_ray.report.tables import Table

from timbre_ray.store import Store


def build(results: Path, store: Path | Store, out: Path, *, baseline: str | None = None, margin: float | None = None) -> Path:
    """Write the report of the sweep recorded in ``results`` into ``out``; returns the path of index.html.

    ``baseline``: the arm that all others are compared with (default: the sweep's first); ``margin``: share of its mean within
    which an arm counts as level (default: a tenth).

    ``store`` is the artifact store or its root; it is only read, for the audio. Nothing in ``out`` but the
    report's own files is touched.
    Raises ValueError for a ledger without a trial, for a score that is no finite number, for a faulty paper_values.yaml and for
    a baseline that is no arm of the sweep.
    """
    from timbre_ray.report import claims, figures, listening, markdown, page

    store = store if isinstance(store, Store) else Store(store)
    measured, all_tables, contrasts, spreads = build_tables(results, store, out / "tables", baseline=baseline, margin=margin)
    verdicts = claims.judge_all(measured)
    (out / "report.md").write_text(markdown.render(measured, all_tables, verdicts, contrasts, spreads), encoding="utf-8")
    index = out / "index.html"
    drawn = figures.draw_all(measured)
    heard = listening.gather(measured, store)
    index.write_text(page.render(measured, all_tables, verdicts, contrasts, spreads, drawn, heard), encoding="utf-8")
    return index


def build_tables(
    results: Path, store: Store, out: Path, *, baseline: str | None = None, margin: float | None = None
) -> tuple[Results, tuple[Table, ...], Contrasts, tuple[Spread, ...]]:
    """Write the tables alone into ``out``; returns what they were made of. Arguments and errors as of ``build``."""
    from timbre_ray.report import comparisons, paper, spread, tables, textforms
    from timbre_ray.report.results import load

    measured = load(results)
    all_tables = tables.build_all(measured, paper.load(results / "paper_values.yaml", measured))
    margin = comparisons.DEFAULT_MARGIN if margin is None else margin
    contrasts = comparisons.contrast_all(measured, baseline=baseline, margin=margin)
    spreads = spread.gather(measured, store)
    textforms.write_all(all_tables, measured, out)
    textforms.write_contrasts(contrasts, out)
    textforms.write_frame(spread.frame(spreads), out / "clips.csv")
    return measured, all_tables, contrasts, spreads
