"""``timbre-ray status``: how a sweep stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timbre_ray.status import SweepStatus

COLUMNS = (("FAD", "fad_held_out", ".2f"), ("piano rank", "duet_partner_rank", ".1f"), ("piano alone", "partner_confidence", ".2f"))


def show_status(folder: Path) -> None:
    """One line for the sweep, one for each trial begun, and the reason of each failure."""
    from timbre_ray.status import read_status

    status = read_status(folder)
    _print_table(status)


def _print_table(status: SweepStatus) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 118))
    console.print(status.line, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "state", "stage", "step", *(name for name, _, _ in COLUMNS), "time"):
        table.add_column(name, justify="left" if name in ("trial", "state", "stage") else "right", no_wrap=True)
    for trial in status.trials:
        scores = [format(trial.metrics[key], form) if key in trial.metrics else "" for _, key, form in COLUMNS]
        step = "" if trial.step is None else str(trial.step)
        minutes, seconds = divmod(round(trial.seconds), 60)
        table.add_row(trial.trial_id, trial.state, trial.stage, step, *scores, f"{minutes} min {seconds:02d} s")
    if status.trials:
        console.print(table)
    for trial in status.trials:
        if trial.error:
            console.print(f"failed {trial.trial_id}: {trial.error}", highlight=False, markup=False, soft_wrap=True)
