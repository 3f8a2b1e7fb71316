"""The function that Ray Tune calls: one trial, written to the ledger as it goes and reported to Tune."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray import tune

from timbre_ray.cluster.failures import describe, is_transient
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.notice import NOTICE, LeavesWhenTold
from timbre_ray.cluster.scoring import NoScorerError, ScorerPool
from timbre_ray.cluster.unfit import UnfitNodeError, leaving_if_unfit
from timbre_ray.cluster.watchdog import Watchdog
from timbre_ray.leaving import Leaving
from timbre_ray.ledger import Ledger
from timbre_ray.patience import patiently
from timbre_ray.specs import as_dict
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial

#: Key of the last report of a trial that must not be tried again (see progress.SweepCallback).
LASTING_FAILURE = "lasting_failure"
#: In the results: stacks of what stood still.
HUNG_FOLDER = "hung"
#: Seconds between two writes of a trial's progress within one stage.
PROGRESS_PERIOD_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What every trial of a sweep shares; sent to the workers once, through the object store."""

    ledger_folder: Path
    worker: Worker
    functions: Functions
    scorers: ScorerPool
    plan: Callable[[Mapping[str, Any]], PlannedTrial]
    """Tune's config -> the trial: a look-up for an ablation, the base arm with overrides for a search."""
    companions: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Trial -> those whose weights it trains along (``companions.companions``)."""
    objectives: tuple[str, ...] = ()
    """Metrics that the search reads; none for an ablation."""
    hang_timeout_s: float | None = None
    """Of ``run``."""

    def stack_file(self, trial_id: str) -> Path:
        """Where a trial that hung left its stacks, the latest last."""
        return self.ledger_folder / HUNG_FOLDER / f"{trial_id}.txt"


@functools.lru_cache(maxsize=1)
def _read(context: ray.ObjectRef) -> TrialContext:
    """Once a process, which is reused: the plan of ten thousand trials takes longer to read than a small trial to run."""
    return ray.get(context)


def tune_function(context: ray.ObjectRef) -> Callable[[dict[str, Any]], None]:
    """What Tune calls, in a process that takes signals; context: of a TrialContext in the object store."""
    function = functools.partial(_run_trial_of, context=context)
    function.__mixins__ = (LeavesWhenTold,)  # type: ignore[attr-defined]  # Tune's way to a trainable's setup
    return function


def _run_trial_of(config: dict[str, Any], *, context: ray.ObjectRef) -> None:
    run_planned_trial(config, context=_read(context))


def run_planned_trial(config: dict[str, Any], *, context: TrialContext) -> None:
    """Runs one trial to its end. Every error is recorded with its reason and raised again, so that Tune knows; what is the fault
    of a node that then leaves is no error of the trial."""
    trial, worker = context.plan(config), context.worker
    with leaving_if_unfit(worker):
        store, ledger = worker.store(), worker.ledger(context.ledger_folder)
        known = ledger.trial(trial.trial_id)
        is_finished = known and known["status"] == "finished" and known["trial_key"] == trial.key
        if not is_finished:
            recorder = Recorder(ledger=ledger, trial=trial, progress_folder=context.ledger_folder / "progress")
    if is_finished:
        for evaluation in known["evaluations"]:  # a search drew the same point again
            tune.report({"step": evaluation["step"], **evaluation["metrics"]})
        return
    watchdog = Watchdog(timeout_s=context.hang_timeout_s, stack_file=context.stack_file(trial.trial_id))
    try:
        with leaving_if_unfit(worker, trial):
            with store.attributed_to(trial.trial_id), watchdog, NOTICE.watched():
                if trial.inputs is not None:
                    check = functools.partial(trial.inputs.check, trial.spec)
                    patiently(check, place=trial.spec.clips.path, what="read the recordings", patience_s=worker.patience_s)
                # What failed in company, for want of memory, say, is tried again alone.
                along = () if known and known["status"] == "failed" else context.companions.get(trial.trial_id, ())
                _run_evaluations(trial, along, store=store, context=context, recorder=recorder, watchdog=watchdog)
            recorder.finish(store)
    except Leaving as leaving:  # its record says "running", and the next start goes on with it
        raise ray.exceptions.RayActorError(error_msg=f"told to leave: {leaving}", preempted=True) from None
    except (UnfitNodeError, NoScorerError):
        raise
    except Exception as error:
        recorder.fail(error, store)
        if not is_transient(error):
            # Without "step" ASHA ignores the report; the objectives must be there, or Tune refuses the report.
            tune.report({LASTING_FAILURE: True, **dict.fromkeys(context.objectives, math.nan)})
        raise


def _run_evaluations(
    trial: PlannedTrial, along: Sequence[str], *, store: Store, context: TrialContext, recorder: Recorder, watchdog: Watchdog
) -> None:
    def on_progress(progress: Any) -> None:
        watchdog.alive()
        recorder.on_progress(progress)
        NOTICE.check()

    def while_waiting() -> None:
        watchdog.alive()  # the scorer has a watchdog of its own
        NOTICE.check()

    evaluations = context.functions.trial(
        trial.spec,
        worker=context.worker,
        store=store,
        score=context.scorers.submitter(trial.trial_id, while_waiting=while_waiting),
        on_progress=on_progress,
        companions=[context.plan({"trial_id": other}).spec for other in along],
    )
    try:
        for evaluation in evaluations:
            watchdog.alive()
            check_finite(evaluation.metrics, step=evaluation.step)
            store.confirm()
            recorder.add(evaluation, store)
            tune.report({"step": evaluation.step, **evaluation.metrics})
    finally:
        evaluations.close()  # a trial that ASHA stops leaves through tune.report: let the stages free what they hold


def check_finite(metrics: Mapping[str, float], *, step: int) -> None:
    """Raises FloatingPointError naming every metric that is NaN or infinite: a search would crown it or never end it."""
    bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if bad:
        raise FloatingPointError(f"step {step}: " + ", ".join(f"{name} is {value}" for name, value in bad.items()))


class Recorder:
    """Writes one trial's record to the ledger, and its progress to a small file that the driver's display reads."""

    def __init__(self, *, ledger: Ledger, trial: PlannedTrial, progress_folder: Path) -> None:
        self._ledger = ledger
        self._stage = "start"
        self._progress_file = progress_folder / f"{trial.trial_id}.json"
        self._progress_written = 0.0
        self._record: dict[str, Any] = {
            **planned_record(trial), "status": "running", "error": None, "evaluations": [], "stages": [], "losses": [],
            "started": time.time(), "finished": None, "wall_s": None,
        }  # fmt: skip
        ledger.write_trial(self._record)

    def on_progress(self, progress: Any) -> None:
        now = time.time()
        if progress.stage == self._stage and now - self._progress_written < PROGRESS_PERIOD_S and progress.done < progress.total:
            return
        self._stage, self._progress_written = progress.stage, now
        with contextlib.suppress(OSError):  # a display without news harms no trial
            write_json(self._progress_file, {**dataclasses.asdict(progress), "time": now})

    def add(self, evaluation: Any, store: Store) -> None:
        entry = dataclasses.asdict(evaluation)
        self._record["losses"] = entry.pop("losses")  # of every step so far
        self._record["evaluations"].append(entry)
        self._write(store)

    def finish(self, store: Store) -> None:
        self._end("finished", store)

    def fail(self, error: Exception, store: Store) -> None:
        self._record["error"] = describe(error, stage=self._stage)
        self._end("failed", store)

    def _end(self, status: str, store: Store) -> None:
        now = time.time()
        self._record |= {"status": status, "finished": now, "wall_s": round(now - self._record["started"], 3)}
        self._write(store)
        with contextlib.suppress(OSError):
            self._progress_file.unlink(missing_ok=True)

    def _write(self, store: Store) -> None:
        self._record["stages"] = stages_of(self._record["trial_id"], store)
        self._ledger.write_trial(self._record)


def planned_record(trial: PlannedTrial) -> dict[str, Any]:
    """The part of a ledger record that is known before the trial starts."""
    return {
        "schema": 1, "trial_id": trial.trial_id, "trial_key": trial.key, "arm": trial.arm, "target": trial.target,
        "seed": trial.spec.seed, "point": dict(trial.point), "spec": as_dict(trial.spec),
    }  # fmt: skip


def stages_of(trial_id: str, store: Store) -> list[dict[str, Any]]:
    """The stages that a trial used, in order. One it computed before it was interrupted counts as its own, not as reused."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in store.log(trial_id):
        place, reused = (event["stage"], event["key"]), event["event"] == "reused"
        if place not in found or not reused:
            found[place] = {"stage": place[0], "key": place[1], "seconds": event["seconds"], "reused": reused}
    return list(found.values())


def write_json(path: Path, value: Any) -> None:
    """Replaces the file in one move, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
