"""A pool of evaluation actors. Each keeps its models in its process; training goes on while they score."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from timbre_ray.cluster.failures import ScoringFailedError
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.resources import as_ray_options
from timbre_ray.cluster.unfit import UnfitNodeError, leaving_if_unfit
from timbre_ray.cluster.watchdog import Watchdog
from timbre_ray.identity import JUDGES, VERSIONS, judges_digest
from timbre_ray.inputs import OtherInputsError
from timbre_ray.patience import may_pass
from timbre_ray.shared_disk import DiskNotSharedError
from timbre_ray.specs import TrialSpec
from timbre_ray.stage_keys import ScoreRequest
from timbre_ray.store import Store

#: A scorer that dies (killed, out of memory, its node gone) is started again, however often, and repeats the requests it held so
#: many times by itself.
MAX_RETRIES = 3
#: So many times a trial then sends the request once more; one at which the scorer died each time goes to the next scorer, and
#: after the last fails its trial.
MAX_RESENT = 2

#: How long a trial waits for an actor that cannot be reached, and how often it asks.
UNAVAILABLE_S, RESENT_AFTER_S = 120.0, 2.0
#: How far apart trials ask again at most, once an actor has died of what it held.
APART_S = 20.0
#: How long it waits for an actor that is there and answers nothing (it hangs, or has much to do) before it asks the next one too.
SILENT_S = 30 * 60.0
#: How often it looks up while it waits for a score, and how often it then asks Ray where the actors are.
LOOKED_UP_EVERY_S, PLACES_ASKED_EVERY_S = 1.0, 60.0
#: How long it waits for actors that find no place, before it gives up its own: trials that fill the cluster, and wait for a
#: scorer whose node is gone, would wait for ever.
NO_PLACE_S = 10 * 60.0


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

    def _check(self, judged: Any, planned: tuple[str, int] | None) -> None:
        """planned: ``judged_by`` of it where judges and code are the plan's. Raises OtherInputsError where they are not here."""
        if planned is None:
            return
        try:
            found = judged_by(judged)
        except OSError as error:
            if may_pass(error):
                raise
            found = None  # what is not there is other, too
        if found != planned:
            raise OtherInputsError(
                f"node {socket.gethostname()}: what judges ({', '.join(JUDGES)} of evaluate) or the code there is not "
                "what the sweep was planned with. Copy the driver's files to that node, or install the same version there"
            )

    def score(self, request: Any, trial_id: str, planned: tuple[str, int] | None = None) -> dict[str, Any]:
        with _ending_if_unfit(self._worker), self._watchdog(), self._store.attributed_to(trial_id):
            self._check(request, planned)
            return self._score(request, worker=self._worker, store=self._store)

    def baseline(
        self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, target: str, key: str, ledger_folder: Path,
        planned: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        """Writes the record itself, as trials do: a report in the middle of the run has its floor."""
        with _ending_if_unfit(self._worker), self._watchdog(), self._store.attributed_to(f"baseline-{target}"):
            self._check(spec.evaluate, planned)
            record = compute(spec, worker=self._worker, store=self._store)
            self._store.confirm()
            self._worker.ledger(ledger_folder).write_baseline(target, {**record, "target": target, "key": key})


def judged_by(judged: Any) -> tuple[str, int]:
    """judged: what names the JUDGES, a ScoreRequest or a trial's ``evaluate`` -> their digest and the code's version, here."""
    return judges_digest(*(getattr(judged, name) for name in JUDGES)), VERSIONS["score"]


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


class NoScorerError(ray.exceptions.RayActorError):
    """No evaluation actor has a place, perhaps because this trial has it. To Tune it is a preempted actor, which counts as no
    failure: the trial goes on later, and what it gives up is free for the actor."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ask:
    """A request and the actor that it may be sent to."""

    actor: ActorHandle
    send: Callable[[ActorHandle], ray.ObjectRef]

    def __call__(self) -> ray.ObjectRef:
        return self.send(self.actor)

    def has_place(self) -> bool:
        """False while Ray looks for a node for the actor, as far as it says."""
        return self._known().get("State") not in ("RESTARTING", "PENDING_CREATION")

    def num_restarts(self) -> int:
        return self._known().get("NumRestarts", 0)

    def _known(self) -> Mapping[str, Any]:
        with contextlib.suppress(Exception):  # the control plane may be away
            return ray._private.state.actors(self.actor._actor_id.hex())
        return {}


@dataclasses.dataclass
class _Sent:
    ask: Ask
    num_restarts: int
    """Of the actor, then."""


class RemoteScore:
    """A score under way: stages.Pending over the actors that may compute it, of which the first is asked."""

    def __init__(
        self, asks: Sequence[Ask], while_waiting: Callable[[], None] = lambda: None, *, holds_a_place: bool = False
    ) -> None:
        """asks: to one actor each; the first is sent at once. holds_a_place: of the cluster, which the actors may lack."""
        first, *self._others = asks
        self._while_waiting, self._holds_a_place = while_waiting, holds_a_place
        self._asked: dict[ray.ObjectRef, _Sent] = {}
        self._resent = collections.Counter[Ask]()
        """After the actor had died, and been started anew."""
        self._places_asked, self._without_place = time.monotonic(), 0.0
        self._send(first)

    def done(self) -> bool:
        ready, _ = ray.wait(list(self._asked), timeout=0)
        return bool(ready)

    def result(self) -> dict[str, Any]:
        """Waits for the score. Raises ScoringFailedError with the actor's own error as its cause.

        An actor whose node is gone answers nothing until Ray has noticed and started it elsewhere, for longer than Ray's own
        retries last: the request is sent again. One that is gone for good, or silent for long, leaves it to the next. Scores are
        artifacts, so that one is not computed twice. What ``while_waiting`` raises goes on. Raises NoScorerError.
        """
        deadline, asked = time.monotonic() + UNAVAILABLE_S, time.monotonic()
        self._places_asked = asked  # nobody waited until now
        while True:
            ready, _ = ray.wait(list(self._asked), timeout=LOOKED_UP_EVERY_S)
            if not ready:
                self._while_waiting()
                now = time.monotonic()
                deadline = now + UNAVAILABLE_S  # the actor is at work: a long score uses up no patience
                if (now - asked > SILENT_S or self._lacks_place(now)) and self._ask_another():
                    asked = now
                continue
            try:
                return ray.get(ready[0])
            except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
                sent, failure = self._asked.pop(ready[0]), error
            if not _is_of_the_actor(failure):
                raise ScoringFailedError(_cause(failure)) from None
            was_started_anew = sent.ask.num_restarts() > sent.num_restarts
            self._resent[sent.ask] += was_started_anew
            patient = time.monotonic() <= deadline and self._resent[sent.ask] <= MAX_RESENT
            if isinstance(failure, ray.exceptions.ActorUnavailableError) and patient:
                # Whatever the actor held died with it: apart from each other, all but the one that kills it get through.
                self._pause(random.uniform(RESENT_AFTER_S, APART_S) if was_started_anew else RESENT_AFTER_S)
                self._send(sent.ask)
            elif self._ask_another():
                deadline, asked = time.monotonic() + UNAVAILABLE_S, time.monotonic()
            elif not self._asked:
                raise ScoringFailedError(_cause(failure)) from None

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._while_waiting()
            time.sleep(min(left, LOOKED_UP_EVERY_S))

    def _ask_another(self) -> bool:
        """False where every actor was asked. Those that are silent may still be the first to answer."""
        if not self._others:
            return False
        self._send(self._others.pop(0))
        return True

    def _send(self, ask: Ask) -> None:
        num_restarts = ask.num_restarts()
        self._asked[ask()] = _Sent(ask, num_restarts)

    def _lacks_place(self, now: float) -> bool:
        """True where Ray looks for a node for every actor that is asked. Raises NoScorerError where it has for long."""
        if not self._holds_a_place or now - self._places_asked < PLACES_ASKED_EVERY_S:
            return False
        waited, self._places_asked = now - self._places_asked, now
        if any(sent.ask.has_place() for sent in self._asked.values()):
            self._without_place = 0.0
            return False
        self._without_place += waited
        if self._without_place > NO_PLACE_S and not self._others:
            raise NoScorerError(
                error_msg=f"no evaluation actor has had a place for {NO_PLACE_S / 60:.0f} min (run.resources.score, "
                "run.num_scorers): trials that wait for scores give theirs up, and go on later",
                preempted=True,
            )
        return True


def _best_on(node: str) -> NodeAffinitySchedulingStrategy:
    """There as long as it has room, else anywhere."""
    return NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)


def _is_of_the_actor(error: ray.exceptions.RayError) -> bool:
    """True where another actor may do better: this one is dead or away, or its node sees other folders or has other files."""
    return isinstance(error, ray.exceptions.RayActorError) or isinstance(_cause(error), DiskNotSharedError | OtherInputsError)


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
        hang_timeout_s: float | None, hung_folder: Path, nodes: Sequence[str | None] = (),
    ) -> ScorerPool:  # fmt: skip
        """The actors prepare themselves while the first trial is on its way to its first score.

        hang_timeout_s: of ``run``; hung_folder: where a scorer that stood still leaves its stack; nodes: Ray's ids of those that
        the actors had best be on, where Ray is not to choose.
        """
        options = {"max_restarts": -1, "max_task_retries": MAX_RETRIES, **as_ray_options(resources)}
        actors = []
        for number, node in zip(range(num_scorers), nodes or [None] * num_scorers, strict=True):
            stack = hung_folder / f"scorer-{number}.txt"
            actor = ray.remote(Scorer).options(**options, **({"scheduling_strategy": _best_on(node)} if node else {}))
            watchdog = functools.partial(Watchdog, timeout_s=hang_timeout_s, stack_file=stack)
            actors.append(actor.remote(worker=worker, score=functions.score, watchdog=watchdog))
        for one in actors:
            one.prepare.remote(functions.prepare_scoring)  # nobody waits: what is wrong with it, a score will say
        return cls(actors)

    def submitter(self, trial_id: str, while_waiting: Callable[[], None] = lambda: None) -> Callable[[Any], RemoteScore]:
        """The ``score`` argument of a trial. The first actor depends on the trial, so that trials spread over the pool.

        while_waiting: called every second that the trial waits for a score.
        """
        turn = itertools.count(sum(trial_id.encode()))

        def submit(request: Any) -> RemoteScore:
            planned = judged_by(request) if isinstance(request, ScoreRequest) else None
            asks = self._asks(next(turn), lambda actor: actor.score.remote(request, trial_id, planned))
            return RemoteScore(asks, while_waiting, holds_a_place=True)

        return submit

    def baseline(
        self, compute: Callable[..., dict[str, Any]], spec: TrialSpec, *, target: str, key: str, ledger_folder: Path
    ) -> RemoteScore:
        """The floor of a target, under way."""
        asks = self._asks(sum(target.encode()), lambda actor: actor.baseline.remote(
            compute, spec, target, key, ledger_folder, judged_by(spec.evaluate)
        ))  # fmt: skip
        return RemoteScore(asks)

    def _asks(self, turn: int, send: Callable[[ActorHandle], ray.ObjectRef]) -> list[Ask]:
        """The same request to every actor, beginning with the one whose turn it is."""
        first = turn % len(self._actors)
        return [Ask(actor, send) for actor in (*self._actors[first:], *self._actors[:first])]

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
