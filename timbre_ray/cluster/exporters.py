"""Losses and scores to TensorBoard, a search to an Optuna journal; scores to W&B, MLflow and Aim where ``run.exporters`` asks.

The ledger is the record of a sweep; exporters copy while it runs. One that raises is reported once and switched
off: no sweep ends for the sake of a copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback

from timbre_ray.cluster.optuna_journal import OptunaJournal
from timbre_ray.cluster.trainable import TrialContext
from timbre_ray.search_history import SearchHistory
from timbre_ray.sweep import Sweep

#: What to install where it is not the module's name. MLflow whole wants an older pandas.
PACKAGES = {"mlflow": "mlflow-skinny"}


def check_installed(exporters: Sequence[str]) -> None:
    """Raises ValueError naming the packages that ``run.exporters`` needs and this machine lacks."""
    missing = [PACKAGES.get(name, name) for name in dict.fromkeys(exporters) if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"run.exporters={list(exporters)}: not installed here: {', '.join(missing)}; pip install {' '.join(missing)}, "
            "or take them out of run.exporters"
        )


def exporter_callbacks(
    sweep: Sweep, *, context: TrialContext, history: SearchHistory | None, say: Callable[[str], None]
) -> list[Callback]:
    """TensorBoard, a search's Optuna journal and the exporters asked for, each guarded.

    history: what a search has measured before. say: takes the one line about an exporter that failed.
    """
    search, name = sweep.search, sweep.name
    makers: dict[str, Callable[[], Callback]] = {"tensorboard": lambda: TensorBoard(context)}
    if search is not None and history is not None:
        makers["optuna"] = lambda: OptunaJournal(search, sweep=name, history=history, context=context)
    makers |= {asked: lambda asked=asked: _MAKERS[asked](name, context.ledger_folder) for asked in sweep.run.exporters}
    return [Guarded(name, make, say) for name, make in makers.items()]


@dataclasses.dataclass(kw_only=True)
class _Events:
    """The event folder of a trial under way."""

    writer: Any
    loss_step: int = -1
    """Last step whose losses are written; ``score_step`` likewise."""
    score_step: int = -1


class TensorBoard(Callback):
    """``tensorboard/<trial_id>`` beside the ledger: the ledger's own numbers at their own Dreambooth steps.

    Not Ray's TBXLoggerCallback: it counts reports instead of steps, knows no losses and writes into Tune's folder, which goes.
    """

    def __init__(self, context: TrialContext) -> None:
        self._context, self._ledger = context, context.worker.ledger(context.ledger_folder)
        self._events: dict[str, _Events] = {}
        # It imports torch if it can, for seconds: meanwhile the first trial's worker starts.
        threading.Thread(target=importlib.import_module, args=("tensorboardX",), daemon=True).start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        from tensorboardX import SummaryWriter

        trial_id = self._trial_id(trial)
        self._close(trial_id)
        folder = self._context.ledger_folder / "tensorboard" / trial_id
        shutil.rmtree(folder, ignore_errors=True)  # a trial that goes on after a fault reports its first evaluations again
        self._events[trial_id] = _Events(writer=SummaryWriter(str(folder)))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._write(self._trial_id(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(self._trial_id(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(self._trial_id(trial))

    def _trial_id(self, trial: Any) -> str:
        return self._context.plan(trial.config).trial_id

    def _write(self, trial_id: str) -> None:
        """What the ledger holds beyond what is written."""
        events, record = self._events.get(trial_id), self._ledger.trial(trial_id)
        if events is None or record is None:
            return
        for entry in record["losses"]:
            if (step := entry["step"]) > events.loss_step:
                events.loss_step = step
                for name in entry.keys() - {"step"}:
                    events.writer.add_scalar(f"train/{name}", entry[name], step)
        for evaluation in record["evaluations"]:
            if (step := evaluation["step"]) > events.score_step:
                events.score_step = step
                for name, value in evaluation["metrics"].items():
                    events.writer.add_scalar(f"score/{name}", value, step)
        events.writer.flush()

    def _close(self, trial_id: str) -> None:
        if events := self._events.pop(trial_id, None):
            events.writer.close()


def _wandb(sweep: str, results: Path) -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    folder = results / "wandb"
    folder.mkdir(parents=True, exist_ok=True)  # W&B takes the temporary folder in the place of one that is not there
    return WandbLoggerCallback(project=os.environ.get("WANDB_PROJECT", "timbre-ray"), group=sweep, dir=str(folder))


def _mlflow(sweep: str, results: Path) -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=sweep)


def _aim(sweep: str, results: Path) -> Callback:
    from ray.tune.logger.aim import AimLoggerCallback

    return AimLoggerCallback(repo=str(results), experiment_name=sweep)  # its default is Tune's folder, which is removed


_MAKERS: dict[str, Callable[[str, Path], Callback]] = {"wandb": _wandb, "mlflow": _mlflow, "aim": _aim}


def _hook(name: str) -> Callable[..., None]:
    def call(self: Guarded, *args: Any, **info: Any) -> None:
        if self._exporter is not None:
            with self._harmless():
                getattr(self._exporter, name)(*args, **info)

    return call


class Guarded(Callback):
    """An exporter that may fail: at its first error it is reported and switched off."""

    def __init__(self, name: str, make: Callable[[], Callback], say: Callable[[str], None]) -> None:
        self._name, self._say, self._exporter = name, say, None
        with self._harmless():
            self._exporter = make()

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a service's client raises
            self._exporter = None
            reason = " ".join(str(error).split())
            self._say(f"exporter {self._name}: switched off, the sweep goes on: {type(error).__name__}: {reason}")

    setup = _hook("setup")
    on_trial_start = _hook("on_trial_start")
    on_trial_restore = _hook("on_trial_restore")
    on_trial_save = _hook("on_trial_save")
    on_trial_result = _hook("on_trial_result")
    on_trial_complete = _hook("on_trial_complete")
    on_trial_recover = _hook("on_trial_recover")
    on_trial_error = _hook("on_trial_error")
    on_experiment_end = _hook("on_experiment_end")
