"""What the next trial of a reused process waits for: the one before, which ASHA stopped, frees what it holds first."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from ray.tune.trainable import function_trainable
from ray.tune.trainable.function_trainable import wrap_function

from timbre_ray.cluster.resources import QUIET_ENVIRONMENT
from timbre_ray.cluster.trainable import tune_function


class Session:
    """Tune's, of a trial that was stopped."""

    def __init__(self, *, unwinds: bool) -> None:
        self.waited_s: list[float] = []
        self.training_thread = SimpleNamespace(is_alive=lambda: not unwinds)

    def finish(self, timeout: float) -> None:
        self.waited_s.append(timeout)

    def reset(self, **told: object) -> None:
        self.told = told


@pytest.fixture
def reset(monkeypatch: pytest.MonkeyPatch) -> Callable[[Session], bool]:
    """Of Tune's trainable, in the environment of a sweep."""
    for name, value in QUIET_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    trainable = object.__new__(wrap_function(tune_function(None)))
    trainable._storage = SimpleNamespace(trial_working_directory="", experiment_dir_name="stubs")
    trainable._trial_info = None

    def reset(session: Session) -> bool:
        monkeypatch.setattr(function_trainable, "get_session", lambda: session)
        return trainable.reset_config({"trial_id": "next"})

    return reset


def test_a_stopped_trial_has_two_minutes_to_free_what_it_holds(reset: Callable[[Session], bool]) -> None:
    session = Session(unwinds=True)
    assert reset(session) and session.told
    assert session.waited_s == [120]


def test_one_that_does_not_end_fails_the_next_with_a_reason(reset: Callable[[Session], bool]) -> None:
    """Where ``reset_config`` returns False, Tune sets it to ERROR and tells neither callbacks nor the searcher."""
    with pytest.raises(RuntimeError, match="trial before it has not ended for 120 s"):
        reset(Session(unwinds=False))
