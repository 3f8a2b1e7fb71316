"""What a trial does while the actor that scores for it cannot be reached, is gone or says nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from timbre_ray.cluster import scoring
from timbre_ray.cluster.failures import ScoringFailedError, is_transient
from timbre_ray.cluster.functions import Worker
from timbre_ray.inputs import OtherInputsError
from timbre_ray.leaving import Leaving
from timbre_ray.shared_disk import DiskNotSharedError, SharedDisk
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.stage_keys import ScoreRequest

NOTHING = object()
"""Of an actor, in the place of an answer: it is at work."""
SCORE = {"fad_held_out": 3.0}
DEATH = object()
"""It died of what it held, and was started anew."""


def unreachable() -> ActorUnavailableError:
    return ActorUnavailableError("connection refused", None)


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("score", "traceback", error).as_instanceof_cause()


@dataclasses.dataclass
class Actors:
    """Stand-ins whose answers come in turn, to one request after the other; the last of them stays."""

    answers: list[list[Any]]
    sent: list[int] = dataclasses.field(default_factory=list)
    """The actor that each request went to."""
    now: float = 0.0
    homeless: Callable[[int, float], bool] = lambda number, now: False
    """Actor and time -> whether Ray looks for a node for it."""
    restarts: Counter[int] = dataclasses.field(default_factory=Counter)

    def handles(self) -> list[Any]:
        return [
            SimpleNamespace(
                score=SimpleNamespace(remote=self._of(number)), _actor_id=SimpleNamespace(hex=functools.partial(str, number))
            )
            for number in range(len(self.answers))
        ]

    def state(self, actor_id: str) -> dict[str, Any]:
        state = "RESTARTING" if self.homeless(int(actor_id), self.now) else "ALIVE"
        return {"State": state, "NumRestarts": self.restarts[int(actor_id)]}

    def request(self, trial_id: str = "", while_waiting: Callable[[], None] = lambda: None) -> scoring.RemoteScore:
        return scoring.ScorerPool(self.handles()).submitter(trial_id, while_waiting)("request")

    def _of(self, number: int) -> Callable[[str, str], tuple[int, int]]:
        def remote(request: str, trial_id: str, planned: None) -> tuple[int, int]:
            self.sent.append(number)
            return number, len(self.sent)

        return remote

    def wait(self, refs: list[tuple[int, int]], timeout: float) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Of the actors that are asked the first that has something to say; one that has nothing is a look further on."""
        ready = [ref for ref in refs if self.answers[ref[0]][0] is not NOTHING]
        for number in {number for number, _ in refs}:
            if self.answers[number][0] is NOTHING and len(self.answers[number]) > 1:
                self.answers[number].pop(0)
        self.now += 0.0 if ready else timeout
        return ready[:1], refs

    def get(self, ref: tuple[int, int]) -> Any:
        answers = self.answers[ref[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is DEATH:
            self.restarts[ref[0]] += 1
            raise unreachable()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Actors]:
    def make(*answers: list[Any]) -> Actors:
        made = Actors(answers=list(answers))
        monkeypatch.setattr(ray, "wait", made.wait)
        monkeypatch.setattr(ray, "get", made.get)
        monkeypatch.setattr(ray._private.state, "actors", made.state)
        clock = SimpleNamespace(monotonic=lambda: made.now, sleep=lambda seconds: setattr(made, "now", made.now + seconds))
        monkeypatch.setattr(scoring, "time", clock)
        return made

    return make


def test_an_actor_that_cannot_be_reached_is_asked_again(actors: Callable[..., Actors]) -> None:
    pool = actors([unreachable(), unreachable(), SCORE], [SCORE])
    assert pool.request().result() == SCORE
    assert pool.sent == [0, 0, 0]


def test_not_for_ever_and_then_the_next_one(actors: Callable[..., Actors]) -> None:
    alone = actors([unreachable()])
    with pytest.raises(ScoringFailedError, match="connection refused"):
        alone.request().result()
    assert scoring.UNAVAILABLE_S <= alone.now <= scoring.UNAVAILABLE_S + scoring.RESENT_AFTER_S
    pool = actors([unreachable()], [SCORE])
    assert pool.request().result() == SCORE and pool.sent[-2:] == [0, 1]


def test_a_long_score_uses_up_no_patience(actors: Callable[..., Actors]) -> None:
    """The actor worked for longer than an unreachable one is waited for; then its node goes."""
    pool = actors([*[NOTHING] * 500, unreachable(), SCORE], [SCORE])
    assert pool.request().result() == SCORE and pool.now > scoring.UNAVAILABLE_S and pool.sent == [0, 0]


def test_a_request_that_kills_its_actor_each_time_fails_its_own_trial(actors: Callable[..., Actors]) -> None:
    """Each time the actor was at it for a while, started again after Ray's own repetitions."""
    deaths = [*[NOTHING] * 20, DEATH] * 10
    alone = actors(list(deaths))
    with pytest.raises(ScoringFailedError, match="connection refused"):
        alone.request().result()
    assert alone.sent == [0] * (1 + scoring.MAX_RESENT)
    pair = actors(list(deaths), list(deaths))
    with pytest.raises(ScoringFailedError):
        pair.request().result()
    assert sorted(pair.sent) == [0] * (1 + scoring.MAX_RESENT) + [1] * (1 + scoring.MAX_RESENT)


def test_one_that_ray_has_not_missed_yet_has_died_of_nothing(actors: Callable[..., Actors]) -> None:
    """It takes Ray seconds to tell that a request has not arrived, and a while to start the actor anew."""
    pool = actors([*[*[NOTHING] * 5, unreachable()] * 6, SCORE], [SCORE])
    assert pool.request().result() == SCORE and set(pool.sent) == {0}


def test_other_judges_on_an_actors_node_leave_it_to_the_next(actors: Callable[..., Actors], tmp_path: Path) -> None:
    asked = ScoreRequest(
        encode_key="e", audio=(("solo", "s"),), partner="piano", target_class="flute", embedders=("vggish",), num_clips=2
    )
    actor = scoring.Scorer(
        worker=Worker(store_root=tmp_path, device="cpu", threads=1), score=lambda *a, **k: SCORE, watchdog=contextlib.nullcontext
    )
    judges, version = scoring.judged_by(asked)
    assert actor.score(asked, "trial", (judges, version)) == SCORE
    gone = dataclasses.replace(asked, vggish=str(tmp_path / "gone.pth"))
    for other, planned in ((asked, ("others", version)), (asked, (judges, version + 1)), (gone, (judges, version))):
        with pytest.raises(OtherInputsError, match="what judges .*code there is not .*install the same version there") as caught:
            actor.score(other, "trial", planned)
    spec = TrialSpec(clips=ClipsSpec(path="flute"))
    with pytest.raises(OtherInputsError):
        actor.baseline(lambda *a, **k: SCORE, spec, "flute", "k", tmp_path, ("others", version))
    pool = actors([raised(caught.value)], [SCORE])
    assert pool.request().result() == SCORE and pool.sent == [0, 1]


def test_who_waits_for_an_actor_without_a_place_gives_up_its_own(actors: Callable[..., Actors]) -> None:
    alone = actors([NOTHING])
    alone.homeless = lambda number, now: True
    with pytest.raises(scoring.NoScorerError, match="10 min") as caught:
        alone.request().result()
    assert caught.value.preempted and scoring.NO_PLACE_S < alone.now <= scoring.NO_PLACE_S + 2 * scoring.PLACES_ASKED_EVERY_S
    pair = actors([NOTHING], [*[NOTHING] * 10, SCORE])
    pair.homeless = lambda number, now: number == 0
    assert pair.request().result() == SCORE and pair.sent == [0, 1] and pair.now < 2 * scoring.PLACES_ASKED_EVERY_S
    back = actors([*[NOTHING] * 1100, SCORE])
    back.homeless = lambda number, now: not 540 < now < 620
    assert back.request().result() == SCORE, "it had a place in between"


def test_an_actor_that_is_dead_leaves_it_to_the_next(actors: Callable[..., Actors]) -> None:
    pool = actors([ActorDiedError()], [SCORE])
    assert pool.request().result() == SCORE
    assert pool.sent == [0, 1], "the dead one is not asked again"


def test_all_dead_is_a_failed_score(actors: Callable[..., Actors]) -> None:
    pool = actors([ActorDiedError()], [ActorDiedError()], [ActorDiedError()])
    with pytest.raises(ScoringFailedError) as caught:
        pool.request().result()
    assert pool.sent == [0, 1, 2] and is_transient(caught.value)


def test_a_score_that_fails_fails_everywhere(actors: Callable[..., Actors]) -> None:
    pool = actors([raised(FileNotFoundError("clip_0001.flac: missing"))], [SCORE])
    with pytest.raises(ScoringFailedError, match="clip_0001"):
        pool.request().result()
    assert pool.sent == [0]


def test_an_actor_whose_node_does_not_see_the_disk_leaves_it_to_the_next(actors: Callable[..., Actors], tmp_path: Path) -> None:
    unseen = dataclasses.replace(SharedDisk.of("run.storage", tmp_path / "store"), id="another")
    actor = scoring.Scorer(
        worker=Worker(store_root=tmp_path / "store", device="cpu", threads=1, disks=(unseen,)), score=lambda *a, **k: SCORE,
        watchdog=contextlib.nullcontext,
    )  # fmt: skip
    # Its constructor does not raise: Ray would never start it again.
    with pytest.raises(DiskNotSharedError) as caught:
        actor.score("request", "trial")
    pool = actors([raised(caught.value)], [SCORE])
    assert pool.request().result() == SCORE and pool.sent == [0, 1]
    with pytest.raises(ScoringFailedError, match="run.storage"):
        actors([raised(caught.value)]).request().result()


def test_one_that_is_silent_for_long_is_asked_beside_the_next(actors: Callable[..., Actors]) -> None:
    pool = actors([NOTHING], [*[NOTHING] * 60, SCORE])
    assert pool.request().result() == SCORE
    assert pool.sent == [0, 1] and scoring.SILENT_S < pool.now < scoring.SILENT_S + 120
    slow = actors([*[NOTHING] * 1900, SCORE], [NOTHING])
    assert slow.request().result() == SCORE and slow.sent == [0, 1], "it had much to do, and answers first after all"
    alone = actors([*[NOTHING] * 4000, SCORE])
    assert alone.request().result() == SCORE and alone.sent == [0]


def test_requests_of_a_trial_go_round(actors: Callable[..., Actors]) -> None:
    pool = actors([SCORE], [SCORE], [SCORE])
    submit = scoring.ScorerPool(pool.handles()).submitter("\x01")
    assert [submit("request").result() for _ in range(4)] == [SCORE] * 4
    assert pool.sent == [1, 2, 0, 1]


def test_who_waits_hears_that_it_must_leave(actors: Callable[..., Actors]) -> None:
    pool = actors([NOTHING])
    told = iter((None, Leaving("drained")))

    def while_waiting() -> None:
        if error := next(told):
            raise error

    with pytest.raises(Leaving, match="drained"):
        pool.request(while_waiting=while_waiting).result()
    assert pool.sent == [0], "it waited for the one request"
