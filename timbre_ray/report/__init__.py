"""What a sweep showed: tables, verdicts on the claims, figures and sound, from the ledger and the store.

``build`` writes index.html (one self-contained page), report.md, tables/*.csv and
tables/*.tex. Neither torch nor Ray is imported.
"""

from __future__ import annotations

from pathlib import Path

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
    from timbre_ray.report import claims, comparisons, figures, listening, markdown, page, paper, tables, textforms
    from timbre_ray.report.results import load

    measured = load(results)
    paper_values = paper.load(results / "paper_values.yaml", measured)
    all_tables = tables.build_all(measured, paper_values)
    verdicts = claims.judge_all(measured)
    margin = comparisons.DEFAULT_MARGIN if margin is None else margin
    contrasts = comparisons.contrast_all(measured, baseline=baseline, margin=margin)
    out.mkdir(parents=True, exist_ok=True)
    textforms.write_all(all_tables, measured, out / "tables")
    textforms.write_contrasts(contrasts, out / "tables")
    (out / "report.md").write_text(markdown.render(measured, all_tables, verdicts, contrasts), encoding="utf-8")
    index = out / "index.html"
    drawn = figures.draw_all(measured)
    heard = listening.gather(measured, store)
    index.write_text(page.render(measured, all_tables, verdicts, contrasts, drawn, heard), encoding="utf-8")
    return index
