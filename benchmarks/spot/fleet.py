"""GPUs that work through trials and are taken away at random, event by event. Seeded; nothing here is measured.

A GPU holds one trial at a time, as Ray Tune gives it one. The trial goes through its stages: what is published is free, what
another trial computes at this moment is waited for, all else is computed. When a GPU is taken, its trial goes back to the head of
the queue, and another GPU comes in its place after a delay.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections import deque
from collections.abc import Hashable, Sequence

import numpy as np

from benchmarks.spot.work import Step, Trial

HOUR_S = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    num_gpus: int
    interruptions_a_gpu_hour: float = 0.0
    restart_s: float = 300.0
    """From the loss of a GPU until another works in its place."""
    checkpoint_s: float | None = 60.0
    """Between two checkpoints of a Dreambooth run; None: an interrupted run starts from its first step."""
    shares: bool = True
    """Stages are published to all trials; else each trial has a store of its own."""
    keeps: bool = True
    """Published stages outlive an interruption; False (not with ``shares``): a script that begins anew."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shares and not self.keeps:
            raise ValueError("shares=True, keeps=False: what is not kept cannot be shared")


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """All in GPU seconds, but for the makespan (seconds) and the counts."""

    makespan_s: float = 0.0
    computed_s: float = 0.0
    """Spent on stages, whatever became of it."""
    repeated_s: float = 0.0
    """Of that, what had been computed before and was lost; counted where it is lost or done again."""
    waiting_s: float = 0.0
    """For a stage that another trial computed."""
    down_s: float = 0.0
    """Between a GPU and the one in its place, while trials were left."""
    num_interruptions: int = 0
    """Of GPUs that held a trial."""


@dataclasses.dataclass(kw_only=True)
class _State:
    """One trial."""

    number: int
    next_step: int = 0
    in_memory_s: float | None = None
    """Training time behind the weights that the process holds; None: it holds none."""
    saved_s: float = 0.0
    """Likewise of the latest checkpoint."""
    reached_s: float = 0.0
    """The farthest that this trial ever trained."""
    spent_s: float = 0.0
    """Since it last began with nothing."""


@dataclasses.dataclass(kw_only=True)
class _Gpu:
    number: int
    version: int = 0
    """Raised when its plans change: events of an older one are void."""
    is_up: bool = True
    trial: _State | None = None
    step: Step | None = None
    """Being computed; None while it waits or idles."""
    since: float = 0.0
    from_s: float = 0.0
    """Where in the training run the step began."""
    waits_for: Hashable = None
    lost_at: float = math.inf


