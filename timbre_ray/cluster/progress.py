"""Tune's callback in the driver: it keeps the board, and the ledger records that a dead or stopped worker cannot write."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune import Callback

from timbre_ray.cluster.board import Board, State
from timbre_ray.cluster.failures import describe, root_of
from timbre_ray.cluster.scoring import NoScorerError
from timbre_ray.cluster.trainable import LASTING_FAILURE, TrialContext, planned_record
from timbre_ray.cluster.unfit import UnfitNodeError
from timbre_ray.stage_keys import Stage, StageKeys
from timbre_ray.sweep import PlannedTrial

IDLE_S = 5 * 60.0
"""Without any trial that runs, before the user is told."""
#: Metrics that the display shows, by the beginning of their names.
SHOWN_PREFIXES = ("fad_held_out", "duet_partner_rank")


class SweepCallback(Callback):
    """Keeps the board, stops useless retries, and writes the ledger records that a dead or stopped worker cannot write."""

    def __init__(
        self, *, context: TrialContext, board: Board, check_alone: Callable[[], None] = lambda: None,
        why_idle: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        """check_alone: raises once another driver has taken the sweep over; why_idle: what to tell where no trial starts."""
        self._context, self._board, self._check_alone, self._why_idle = context, board, check_alone, why_idle
        self._busy_at = time.monotonic()
        self._ledger = context.worker.ledger(context.ledger_folder)
        self._stopped_early: list[PlannedTrial] = []

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._check_alone()
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        """Ray waits for ever, and without a word, for a place that there is not."""
        if self._board.count("running") or not self._board.num_waiting:
            self._busy_at = time.monotonic()
        elif time.monotonic() - self._busy_at > IDLE_S:
            self._busy_at = time.monotonic()
            self._board.notice(f"no trial has run for {IDLE_S / 60:.0f} min: {self._why_idle()}")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._board.start(trial.trial_id, self._planned(trial).trial_id, time.time())

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if LASTING_FAILURE in result:
            trial.max_failures = 0  # the error itself follows: Tune shall not try the same thing again
        elif "step" in result:
            names = [name for name in result if name == "step" or name.startswith(SHOWN_PREFIXES)]
            self._board.report(trial.trial_id, {name: result[name] for name in names})
            if result.get("done"):  # ASHA ended the trial: what it has measured so far is its result
                self._finish(trial, "stopped early")
                self._stopped_early.append(self._planned(trial))
                self._drop_checkpoint(self._stopped_early[-1])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row, record = self._board.rows.get(trial.trial_id), self._ledger.trial(self._planned(trial).trial_id)
        # A trial that the time budget ends is not finished: its record says "running", and the next run goes on with it.
        if row and row.state == "running" and record and record["status"] == "finished":
            self._finish(trial, "finished")
        _lighten(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = _raised(trial)
        left = root_of(error) if error else None
        if isinstance(left, UnfitNodeError | NoScorerError):
            self._board.notice(str(left))
        self._board.retry(trial.trial_id, self._planned(trial).trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        planned = self._planned(trial)
        record = self._ledger.trial(planned.trial_id)
        known = record["status"] if record and record["trial_key"] == planned.key else None
        if known == "finished":  # its worker died, or the driver failed to note it, after that
            self._finish(trial, "finished")
            return _lighten(trial)
        if known != "failed":
            record = self._write_death(trial, record)
        self._board.end(trial.trial_id, planned.trial_id, "failed", time.time(), error_text(record["error"]))
        _lighten(trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Once more: a checkpoint may have been on its way when its trial was stopped. Not that of one to go on with."""
        if not self._stopped_early:
            return
        with contextlib.suppress(Exception):  # as in _drop_checkpoint
            status = {record["trial_id"]: record["status"] for record in self._ledger.trials()}
            to_go_on = [planned for planned in map(self._planned, trials) if status.get(planned.trial_id) != "finished"]
            kept = {_training(planned).key for planned in to_go_on}
            for planned in self._stopped_early:
                if _training(planned).key not in kept:
                    self._drop_checkpoint(planned)

    def _planned(self, trial: Any) -> PlannedTrial:
        return self._context.plan(trial.config)

    def _finish(self, trial: Any, state: State) -> None:
        record, now = self._ledger.trial(self._planned(trial).trial_id), time.time()
        assert record is not None, "a trial that reported has a record"
        trial_id, repeats = record["trial_id"], self._board.times_ended(record["trial_id"])
        if record["status"] != "finished":
            record |= {"status": "finished", "stopped_early": True, "finished": now, "wall_s": round(now - record["started"], 3)}
        if state == "stopped early" or repeats:
            self._ledger.write_trial({**record, "repeats": record.get("repeats", 0) + (1 if repeats else 0)})
        self._board.end(trial.trial_id, trial_id, state, now)

    def _drop_checkpoint(self, planned: PlannedTrial) -> None:
        """At full size it is 8.6 GB, and the trial is over."""
        with contextlib.suppress(Exception):  # recordings or storage out of reach: no sweep ends for it; `store gc` finds it
            training = _training(planned)
            self._context.worker.store().drop_checkpoint(training.name, training.key)

    def _write_death(self, trial: Any, record: dict[str, Any] | None) -> dict[str, Any]:
        """The worker died before it could say why: killed, out of memory, or never started."""
        planned, now = self._planned(trial), time.time()
        blank = {"evaluations": [], "stages": [], "losses": [], "started": now}
        stage, _, _ = self._board.stage(planned.trial_id)
        reason = _raised(trial) or RuntimeError("no reason was left behind")
        record = {
            **blank,
            **(record or {}),
            **planned_record(planned),
            "status": "failed",
            "error": describe(reason, stage=stage),
        }
        record |= {"finished": now, "wall_s": round(now - record["started"], 3)}
        stack = self._context.stack_file(planned.trial_id)
        if stack.is_file() and stack.stat().st_mtime >= record["started"]:
            message = f"no progress for {self._context.hang_timeout_s} s (run.hang_timeout_s); where it hung: {stack}"
            record["error"] = {"type": "TimeoutError", "message": message, "stage": stage}
        self._ledger.write_trial(record)
        return record


def _training(planned: PlannedTrial) -> Stage:
    """By whose key its checkpoint goes."""
    return StageKeys(planned.spec).dreambooth(planned.spec.evaluate.at_steps[-1])


def _raised(trial: Any) -> BaseException | None:
    """The latest error of a trial, from where the driver has just written it: ``trial.get_pickled_error`` and ``get_error`` look
    where Tune copies it with its own state, which is never (TUNE_GLOBAL_CHECKPOINT_S)."""
    pickled, text = (Path(file) if file else None for file in (trial.pickled_error_file, trial.error_file))
    if pickled and pickled.is_file():
        return cloudpickle.loads(pickled.read_bytes())
    return RuntimeError(text.read_text()) if text and text.is_file() else None


def _lighten(trial: Any) -> None:
    """Tune keeps every trial to the end, and with it the running means of its results, which nobody reads once it has ended."""
    trial.run_metadata.metric_n_steps.clear()
    trial.run_metadata.metric_analysis.clear()


def error_text(error: dict[str, str]) -> str:
    return f"{error['type']} in {error['stage']}: {error['message']}"
