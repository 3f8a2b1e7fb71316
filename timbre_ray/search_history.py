"""What a search has drawn and measured so far, from its ledger. Neither Ray nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from timbre_ray.ledger import Ledger
from timbre_ray.run_specs import SearchSpec
from timbre_ray.search_space import distributions, inside
from timbre_ray.sweep import PlannedTrial, Sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchHistory:
    """What the ledger knows of a search, so that a run that was killed goes on where it was."""

    measured: tuple[tuple[dict[str, Any], tuple[float, ...]], ...]
    """(point, last objectives) of the finished trials, as often as they were drawn: told to Optuna."""
    unfinished: tuple[dict[str, Any], ...]
    """Points of interrupted and failed trials: tried first, their finished stages are free."""

    trials: tuple[PlannedTrial, ...]
    """Both, as planned trials."""

    def num_left(self, search: SearchSpec) -> int:
        return max(0, search.num_trials - len(self.measured))


def history_of(sweep: Sweep, ledger: Ledger) -> SearchHistory:
    """Reads the trials of this very search: records whose point, applied to the base arm of today, gives their own key."""
    assert sweep.search is not None
    space = distributions(sweep.search.space)
    measured, unfinished, trials = [], [], []
    for record in sorted(ledger.trials(), key=lambda r: r["started"]):
        point = {name: record["point"][name] for name in space if name in record["point"]}
        planned = sweep.suggested(point) if set(point) == set(space) and inside(point, space) else None
        if planned is None or planned.key != record["trial_key"]:
            continue
        if values := last_values(record, sweep.search):
            measured += [(point, values)] * (1 + record.get("repeats", 0))
        else:
            unfinished.append(point)
        trials.append(planned)
    return SearchHistory(measured=tuple(measured), unfinished=tuple(unfinished), trials=tuple(trials))


def last_values(record: Mapping[str, Any], search: SearchSpec) -> tuple[float, ...] | None:
    """The last objectives of a finished trial; None if the record is of another."""
    if record.get("status") != "finished" or not record["evaluations"]:
        return None
    metrics = record["evaluations"][-1]["metrics"]
    return tuple(metrics[name] for name in search.objectives)
