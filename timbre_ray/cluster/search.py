"""The two ways to choose trials: all of an ablation's grid, or what Optuna suggests, with ASHA ending the poor ones."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from timbre_ray.run_specs import SearchSpec
from timbre_ray.search_history import SearchHistory
from timbre_ray.search_space import distributions
from timbre_ray.sweep import PlannedTrial, Sweep

Plan = Callable[[Mapping[str, Any]], PlannedTrial]


@dataclasses.dataclass(frozen=True)
class GridPlan:
    """Tune's config -> a planned trial of an ablation."""

    trials: Mapping[str, PlannedTrial]

    def __call__(self, config: Mapping[str, Any]) -> PlannedTrial:
        return self.trials[config["trial_id"]]


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """Tune's config, dotted keys and the values that Optuna suggests, -> the base arm with these overrides."""

    sweep: Sweep

    def __call__(self, config: Mapping[str, Any]) -> PlannedTrial:
        return self.sweep.suggested(config)


class InOrder(FIFOScheduler):
    """Trials in the order in which they were planned. Ray's own looks through all of them, the ended ones too, at every event."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[str, int] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._places[trial.trial_id] = len(self._places)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        waiting = (trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING)
        return min(waiting, key=lambda trial: self._places[trial.trial_id], default=None)


class FailingOptunaSearch(OptunaSearch):
    """OptunaSearch in which an objective that is NaN, infinite or missing ends the Optuna trial as FAIL.

    Ray's own leaves such a trial RUNNING for ever: it would be drawn upon by the sampler and never closed.

    A point that is drawn while the same one runs is held back until that has ended: two trials of one name would write over each
    other's record, and the second then takes no time.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._running: dict[str, dict[str, Any]] = {}
        self._held: tuple[str, dict[str, Any]] | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._held is None:
            point = super().suggest(trial_id)
            if not isinstance(point, dict):
                return point
        else:
            first, point = self._held
            self._ot_trials[trial_id] = self._ot_trials.pop(first)  # Tune asks under another name each time
        is_twin = point in self._running.values()
        self._held = (trial_id, point) if is_twin else None
        if is_twin:
            return None
        self._running[trial_id] = point
        return point

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self._is_measured(result):
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.pop(trial_id, None)
        if not self._is_measured(result or {}):
            result, error = None, True
        super().on_trial_complete(trial_id, result=result, error=error)

    def _is_measured(self, result: Mapping[str, Any]) -> bool:
        names = [self.metric] if isinstance(self.metric, str) else self.metric
        return all(math.isfinite(result.get(name, math.nan)) for name in names)

    def tell(self, point: Mapping[str, Any], values: Sequence[float]) -> None:
        """A trial of an earlier run. Ray's own ``add_evaluated_point`` takes one objective alone."""
        self.study.add_trial(optuna.create_trial(values=list(values), params=dict(point), distributions=self._space))

    @property
    def study(self) -> optuna.Study:
        return self._ot_study


class DrawnAhead(ConcurrencyLimiter):
    """Draws a trial for every slot at once, and from then on one whenever none waits.

    Tune by itself draws one at a time, and an autoscaler would start one node at a time. The last one is Tune's own way: it finds
    nodes that nobody counted, and where there is one slot the draws are those without this class.
    """

    def __init__(self, searcher: FailingOptunaSearch, *, slots: int, num_running: Callable[[], int]) -> None:
        super().__init__(searcher, max_concurrent=slots)  # so many may wait
        self._slots, self._num_running = slots, num_running

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        self.max_concurrent = max(self._slots, self._num_running() + 1)
        return super().suggest(trial_id)


def optuna_search(search: SearchSpec, history: SearchHistory) -> FailingOptunaSearch:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
    metrics, modes = list(search.objectives), list(search.objectives.values())
    searcher = FailingOptunaSearch(
        space=distributions(search.space),
        metric=metrics if len(metrics) > 1 else metrics[0],
        mode=modes if len(modes) > 1 else modes[0],
        points_to_evaluate=list(history.unfinished),
        # A resumed study must not draw its first random points once more.
        seed=search.seed + len(history.measured) + len(history.unfinished),
    )
    for point, values in history.measured:
        searcher.tell(point, values)
    return searcher


def asha(sweep: Sweep) -> ASHAScheduler | None:
    """ASHA in units of Dreambooth steps, by the first objective, or None. A trial that reaches the last step ends by itself."""
    assert sweep.search is not None
    scheduler = sweep.search.scheduler
    if scheduler is None:
        return None
    steps = distributions(sweep.search.space).get("dreambooth.steps")
    last = int(steps.high) if steps is not None else max(t.spec.dreambooth.steps for t in sweep.trials)
    metric, mode = next(iter(sweep.search.objectives.items()))
    return ASHAScheduler(
        metric=metric,
        mode=mode,
        time_attr="step",
        max_t=max(last, scheduler.grace_period),
        grace_period=scheduler.grace_period,
        reduction_factor=scheduler.reduction_factor,
        stop_last_trials=False,
    )


def tune_config(sweep: Sweep, *, history: SearchHistory | None, slots: int, num_running: Callable[[], int]) -> tune.TuneConfig:
    """FIFO over a grid of trial ids (breadth first, as planned) for an ablation, Optuna with ASHA for a search.

    slots: trials that fit at once, on nodes that may be started too. num_running: how many do at the moment.
    """
    common = {"reuse_actors": True, "max_concurrent_trials": sweep.run.max_concurrent, "time_budget_s": sweep.run.time_budget_s}
    if sweep.search is None or history is None:
        return tune.TuneConfig(scheduler=InOrder(), **common)
    searcher = optuna_search(sweep.search, history)
    return tune.TuneConfig(
        search_alg=searcher if sweep.run.max_concurrent else DrawnAhead(searcher, slots=slots, num_running=num_running),
        scheduler=asha(sweep) or InOrder(),
        num_samples=history.num_left(sweep.search),
        **common,
    )
