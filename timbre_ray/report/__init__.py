"""What a sweep showed: tables, verdicts on the claims, figures and sound, from the ledger and the store.

``build`` writes index.html (one self-contained page), report.md, tables/*.csv and
tables/*.tex. Neither torch nor Ray is imported.
"""

from __future__ import annotations

from pathlib import Path


def build(results: Path, store: Path, out: Path) -> Path:
    """Write the report of the sweep recorded in ``results`` into ``out``; returns the path of index.html.

    ``store`` is the artifact store's root; it is only read, for the audio. Nothing in ``out`` but the
    report's own files is touched.
    Raises ValueError for a ledger without a trial, for a score that is no finite number, and for a faulty paper_values.yaml.
    """
    from timbre_ray.report import claims, figures, listening, markdown, page, paper, tables, textforms
    from timbre_ray.report.results import load

    measured = load(results)
    paper_values = paper.load(results / "paper_values.yaml", measured)
    all_tables = tables.build_all(measured, paper_values)
    verdicts = claims.judge_all(measured)
    out.mkdir(parents=True, exist_ok=True)
    textforms.write_all(all_tables, measured, out / "tables")
    (out / "report.md").write_text(markdown.render(measured, all_tables, verdicts), encoding="utf-8")
    index = out / "index.html"
    drawn = figures.draw_all(measured)
    heard = listening.gather(measured, store)
    index.write_text(page.render(measured, all_tables, verdicts, drawn, heard), encoding="utf-8")
    return index
