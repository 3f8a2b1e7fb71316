"""What ``report --check`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from timbre_ray.cli_errors import OK

if TYPE_CHECKING:
    from timbre_ray.recheck import Finding
    from timbre_ray.store import Store

DIFFERS = 1


def check(folder: Path, store: Store, written: Path, *, baseline: str | None, margin: float | None) -> int:
    """Recomputes and prints what differs; the exit code. written: folder of the report, compared where there is one."""
    from timbre_ray import recheck
    from timbre_ray.report import stored_scores

    tasks = recheck.tasks(folder)
    scores = stored_scores.manifests(store)
    num, found = 0, []
    with typer.progressbar(tasks, label="Scoring again") as bar:
        for task in bar:
            compared, differing = recheck.run(task, store, scores)
            num, found = num + compared, [*found, *differing]
    texts = "no tables written yet"
    if (written / "tables").is_dir():
        found += recheck.check_texts(folder, store, written, baseline=baseline, margin=margin)
        texts = f"and report.md and the tables in {written}"
    if found:
        _print(found)
    outcome = f"{len(found)} differ" if found else "none differs"
    tolerance = f"more than {recheck.TOLERANCE:g} of its size, or {recheck.TOLERANCE:g} below 1"
    typer.echo(f"{folder}: {num} numbers of {len(tasks)} scores computed again, {texts}: {outcome} ({tolerance})")
    return DIFFERS if found else OK


def _print(found: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("where", "number", "stored", "recomputed", "note"):
        table.add_column(name, justify="right" if name in ("stored", "recomputed") else "left", no_wrap=True)
    rows = []
    for f in found:
        values = ["–" if value is None else f"{value:.6g}" for value in (f.stored, f.recomputed)]
        rows.append((f.where, f.name, *values, f.note))
        table.add_row(*rows[-1])
    width = sum(max(len(cell) for cell in column) + 12 for column in zip(*rows, strict=True))  # room for the headings
    Console(width=width).print(table, highlight=False, markup=False)
