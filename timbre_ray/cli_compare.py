"""``timbre-ray compare``: two arms or two trials side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.cli_results import ResultsRoot, Storage

if TYPE_CHECKING:
    from timbre_ray.report.compare import Sides


def compare(
    left: Annotated[str, typer.Argument(metavar="A", help="An arm, or a trial's id.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Another of the same sweep.")],
    sweep: Annotated[
        str | None, typer.Option(metavar="NAME_OR_FOLDER", help="Sweep that has both; default: the only one in --results.")
    ] = None,
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Show what two arms or trials differ in, their scores at the last step with A − B in pairs, and where their audio lies.

    \b
    Example:
      timbre-ray compare large-gpt2 large-gpt2-prior --sweep mini-ablation
    """
    with clear_errors():
        from timbre_ray import finished
        from timbre_ray.report import compare as comparing
        from timbre_ray.report.results import load

        folder = finished.results_folder(sweep or _only(results), results)
        _print(comparing.compare(load(folder), left, right, finished.store_of(folder, storage)))


def _only(results: Path) -> str:
    from timbre_ray.finished import sweeps_in

    names = sweeps_in(results)
    if len(names) != 1:
        raise ValueError(f"{results} holds {len(names)} sweeps ({', '.join(names) or 'none'}): name one with --sweep")
    return names[0]


def _print(sides: Sides) -> None:
    from rich.console import Console
    from rich.table import Table

    from timbre_ray.report.numbers import digits_beside, interval_text, number

    settings, scores, audio = (Table(box=None, pad_edge=False) for _ in range(3))
    for table, names in (
        (settings, ("setting", sides.left, sides.right)),
        (scores, ("score", sides.left, sides.right, f"{sides.left} − {sides.right}", "95 % interval", "pairs")),
        (audio, ("audio of", "target", "seed", "prompt", "folder")),
    ):
        for name in names:
            table.add_column(name, no_wrap=True)
    for row in sides.settings:
        settings.add_row(*row)
    for s in sides.scores:
        found = s.difference
        digits = digits_beside(found.interval)
        differing = [number(found.mean, signed=True, digits=digits), interval_text(found.interval), found.pairs_text]
        scores.add_row(s.metric, number(s.left, digits=digits), number(s.right, digits=digits), *differing)
    for a in sides.audio:
        audio.add_row(a.side, a.target, str(a.seed), a.prompt, str(a.folder or "not in the store"))
    console = Console(width=400)
    for table in (settings, scores, audio):
        console.print(table, highlight=False, markup=False)
        console.print()
