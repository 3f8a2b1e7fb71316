"""The state of every trial of a running sweep, the time that is left, and the lines that a display shows."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

State = Literal["waiting", "running", "finished", "failed", "stopped early"]
Kind = tuple[str, str]
"""Trials that may be expected to last alike: of one arm, and with as much to train."""
AT_ONCE = "finds its weights"
"""The way of a trial whose training the store has, or another trial does: until more is known it takes no time."""
NUM_LATEST = 4
"""Trials of a kind whose mean is expected of the next."""
ANY: Kind = ("", "trains")


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


def metrics_text(metrics: dict[str, float], partner: str) -> str:
    parts = [f"step {metrics.get('step', 0)}"]
    if "fad_held_out" in metrics:
        parts.append(f"FAD {metrics['fad_held_out']:.2f}")
    if "duet_partner_rank" in metrics:
        parts.append(f"{partner} rank {metrics['duet_partner_rank']:.1f}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
