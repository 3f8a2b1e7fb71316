"""What ``timbre-ray plan`` and ``timbre-ray doctor`` print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from timbre_ray.quantities import duration, size

if TYPE_CHECKING:
    from timbre_ray.doctor.case import Finding
    from timbre_ray.estimate import Cost, Estimate, StageCount
    from timbre_ray.ledger import Difference, Ledger
    from timbre_ray.store import Store
    from timbre_ray.sweep import Sweep

UNKNOWN = "not measured yet"


def show_plan(sweep: Sweep) -> None:
    """The trials, what a run would do with each, and what it will cost."""
    from timbre_ray.estimate import estimate
    from timbre_ray.ledger import Ledger
    from timbre_ray.remote_tier import open_store

    typer.echo(f"{sweep.name}: {sweep.question}")
    store, folder = open_store(sweep.run.storage, sweep.run.cache), (Path(sweep.run.results) / sweep.name).resolve()
    typer.echo(f"results: {folder}; store: {store.place}")
    if sweep.search:
        _show_search(sweep, Ledger(folder), store)
        return
    difference = Ledger(folder).difference(sweep.trials)
    _echo_difference(sweep, difference)
    todo = {trial.trial_id for trial in (*difference.run, *difference.changed)}
    for line in estimate_lines(estimate(sweep.trials, store, todo=todo)):
        typer.echo(line)


def _echo_difference(sweep: Sweep, difference: Difference) -> None:
    states = {trial.trial_id: "keep" for trial in difference.keep} | {trial.trial_id: "changed" for trial in difference.changed}
    for trial in sweep.trials:
        typer.echo(f"  {states.get(trial.trial_id, 'run'):9} {trial.trial_id}")
    for trial_id in (*difference.superseded, *difference.orphaned):
        typer.echo(f"  {'orphaned':9} {trial_id}")
    typer.echo(
        f"{len(sweep.trials)} trials: {len(difference.keep)} keep, {len(difference.run)} run, {len(difference.changed)} changed; "
        f"{len(difference.superseded) + len(difference.orphaned)} orphaned"
    )


def _show_search(sweep: Sweep, ledger: Ledger, store: Store) -> None:
    from timbre_ray.estimate import estimate
    from timbre_ray.search_history import history_of

    assert sweep.search is not None
    _echo_search(sweep)
    history = history_of(sweep, ledger)
    num_left = history.num_left(sweep.search)
    typer.echo(f"{sweep.search.num_trials} trials: {len(history.measured)} measured, {num_left} to draw")
    if not num_left:
        typer.echo("Nothing is left to compute.")
        return
    typer.echo("A trial at the base's settings of which the store holds nothing:")
    one = estimate(sweep.trials, store, todo={trial.trial_id for trial in sweep.trials}, afresh=True)
    for line in estimate_lines(one):
        typer.echo(line)
    if one.seconds.known and not one.seconds.unknown:
        typer.echo(f"So at most about {num_left} times {duration(one.seconds.known)}: {duration(num_left * one.seconds.known)}.")


def _echo_search(sweep: Sweep) -> None:
    assert sweep.search is not None
    goal = ", ".join(f"{mode} {metric}" for metric, mode in sweep.search.objectives.items())
    typer.echo(f"a search of {sweep.search.num_trials} trials ({goal}); the trials are chosen as it runs, over:")
    for key, dimension in sweep.search.space.items():
        limits = list(dimension.choices) if dimension.choices else f"{dimension.low} to {dimension.high}"
        typer.echo(f"  {key}: {limits}")


def estimate_lines(estimate: Estimate) -> list[str]:
    """A table of the stages, then the sums in words and where their numbers come from."""
    titles = ("stage", "each alone", "shared", "in the store", "to do", "compute time", "disk")
    counts = [count for count in estimate.counts if count.alone]
    rows = [titles, *(_row(count) for count in counts)]
    sums = [sum(getattr(count, name) for count in counts) for name in ("alone", "shared", "stored", "num_to_do")]
    rows.append(("all", *map(str, sums), _sum(estimate.seconds, duration), _sum(estimate.num_bytes, size)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    lines = []
    for row in rows:
        right = "".join(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"  {row[0].ljust(widths[0])}{right}".rstrip())
    return [*lines, *_words(estimate, num_to_do=sums[-1])]


def _row(count: StageCount) -> tuple[str, ...]:
    numbers = (count.alone, count.shared, count.stored, count.num_to_do)
    costs = (_sum(count.seconds, duration), _sum(count.num_bytes, size)) if count.num_to_do else ("", "")
    return (count.kind, *map(str, numbers), *costs)


def _words(estimate: Estimate, *, num_to_do: int) -> list[str]:
    if not num_to_do:
        return ["Nothing is left to compute."]
    seconds, num_bytes = estimate.seconds, estimate.num_bytes
    lines = []
    if seconds.sources:
        lines.append(
            "Compute time: of all workers together; the median over what this store holds of the same backbone, scaled by clips, "
            "sampler steps and training steps, as the machines that computed it took."
        )
    if seconds.unknown:
        lines.append(f"Time {UNKNOWN} in this store on this backbone: {', '.join(seconds.unknown)}.")
    if num_bytes.sources:
        lines.append(f"Disk: {'; '.join(num_bytes.sources)}. Prompts and scores count only where they were measured.")
    if num_bytes.unknown:
        lines.append(f"Size {UNKNOWN}: {', '.join(num_bytes.unknown)}.")
    if estimate.checkpoint_bytes:
        lines.append(f"Beside that, up to {size(estimate.checkpoint_bytes)} of checkpoints for each training under way.")
    return lines


def _sum(cost: Cost, words: Callable[[float], str]) -> str:
    if cost.unknown:
        return f"over {words(cost.known)}" if cost.known else UNKNOWN
    return words(cost.known) if cost.known else ""


def show_findings(findings: Mapping[str, Finding]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    table = Table(Column("check", no_wrap=True), Column("state", no_wrap=True), "found", "what to do")
    for name, finding in findings.items():
        table.add_row(name, Text(finding.level, style=colours[finding.level]), Text(finding.found), Text(finding.remedy))
    console = Console()
    Console(width=max(console.width, 118)).print(table)
    levels = [finding.level for finding in findings.values()]
    typer.echo(f"{levels.count('ok')} ok, {levels.count('warning')} warnings, {levels.count('error')} errors")
