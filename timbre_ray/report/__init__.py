"""What a sweep showed: tables, verdicts on the claims, figures and sound, from the ledger and the store.

``build`` writes index.html (one self-contained page), report.md, tables/*.csv and
tables/*.tex and tables/*.parquet, and removes tables that an earlier report had and this one has not.
Neither torch nor Ray is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing the package must not cost the time of pandas
    from timbre_ray.report.claims import Judgement
    from timbre_ray.report.findings import Findings

from timbre_ray.store import Store


def build(results: Path, store: Path | Store, out: Path, *, baseline: str | None = None, margin: float | None = None) -> Path:
    """Write the report of the sweep recorded in ``results`` into ``out``; returns the path of index.html.

    ``baseline``: the arm that all others are compared with (default: the sweep's first); ``margin``: share of its mean within
    which an arm counts as level (default: a tenth).

    ``store`` is the artifact store or its root; it is only read, for the audio. Nothing in ``out`` but the
    report's own files is touched.
    Raises ValueError for a ledger without a trial, for a score that is no finite number, for a faulty paper_values.yaml and for
    a baseline that is no arm of the sweep, FileExistsError where another's page or text lies in ``out``.
    """
    from timbre_ray.report import figures, listening, own_tables, page

    own_tables.check(out)
    store = store if isinstance(store, Store) else Store(store)
    findings, verdicts = build_texts(results, store, out, baseline=baseline, margin=margin)
    index = out / "index.html"
    drawn = figures.draw_all(findings.results)
    heard = listening.gather(findings.results, store)
    own_tables.write(index, page.render(findings, verdicts, drawn, heard))
    return index


def build_texts(
    results: Path, store: Store, out: Path, *, baseline: str | None = None, margin: float | None = None
) -> tuple[Findings, list[Judgement]]:
    """Write tables/ and report.md into ``out``; returns what they were made of. Arguments and errors as of ``build``."""
    from timbre_ray.report import claims, markdown, own_tables

    findings = build_tables(results, store, out / "tables", baseline=baseline, margin=margin)
    verdicts = claims.judge_all(findings.results)
    own_tables.write(out / "report.md", markdown.render(findings, verdicts))
    return findings, verdicts


def build_tables(results: Path, store: Store, out: Path, *, baseline: str | None = None, margin: float | None = None) -> Findings:
    """Write the tables alone into ``out``; returns what they were made of. Arguments and errors as of ``build``."""
    from timbre_ray.report import (
        arms,
        comparisons,
        effect_forms,
        effects,
        importances,
        own_tables,
        paper,
        spread,
        tables,
        textforms,
    )
    from timbre_ray.report.findings import Findings
    from timbre_ray.report.results import load

    measured = load(results)
    margin = comparisons.DEFAULT_MARGIN if margin is None else margin
    findings = Findings(
        results=measured,
        tables=tables.build_all(measured, paper.load(results / "paper_values.yaml", measured)),
        contrasts=comparisons.contrast_all(measured, baseline=baseline, margin=margin),
        arm_lines=arms.gather(measured),
        spreads=spread.gather(measured, store),
        effects=effects.gather(measured, margin=margin),
        search=importances.gather(measured),
    )
    own_tables.clear(out)  # now that nothing of the results can be at fault any more
    textforms.write_all(findings.tables, measured, out)
    textforms.write_contrasts(findings.contrasts, out)
    textforms.write_frame(arms.frame(findings.arm_lines), out / "arms.csv")
    textforms.write_frame(spread.frame(findings.spreads), out / "clips.csv")
    if findings.effects:
        effect_forms.write(findings.effects, out)
    if findings.search and findings.search.shares:
        textforms.write_frame(importances.frame(findings.search), out / "importances.csv")
    return findings
