"""What a trial does while the actor that scores for it cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from timbre_ray.cluster import scoring
from timbre_ray.cluster.failures import ScoringFailedError
from timbre_ray.leaving import Leaving


def answers(monkeypatch: pytest.MonkeyPatch, *values: Any) -> list[int]:
    """ray.get gives these in turn; returns the list of requests that were sent."""
    left, sent = list(values), []

    def get(ref: int, timeout: float) -> Any:
        assert ref == sent[-1], "the latest request is waited for"
        value = left.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(scoring, "RESENT_AFTER_S", 0.0)
    return sent


def request(sent: list[int], while_waiting: Callable[[], None] = lambda: None) -> scoring.RemoteScore:
    def submit() -> int:
        sent.append(len(sent))
        return sent[-1]

    return scoring.RemoteScore(submit, while_waiting)


def unreachable() -> ActorUnavailableError:
    return ActorUnavailableError("connection refused", None)


def test_an_actor_that_cannot_be_reached_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = answers(monkeypatch, unreachable(), unreachable(), {"fad_held_out": 3.0})
    assert request(sent).result() == {"fad_held_out": 3.0}
    assert sent == [0, 1, 2]


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "UNAVAILABLE_S", -1.0)
    sent = answers(monkeypatch, unreachable())
    with pytest.raises(ScoringFailedError):
        request(sent).result()


def test_a_long_score_uses_up_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor worked for longer than an unreachable one is waited for; then its node goes."""
    now = iter((0.0, 500.0, 501.0))
    monkeypatch.setattr(scoring.time, "monotonic", lambda: next(now))
    sent = answers(monkeypatch, GetTimeoutError("later"), unreachable(), {"fad_held_out": 3.0})
    assert request(sent).result() == {"fad_held_out": 3.0} and sent == [0, 1]


def test_an_actor_that_is_dead_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = answers(monkeypatch, ActorDiedError())
    with pytest.raises(ScoringFailedError):
        request(sent).result()
    assert sent == [0]


def test_who_waits_hears_that_it_must_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = answers(monkeypatch, GetTimeoutError("later"), GetTimeoutError("later"))
    told = iter((None, Leaving("drained")))

    def while_waiting() -> None:
        if error := next(told):
            raise error

    with pytest.raises(Leaving, match="drained"):
        request(sent, while_waiting).result()
    assert sent == [0], "it waited for the one request"
