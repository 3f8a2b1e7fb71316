"""A search as an Optuna storage, for optuna-dashboard: ``results/<sweep>/optuna.log``, written while the search runs."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune import Callback

from timbre_ray.cluster.trainable import TrialContext
from timbre_ray.run_specs import SearchSpec
from timbre_ray.search_history import SearchHistory, last_values
from timbre_ray.search_space import distributions

FILE_NAME = "optuna.log"


class OptunaJournal(Callback):
    """One Optuna trial for each of Tune's, with the ledger's name and scores as its attributes and values.

    A copy: the study that draws the points lives in the driver's memory and is told the ledger at each start, and so is this
    file, which begins anew then. A journal and no database, because results may lie on NFS.
    """

    def __init__(self, search: SearchSpec, *, sweep: str, history: SearchHistory, context: TrialContext) -> None:
        self._search, self._sweep, self._history, self._context = search, sweep, history, context
        self._ledger = context.worker.ledger(context.ledger_folder)
        self._space = distributions(search.space)
        self._storage: JournalStorage | None = None
        self._study_id = -1
        self._optuna_ids: dict[str, int] = {}
        """Tune's id of a trial -> the storage's."""

    def setup(self, **info: Any) -> None:
        path = self._context.ledger_folder / FILE_NAME
        for old in (path, *path.parent.glob(f"{FILE_NAME}.lock*")):  # the lock of a driver that was killed
            old.unlink(missing_ok=True)
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        directions = [f"{mode}imize" for mode in self._search.objectives.values()]
        study = optuna.create_study(storage=self._storage, study_name=self._sweep, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(self._search.objectives))
        self._study_id = self._storage.get_study_id_from_name(self._sweep)
        for point, values in self._history.measured:
            study.add_trial(optuna.create_trial(values=list(values), params=dict(point), distributions=self._space))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.trial_id in self._optuna_ids:  # it goes on after a fault
            return
        assert self._storage is not None
        planned = self._context.plan(trial.config)
        begun = optuna.create_trial(
            state=TrialState.RUNNING, params={key: planned.point[key] for key in self._space}, distributions=self._space,
            user_attrs={"trial_id": planned.trial_id},
        )  # fmt: skip
        self._optuna_ids[trial.trial_id] = self._storage.create_new_trial(self._study_id, template_trial=begun)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if len(self._search.objectives) > 1:  # Optuna knows no curves of several objectives
            return
        assert self._storage is not None
        (metric,) = self._search.objectives
        for evaluation in self._record(trial)["evaluations"]:
            self._storage.set_trial_intermediate_value(
                self._optuna_ids[trial.trial_id], evaluation["step"], evaluation["metrics"][metric]
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Also called for a trial that failed for good."""
        self._end(trial, last_values(self._record(trial), self._search))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, None)

    def _record(self, trial: Any) -> dict[str, Any]:
        return self._ledger.trial(self._context.plan(trial.config).trial_id) or {"evaluations": []}

    def _end(self, trial: Any, values: tuple[float, ...] | None) -> None:
        assert self._storage is not None
        if (optuna_id := self._optuna_ids.pop(trial.trial_id, None)) is not None:
            self._storage.set_trial_state_values(optuna_id, TrialState.COMPLETE if values else TrialState.FAIL, values)
