"""A pool of evaluation actors. Each keeps its models in its process; training goes on while they score."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from timbre_ray.cluster.failures import ScoringFailedError
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.resources import as_ray_options
from timbre_ray.cluster.unfit import UnfitNodeError, leaving_if_unfit
from timbre_ray.cluster.watchdog import Watchdog
from timbre_ray.ledger import Ledger
from timbre_ray.shared_disk import DiskNotSharedError
from timbre_ray.specs import TrialSpec
from timbre_ray.store import Store

#: A scorer that dies (killed, out of memory, its node gone) is started again, however often, and repeats the request it held; one
#: that kills it at each of so many repetitions fails its own trial alone.
MAX_RETRIES = 3

#: How long a trial waits for an actor that cannot be reached, and how often it asks.
UNAVAILABLE_S, RESENT_AFTER_S = 120.0, 2.0
#: How long it waits for an actor that is there and answers nothing (it hangs, or has much to do) before it asks the next one too.
SILENT_S = 30 * 60.0
#: How often it looks up while it waits for a score.
LOOKED_UP_EVERY_S = 1.0


class Scorer:
    """The actor: one request at a time, models held by the process."""

    def __init__(self, *, worker: Worker, score: Callable[..., dict[str, Any]], watchdog: Callable[[], Watchdog]) -> None:
        """watchdog: for each request; one that hangs ends this process, and Ray repeats it in a new one."""
        self._worker, self._score, self._watchdog = worker, score, watchdog

    @functools.cached_property
    def _store(self) -> Store:
        """Opened for the first score: an actor whose constructor raises, on a node without the disk, is dead for good."""
        return self._worker.store()

    def prepare(self, prepare: Callable[[Worker], None]) -> None:
        prepare(self._worker)

    def score(self, request: Any, trial_id: str) -> dict[str, Any]:
        with _ending_if_unfit(self._worker), self._watchdog(), self._store.attributed_to(trial_id):
            return self._score(request, worker=self._worker, store=self._store)

    def baseline(self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, target: str, key: str, ledger: Ledger) -> None:
        """Writes the record itself, as trials do: a report in the middle of the run has its floor."""
        with _ending_if_unfit(self._worker), self._watchdog(), self._store.attributed_to(f"baseline-{target}"):
            record = compute(spec, worker=self._worker, store=self._store)
            self._store.confirm()
            ledger.write_baseline(target, {**record, "target": target, "key": key})


@contextlib.contextmanager
def _ending_if_unfit(worker: Worker) -> Iterator[None]:
    """Ends this process on a node that leaves because it cannot work: Ray starts the actor elsewhere and repeats the request. (It
    would not after ``exit_actor``, which is for good.)"""
    try:
        with leaving_if_unfit(worker):
            yield
    except UnfitNodeError as left:
        print(left, file=sys.stderr, flush=True)
        os._exit(1)


class RemoteScore:
    """A score under way: stages.Pending over the actors that may compute it, of which the first is asked."""

    def __init__(self, asks: Sequence[Callable[[], ray.ObjectRef]], while_waiting: Callable[[], None] = lambda: None) -> None:
        """asks: sends the request to one actor each, the first of them at once."""
        first, *self._others = asks
        self._while_waiting, self._asked = while_waiting, {first(): first}

    def done(self) -> bool:
        ready, _ = ray.wait(list(self._asked), timeout=0)
        return bool(ready)

    def result(self) -> dict[str, Any]:
        """Waits for the score. Raises ScoringFailedError with the actor's own error as its cause.

        An actor whose node is gone answers nothing until Ray has noticed and started it elsewhere, for longer than Ray's own
        retries last: the request is sent again. One that is gone for good, or silent for long, leaves it to the next. Scores are
        artifacts, so that one is not computed twice. What ``while_waiting`` raises goes on.
        """
        deadline, asked = time.monotonic() + UNAVAILABLE_S, time.monotonic()
        while True:
            ready, _ = ray.wait(list(self._asked), timeout=LOOKED_UP_EVERY_S)
            if not ready:
                self._while_waiting()
                now = time.monotonic()
                deadline = now + UNAVAILABLE_S  # the actor is at work: a long score uses up no patience
                if now - asked > SILENT_S and self._ask_another():
                    asked = now
                continue
            try:
                return ray.get(ready[0])
            except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
                ask, failure = self._asked.pop(ready[0]), error
            if not _is_of_the_actor(failure):
                raise ScoringFailedError(_cause(failure)) from None
            if isinstance(failure, ray.exceptions.ActorUnavailableError) and time.monotonic() <= deadline:
                time.sleep(RESENT_AFTER_S)
                self._asked[ask()] = ask
            elif self._ask_another():
                deadline, asked = time.monotonic() + UNAVAILABLE_S, time.monotonic()
            elif not self._asked:
                raise ScoringFailedError(_cause(failure)) from None

    def _ask_another(self) -> bool:
        """False where every actor was asked. Those that are silent may still be the first to answer."""
        if not self._others:
            return False
        ask = self._others.pop(0)
        self._asked[ask()] = ask
        return True


def _is_of_the_actor(error: ray.exceptions.RayError) -> bool:
    """True where another actor may do better: this one is dead or away, or its node does not see the shared folders."""
    return isinstance(error, ray.exceptions.RayActorError) or isinstance(_cause(error), DiskNotSharedError)


def _cause(error: ray.exceptions.RayError) -> BaseException:
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    return cause if isinstance(cause, BaseException) else error


class ScorerPool:
    """Handles of the evaluation actors. Travels to the trials by pickle; every copy deals its requests out in turn."""

    def __init__(self, actors: list[ActorHandle]) -> None:
        self._actors = actors

    @classmethod
    def start(
        cls, *, num_scorers: int, resources: Mapping[str, float], worker: Worker, functions: Functions,
        hang_timeout_s: float | None, hung_folder: Path,
    ) -> ScorerPool:  # fmt: skip
        """The actors prepare themselves while the first trial is on its way to its first score.

        hang_timeout_s: of ``run``; hung_folder: where a scorer that stood still leaves its stack.
        """
        actor = ray.remote(Scorer).options(max_restarts=-1, max_task_retries=MAX_RETRIES, **as_ray_options(resources))
        stacks = [hung_folder / f"scorer-{number}.txt" for number in range(num_scorers)]
        watchdogs = [functools.partial(Watchdog, timeout_s=hang_timeout_s, stack_file=stack) for stack in stacks]
        actors = [actor.remote(worker=worker, score=functions.score, watchdog=watchdog) for watchdog in watchdogs]
        for one in actors:
            one.prepare.remote(functions.prepare_scoring)  # nobody waits: what is wrong with it, a score will say
        return cls(actors)

    def submitter(self, trial_id: str, while_waiting: Callable[[], None] = lambda: None) -> Callable[[Any], RemoteScore]:
        """The ``score`` argument of a trial. The first actor depends on the trial, so that trials spread over the pool.

        while_waiting: called every second that the trial waits for a score.
        """
        turn = itertools.count(sum(trial_id.encode()))

        def submit(request: Any) -> RemoteScore:
            return RemoteScore(self._asks(next(turn), lambda actor: actor.score.remote(request, trial_id)), while_waiting)

        return submit

    def baseline(
        self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, *, target: str, key: str, ledger: Ledger
    ) -> RemoteScore:
        """The floor of a target, under way."""
        asks = self._asks(sum(target.encode()), lambda actor: actor.baseline.remote(compute, spec, target, key, ledger))
        return RemoteScore(asks)

    def _asks(self, turn: int, ask: Callable[[ActorHandle], ray.ObjectRef]) -> list[Callable[[], ray.ObjectRef]]:
        """The same request to every actor, beginning with the one whose turn it is."""
        first = turn % len(self._actors)
        return [functools.partial(ask, actor) for actor in (*self._actors[first:], *self._actors[:first])]

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
