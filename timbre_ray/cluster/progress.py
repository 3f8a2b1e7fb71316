"""What the driver knows of a running sweep: the board of trials, and Tune's callback that keeps it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ray import cloudpickle
from ray.tune import Callback

from timbre_ray.cluster.failures import describe, root_of
from timbre_ray.cluster.scoring import NoScorerError
from timbre_ray.cluster.trainable import LASTING_FAILURE, TrialContext, planned_record
from timbre_ray.cluster.unfit import UnfitNodeError
from timbre_ray.stage_keys import StageKeys
from timbre_ray.sweep import PlannedTrial

State = Literal["waiting", "running", "finished", "failed", "stopped early"]
Kind = tuple[str, str]
"""Trials that may be expected to last alike: of one arm, and with as much to train."""
AT_ONCE = "finds its weights"
"""The way of a trial whose training the store has, or another trial does: until more is known it takes no time."""
NUM_LATEST = 4
"""Trials of a kind whose mean is expected of the next."""
ANY: Kind = ("", "trains")
IDLE_S = 5 * 60.0
"""Without any trial that runs, before the user is told."""


@dataclasses.dataclass(kw_only=True)
class Row:
    """One trial on the board."""

    trial_id: str
    kind: Kind
    state: State
    started: float
    """Unix time of the latest start; 0 before it."""
    ended: float = 0.0
    retries: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """Latest evaluation, ``step`` among it."""
    error: str = ""


class Board:
    """The state of every trial of this run. The callback writes it, the display reads it (also from its own thread)."""

    def __init__(
        self, *, num_trials: int, num_kept: int, progress_folder: Path, concurrency: int, partner: str = "partner",
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:  # fmt: skip
        """kinds: of the trials that are planned; a search's are all of one kind.

        Counts are kept, not made: an event takes no longer in the ten thousandth trial than in the first.
        """
        self.num_trials, self.num_kept, self.partner = num_trials, num_kept, partner
        self.rows: dict[str, Row] = {}
        """By Tune's own id: a search may draw one trial of ours twice."""
        self.messages: list[str] = []
        """Lines for a display without a terminal, oldest first."""
        self.notices: list[str] = []
        """Those of them that a terminal shows too, at the end."""
        self._progress_folder, self._concurrency = progress_folder, max(1, concurrency)
        self._states, self._ended, self._num_ended = Counter[State](), Counter[str](), 0
        self._running: dict[str, Row] = {}
        self._kinds = kinds or {}
        self._left = Counter(self._kinds.values())
        """Trials that have not ended, by kind; empty for a search."""
        self._took: dict[Kind, deque[float]] = {}
        """Seconds of the latest ones that finished or were stopped early."""

    def count(self, state: State) -> int:
        return self._states[state]

    @property
    def num_ended(self) -> int:
        return self._num_ended

    @property
    def num_waiting(self) -> int:
        return max(0, self.num_trials - self.num_ended - self.count("running"))

    def running(self) -> list[Row]:
        return list(self._running.values())

    def start(self, key: str, trial_id: str, now: float) -> None:
        self._move(key, trial_id, "running", started=now, ended=0.0)
        self.messages.append(f"{trial_id}: started")

    def _move(self, key: str, trial_id: str, state: State, *, started: float | None = None, ended: float | None = None) -> Row:
        """The row in its new state; a trial may end before it was ever started, and start again after it ended."""
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Row(trial_id=trial_id, kind=self._kinds.get(trial_id, ANY), state=state, started=0.0)
        else:
            self._count(row, -1)
        row.state = state
        row.started = row.started if started is None else started
        row.ended = row.ended if ended is None else ended
        self._count(row, 1)
        self._running.pop(key, None)
        if state == "running":
            self._running[key] = row
        return row

    def _count(self, row: Row, sign: int) -> None:
        self._states[row.state] += sign
        if row.ended > 0:
            self._num_ended += sign
            self._ended[row.trial_id] += sign
            self._left[row.kind] -= sign

    def report(self, key: str, metrics: dict[str, float]) -> None:
        row = self.rows[key]
        row.metrics = metrics
        self.messages.append(f"{row.trial_id}: {metrics_text(metrics, self.partner)}")

    def notice(self, line: str) -> None:
        """Once, however many say so."""
        if line in self.notices:
            return
        self.notices.append(line)
        self.messages.append(line)

    def retry(self, key: str, trial_id: str) -> None:
        """A worker may die before its trial has started: then there is no row yet."""
        row = self._move(key, trial_id, "waiting")
        row.retries += 1
        self.messages.append(f"{row.trial_id}: its worker failed or was told to leave, trying again")

    def end(self, key: str, trial_id: str, state: State, now: float, error: str = "") -> None:
        row = self._move(key, trial_id, state, started=None if key in self.rows else now, ended=now)
        row.error = error
        if state != "failed":
            self._took.setdefault(row.kind, deque(maxlen=NUM_LATEST)).append(now - row.started)
        left = self.seconds_left(now)
        done = f"{self.num_ended} of {self.num_trials}" + (f", {duration(left)} left" if left else "")
        self.messages.append(f"{trial_id}: {state}{': ' + error if error else ''} ({done})")

    def times_ended(self, trial_id: str) -> int:
        """How often a trial ended in this run: a search may draw the same point again."""
        return self._ended[trial_id]

    def stage(self, trial_id: str) -> tuple[str, int, int]:
        """(stage, done, total) of a running trial, from the small file that its worker writes."""
        try:
            progress = json.loads((self._progress_folder / f"{trial_id}.json").read_text())
        except (OSError, json.JSONDecodeError):
            return "starting", 0, 0
        return progress["stage"], progress["done"], progress["total"]

    def seconds_left(self, now: float) -> float | None:
        """Estimate from what the latest trials of the same kind took; None where nothing is known of a kind that is left.

        As many run at once as there are slots, or trials; and it takes no less than the longest of those that run.
        """
        means = self._means()
        running = [_rest(means(row.kind), now - row.started) for row in self.running()]
        waiting = self._left - Counter(row.kind for row in self.running()) if self._kinds else Counter({ANY: self.num_waiting})
        expected = {kind: means(kind) for kind in waiting if waiting[kind]}
        if any(seconds is None for seconds in (*running, *expected.values())):
            return None
        total = sum(running) + sum(waiting[kind] * mean for kind, mean in expected.items())
        at_once = min(self._concurrency, len(running) + sum(waiting[kind] for kind in expected))
        return max([total / max(1, at_once), *running])

    def _means(self) -> Callable[[Kind], float | None]:
        """Kind -> seconds; of an arm without any the mean of all arms that train alike."""
        known = {kind: statistics.fmean(took) for kind, took in list(self._took.items())}  # the display asks from its own thread
        alike: dict[str, list[float]] = {AT_ONCE: []}
        for (_, way), mean in known.items():
            alike.setdefault(way, []).append(mean)
        of_all = {way: statistics.fmean(means) if means else 0.0 for way, means in alike.items()}
        return lambda kind: known.get(kind, of_all.get(kind[1]))


def _rest(mean: float | None, spent: float) -> float | None:
    return None if mean is None else max(0.1 * mean, mean - spent)


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
        for planned in self._stopped_early:  # once more: a checkpoint may have been on its way when the trial was stopped
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
            last = StageKeys(planned.spec).dreambooth(planned.spec.evaluate.at_steps[-1])
            self._context.worker.store().drop_checkpoint(last.name, last.key)

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


#: Metrics that the display shows, by the beginning of their names.
SHOWN_PREFIXES = ("fad_held_out", "duet_partner_rank")


def metrics_text(metrics: dict[str, float], partner: str) -> str:
    parts = [f"step {metrics.get('step', 0)}"]
    if "fad_held_out" in metrics:
        parts.append(f"FAD {metrics['fad_held_out']:.2f}")
    if "duet_partner_rank" in metrics:
        parts.append(f"{partner} rank {metrics['duet_partner_rank']:.1f}")
    return ", ".join(parts)


def error_text(error: dict[str, str]) -> str:
    return f"{error['type']} in {error['stage']}: {error['message']}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