class _Simulation:
    def __init__(self, trials: Sequence[Trial], fleet: Fleet) -> None:
        self._trials, self._fleet, self.outcome = trials, fleet, Outcome()
        self._ends = [list(itertools.accumulate(s.seconds if s.trains else 0.0 for s in trial)) for trial in trials]
        self._queue, self._num_left = deque(_State(number=i) for i in range(len(trials))), len(trials)
        self._published: set[Hashable] = set()
        self._holders: dict[Hashable, _Gpu] = {}
        self._waiting: dict[Hashable, list[_Gpu]] = {}
        self._idle: dict[int, _Gpu] = {}
        self._events: list[tuple[float, int, str, _Gpu, int]] = []
        self._order = itertools.count()
        self._draws = [np.random.default_rng([fleet.seed, number]) for number in range(fleet.num_gpus)]

    def run(self) -> Outcome:
        for number in range(self._fleet.num_gpus):
            self._come_up(_Gpu(number=number), 0.0)
        while self._num_left:
            now, _, kind, gpu, version = heapq.heappop(self._events)
            if kind == "lost" and gpu.is_up and gpu.lost_at == now:
                self._lose(gpu, now)
            elif kind == "up":
                self._come_up(gpu, now)
            elif kind == "done" and version == gpu.version:
                self._finish_step(gpu, now)
        return self.outcome

    def _plan(self, time: float, kind: str, gpu: _Gpu) -> None:
        heapq.heappush(self._events, (time, next(self._order), kind, gpu, gpu.version))

    def _place(self, trial: _State, step: Step) -> Hashable:
        return step.key if self._fleet.shares else (trial.number, step.key)

    # -- a GPU's life ----------------------------------------------------------------------------------------------------------

    def _come_up(self, gpu: _Gpu, now: float) -> None:
        gpu.is_up = True
        if self._fleet.interruptions_a_gpu_hour:
            gpu.lost_at = now + float(self._draws[gpu.number].exponential(HOUR_S / self._fleet.interruptions_a_gpu_hour))
            self._plan(gpu.lost_at, "lost", gpu)
        self._take_trial(gpu, now)

    def _lose(self, gpu: _Gpu, now: float) -> None:
        gpu.is_up, gpu.version = False, gpu.version + 1
        self._idle.pop(gpu.number, None)
        self.outcome.down_s += self._fleet.restart_s
        self._plan(now + self._fleet.restart_s, "up", gpu)
        if gpu.trial is None:
            return
        self.outcome.num_interruptions += 1
        trial, gpu.trial = gpu.trial, None
        if gpu.step is not None:
            self._break_off(gpu, trial, now)
        elif gpu.waits_for is not None:
            self.outcome.waiting_s += now - gpu.since
            self._waiting[gpu.waits_for].remove(gpu)
            gpu.waits_for = None
        self._forget(trial)
        self._queue.appendleft(trial)
        if self._idle:
            self._take_trial(self._idle.pop(next(iter(self._idle))), now)

    def _break_off(self, gpu: _Gpu, trial: _State, now: float) -> None:
        assert gpu.step is not None
        step, elapsed, gpu.step = gpu.step, now - gpu.since, None
        self.outcome.computed_s += elapsed
        trial.spent_s += elapsed
        if step.trains:
            self._train_to(gpu.from_s + elapsed, gpu, trial)
        elif self._fleet.keeps:
            self.outcome.repeated_s += elapsed
        place = self._place(trial, step)
        del self._holders[place]
        self._wake(place, now)

    def _train_to(self, position_s: float, gpu: _Gpu, trial: _State) -> None:
        self.outcome.repeated_s += max(0.0, min(trial.reached_s, position_s) - gpu.from_s)
        trial.in_memory_s, trial.reached_s = position_s, max(trial.reached_s, position_s)

    def _forget(self, trial: _State) -> None:
        """What the process held is gone; of its training the latest checkpoint is left."""
        trial.next_step = 0
        if not self._fleet.keeps:
            self.outcome.repeated_s += trial.spent_s
            trial.spent_s = trial.reached_s = 0.0
            self._published -= {(trial.number, step.key) for step in self._trials[trial.number]}
        elif self._fleet.checkpoint_s and trial.in_memory_s is not None:
            saved = trial.in_memory_s // self._fleet.checkpoint_s * self._fleet.checkpoint_s
            trial.saved_s = max(trial.saved_s, saved)
        trial.in_memory_s = None

    # -- a trial's life --------------------------------------------------------------------------------------------------------

    def _take_trial(self, gpu: _Gpu, now: float) -> None:
        if not self._queue:
            self._idle[gpu.number] = gpu
            return
        gpu.trial = self._queue.popleft()
        self._go_on(gpu, now)

    def _go_on(self, gpu: _Gpu, now: float) -> None:
        """To the trial's next stage that is not published, or to the next trial."""
        trial = gpu.trial
        assert trial is not None
        steps = self._trials[trial.number]
        while trial.next_step < len(steps) and self._place(trial, steps[trial.next_step]) in self._published:
            trial.next_step += 1
        if trial.next_step == len(steps):
            gpu.trial, self._num_left = None, self._num_left - 1
            self.outcome.makespan_s = now
            self._take_trial(gpu, now)
            return
        step = steps[trial.next_step]
        place = self._place(trial, step)
        gpu.since = now
        if place in self._holders:
            gpu.waits_for = place
            self._waiting.setdefault(place, []).append(gpu)
            return
        self._holders[place], gpu.step, seconds = gpu, step, step.seconds
        if step.trains:
            gpu.from_s = trial.saved_s if trial.in_memory_s is None else trial.in_memory_s
            seconds = self._ends[trial.number][trial.next_step] - gpu.from_s
        gpu.version += 1
        self._plan(now + seconds, "done", gpu)

    def _finish_step(self, gpu: _Gpu, now: float) -> None:
        trial, step = gpu.trial, gpu.step
        assert trial is not None and step is not None
        self.outcome.computed_s += now - gpu.since
        trial.spent_s += now - gpu.since
        if step.trains:
            self._train_to(self._ends[trial.number][trial.next_step], gpu, trial)
        place, gpu.step = self._place(trial, step), None
        self._published.add(place)
        del self._holders[place]
        self._wake(place, now)
        self._go_on(gpu, now)

    def _wake(self, place: Hashable, now: float) -> None:
        """Published, or free to be computed by the first who waited."""
        for gpu in self._waiting.pop(place, []):
            gpu.waits_for = None
            self.outcome.waiting_s += now - gpu.since
            self._go_on(gpu, now)


def simulate(trials: Sequence[Trial], fleet: Fleet) -> Outcome:
    return _Simulation(trials, fleet).run()


def distinct_seconds(trials: Sequence[Trial], *, shares: bool = True) -> float:
    """What must be computed at least."""
    if not shares:
        return sum(step.seconds for trial in trials for step in trial)
    return sum({step.key: step.seconds for trial in trials for step in trial}.values())
