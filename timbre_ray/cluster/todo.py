"""What of a sweep is left to run, given its ledger; and whether what is kept can still be heard."""

from __future__ import annotations

import dataclasses

from timbre_ray.ledger import Difference, Ledger
from timbre_ray.remote_tier import open_store
from timbre_ray.search_history import SearchHistory, history_of
from timbre_ray.sweep import PlannedTrial, Sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Todo:
    num_kept: int
    scored: frozenset[str]
    """Targets of the trials that are kept."""
    num_trials: int
    trials: tuple[PlannedTrial, ...]
    """Of an ablation, in the sweep's order; a search decides as it goes."""
    history: SearchHistory | None
    difference: Difference


def what_is_left(sweep: Sweep, ledger: Ledger) -> Todo:
    if sweep.search is not None:
        history = history_of(sweep, ledger)
        difference = ledger.difference(history.trials)
        return Todo(
            num_kept=len(history.measured),
            scored=frozenset(trial.target for trial in difference.keep),
            num_trials=history.num_left(sweep.search),
            trials=(),
            history=history,
            difference=difference,
        )
    difference = ledger.difference(sweep.trials)
    kept = {trial.trial_id for trial in difference.keep}
    trials = tuple(trial for trial in sweep.trials if trial.trial_id not in kept)
    return Todo(
        num_kept=len(kept),
        scored=frozenset(trial.target for trial in difference.keep),
        num_trials=len(trials),
        trials=trials,
        history=None,
        difference=difference,
    )


def check_kept(sweep: Sweep, ledger: Ledger, todo: Todo) -> None:
    """Raises ValueError where the sweep was run with another store, which holds what the kept trials made, and this one does not:
    their audio and weights would be out of the report's and everybody's sight."""
    store = open_store(sweep.run.storage, sweep.run.cache)
    try:
        record = ledger.sweep()
    except FileNotFoundError:
        return
    before = record.get("store") or record["run"]["storage"]
    if before in (store.place, sweep.run.storage) or not todo.difference.keep:
        return
    kept = ledger.trial(todo.difference.keep[0].trial_id)  # one stands for all: they were kept together
    audio = [key for evaluation in kept["evaluations"] for key in evaluation["audio"].values()] if kept else []
    if audio and not store.has("generate", audio[-1]):
        raise ValueError(
            f"run.storage={sweep.run.storage!r}: {len(todo.difference.keep)} trials of {sweep.name} are kept, and what they "
            f"made lies in {before!r}. Name that (--storage {before}), bring it here, or give the sweep another name or --results"
        )


def in_words(sweep: Sweep, todo: Todo) -> str:
    line = f"{sweep.name}: {todo.num_kept} kept, {todo.num_trials} to run"
    if todo.difference.changed:
        line += f" ({len(todo.difference.changed)} of them because their spec changed)"
    idle = (*todo.difference.superseded, *todo.difference.orphaned)
    if idle:
        line += f"; {len(idle)} no longer planned, kept on disk but left out of the report: {', '.join(idle[:5])}"
        line += ", ..." if len(idle) > 5 else ""
    return line
