"""A pool of evaluation actors. Each keeps its models in its process; training goes on while they score."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.actor import ActorHandle

from timbre_ray.cluster.failures import ScoringFailedError
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.resources import as_ray_options
from timbre_ray.ledger import Ledger
from timbre_ray.specs import TrialSpec

#: A scorer that dies (killed, out of memory, its node gone) is started again, however often, and repeats the request it held; one
#: that kills it at each of so many repetitions fails its own trial alone.
MAX_RETRIES = 3

#: How long a trial waits for an actor that cannot be reached, and how often it asks.
UNAVAILABLE_S, RESENT_AFTER_S = 120.0, 2.0
#: How often it looks up while it waits for a score.
LOOKED_UP_EVERY_S = 1.0


class Scorer:
    """The actor: one request at a time, models held by the process."""

    def __init__(self, *, worker: Worker, score: Callable[..., dict[str, Any]]) -> None:
        self._worker, self._score, self._store = worker, score, worker.store()

    def prepare(self, prepare: Callable[[Worker], None]) -> None:
        prepare(self._worker)

    def score(self, request: Any, trial_id: str) -> dict[str, Any]:
        with self._store.attributed_to(trial_id):
            return self._score(request, worker=self._worker, store=self._store)

    def baseline(self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, target: str, key: str, ledger: Ledger) -> None:
        """Writes the record itself, as trials do: a report in the middle of the run has its floor."""
        with self._store.attributed_to(f"baseline-{target}"):
            record = compute(spec, worker=self._worker, store=self._store)
            self._store.confirm()
        ledger.write_baseline(target, {**record, "target": target, "key": key})


class RemoteScore:
    """A score under way: stages.Pending over an ObjectRef."""

    def __init__(self, submit: Callable[[], ray.ObjectRef], while_waiting: Callable[[], None] = lambda: None) -> None:
        self._submit, self._while_waiting, self.ref = submit, while_waiting, submit()

    def done(self) -> bool:
        ready, _ = ray.wait([self.ref], timeout=0)
        return bool(ready)

    def result(self) -> dict[str, Any]:
        """Waits for the score. Raises ScoringFailedError with the actor's own error as its cause.

        An actor whose node is gone answers nothing until Ray has noticed and started it elsewhere, for longer than Ray's own
        retries last: the request is sent again. Scores are artifacts, so that one is not computed twice. What ``while_waiting``
        raises goes on.
        """
        deadline = time.monotonic() + UNAVAILABLE_S
        while True:
            try:
                return ray.get(self.ref, timeout=LOOKED_UP_EVERY_S)
            except ray.exceptions.GetTimeoutError:
                self._while_waiting()
                deadline = time.monotonic() + UNAVAILABLE_S  # the actor is at work: a long score uses up no patience
                continue
            except ray.exceptions.RayTaskError as error:
                raise ScoringFailedError(error.cause if isinstance(error.cause, BaseException) else error) from None
            except ray.exceptions.RayActorError as error:
                gone_for_good = not isinstance(error, ray.exceptions.ActorUnavailableError)
                if gone_for_good or time.monotonic() > deadline:
                    raise ScoringFailedError(error) from None
            time.sleep(RESENT_AFTER_S)
            self.ref = self._submit()


class ScorerPool:
    """Handles of the evaluation actors. Travels to the trials by pickle; every copy deals its requests out in turn."""

    def __init__(self, actors: list[ActorHandle]) -> None:
        self._actors = actors

    @classmethod
    def start(cls, *, num_scorers: int, resources: Mapping[str, float], worker: Worker, functions: Functions) -> ScorerPool:
        """The actors prepare themselves while the first trial is on its way to its first score."""
        actor = ray.remote(Scorer).options(max_restarts=-1, max_task_retries=MAX_RETRIES, **as_ray_options(resources))
        actors = [actor.remote(worker=worker, score=functions.score) for _ in range(num_scorers)]
        for one in actors:
            one.prepare.remote(functions.prepare_scoring)  # nobody waits: what is wrong with it, a score will say
        return cls(actors)

    def submitter(self, trial_id: str, while_waiting: Callable[[], None] = lambda: None) -> Callable[[Any], RemoteScore]:
        """The ``score`` argument of a trial. The first actor depends on the trial, so that trials spread over the pool.

        while_waiting: called every second that the trial waits for a score.
        """
        start = sum(trial_id.encode()) % len(self._actors)
        turn = itertools.islice(itertools.cycle(self._actors), start, None)

        def submit(request: Any) -> RemoteScore:
            actor = next(turn)
            return RemoteScore(lambda: actor.score.remote(request, trial_id), while_waiting)

        return submit

    def baseline(
        self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, *, target: str, key: str, ledger: Ledger
    ) -> RemoteScore:
        """The floor of a target, under way."""
        actor = self._actors[sum(target.encode()) % len(self._actors)]
        return RemoteScore(lambda: actor.baseline.remote(compute, spec, target, key, ledger))

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
