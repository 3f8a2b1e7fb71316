"""How many trials of a search are drawn ahead: enough to tell an autoscaler what is wanted, and on one machine as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.execution.tune_controller import _get_max_pending_trials
from ray.tune.search import SearchGenerator
from ray.tune.search.searcher import Searcher

from timbre_ray.cluster.search import DrawnAhead, asha, optuna_search
from timbre_ray.run_specs import RangeSpec, SearchSpec
from timbre_ray.search_history import SearchHistory
from timbre_ray.sweep import load_sweep

NUM_TRIALS = 16  # Optuna's sampler draws the first ten at random and learns from then on


class Tune:
    """Asks for trials, starts and ends them as Tune's controller does, where ``room`` of them run at once."""

    def __init__(self, *, room: int) -> None:
        self.room, self.most_waiting = room, 0
        self.drawn: dict[str, float] = {}
        self.waiting: list[str] = []
        self.running: list[str] = []

    def play(self, searcher: Searcher) -> None:
        most = _get_max_pending_trials(SearchGenerator(searcher))
        while len(self.drawn) < NUM_TRIALS or self.running or self.waiting:
            while len(self.waiting) < most and len(self.drawn) < NUM_TRIALS and self.draw(searcher):
                pass
            self.most_waiting = max(self.most_waiting, len(self.waiting))
            if self.waiting and len(self.running) < self.room:
                self.running.append(self.waiting.pop(0))
            else:
                trial_id = self.running.pop(0)
                searcher.on_trial_complete(trial_id, {"fad_held_out": (self.drawn[trial_id] - 0.3) ** 2, "training_iteration": 1})

    def draw(self, searcher: Searcher) -> bool:
        trial_id = f"t{len(self.drawn)}"
        point: dict[str, Any] | None = searcher.suggest(trial_id)
        if point is None:
            return False
        self.drawn[trial_id] = point["dreambooth.prior_weight"]
        self.waiting.append(trial_id)
        return True


def searcher() -> Searcher:
    space = {"dreambooth.prior_weight": RangeSpec(type="float", low=0.0, high=1.0)}
    return optuna_search(SearchSpec(space=space, seed=3), SearchHistory(measured=(), unfinished=(), trials=()))


@pytest.mark.parametrize("room", [4, 6])
def test_as_many_wait_in_the_beginning_as_there_are_slots(room: int) -> None:
    """An autoscaler starts nodes for what waits; nodes that nobody counted (room 6) are used too."""
    tune = Tune(room=room)
    tune.play(DrawnAhead(searcher(), slots=4, num_running=lambda: len(tune.running)))
    assert tune.most_waiting == 4


def test_once_all_slots_run_one_trial_waits() -> None:
    tune = Tune(room=4)
    ahead = DrawnAhead(searcher(), slots=4, num_running=lambda: len(tune.running))
    tune.running = [tune.waiting.pop() for _ in range(4) if tune.draw(ahead)]
    assert [tune.draw(ahead) for _ in range(2)] == [True, False]
    ahead.on_trial_complete(tune.running.pop(), {"fad_held_out": 1.0})
    assert not tune.draw(ahead), "the one that waits has its slot"


def test_one_slot_draws_what_tune_drew_without_a_limit() -> None:
    tune, plain = Tune(room=1), Tune(room=1)
    tune.play(DrawnAhead(searcher(), slots=1, num_running=lambda: len(tune.running)))
    plain.play(searcher())
    assert tune.drawn == plain.drawn and len(set(plain.drawn.values())) == NUM_TRIALS


def test_a_point_that_runs_is_not_drawn_a_second_time_until_it_has_ended() -> None:
    """Two trials of one name at once would write over each other's record."""
    space = {"dreambooth.method": RangeSpec(type="categorical", choices=("direct", "prior"))}
    search = optuna_search(SearchSpec(space=space, seed=0), SearchHistory(measured=(), unfinished=(), trials=()))
    points: dict[str, Any] = {}
    for number in range(40):  # Tune asks under another name each time
        if point := search.suggest(f"t{number}"):
            points[f"t{number}"] = point
    assert sorted(point["dreambooth.method"] for point in points.values()) == ["direct", "prior"]
    for trial_id in points:
        search.on_trial_complete(trial_id, {"fad_held_out": 1.0, "training_iteration": 1})
    assert search.suggest("later") in points.values(), "the one that was held back"
    search.on_trial_complete("later", {"fad_held_out": 1.0, "training_iteration": 1})
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["COMPLETE"] * (len(points) + 1), "none stays open"


def test_a_resumed_search_tries_what_is_unfinished_and_draws_anew() -> None:
    spec = SearchSpec(space={"dreambooth.prior_weight": RangeSpec(type="float", low=0.0, high=1.0)}, seed=3)
    first = searcher().suggest("a")
    again = optuna_search(spec, SearchHistory(measured=((first, (1.0,)),), unfinished=(), trials=()))
    assert again.suggest("a") != first
    left = {"dreambooth.prior_weight": 0.123}
    assert optuna_search(spec, SearchHistory(measured=(), unfinished=(left,), trials=())).suggest("a") == left


def test_asha_lets_the_best_go_on_to_the_last_step(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {clips: {path: 'mini:chinese_flute_v1'}, dreambooth: {steps: 300}}\n"
        "search: {num_trials: 2, scheduler: {grace_period: 25}, space: {seed: {type: int, low: 0, high: 9}}}\n"
    )
    assert asha(load_sweep(path))._max_t == 300
