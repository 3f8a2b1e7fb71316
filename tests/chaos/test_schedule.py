"""The schedule comes from the seed alone, and deals every kind; every kind has its strike and its words."""

from __future__ import annotations

from collections import Counter

from tests.chaos.faults import KINDS
from tests.chaos.report import WORDS
from tests.chaos.schedule import schedule
from tests.chaos.trials import TRIALS

WEIGHTS = {"worker": 3, "head": 1, "nan": 2}


def test_a_seed_is_a_schedule() -> None:
    assert schedule(7, WEIGHTS, 50) == schedule(7, dict(reversed(WEIGHTS.items())), 50)
    assert schedule(7, WEIGHTS, 50) != schedule(8, WEIGHTS, 50)
    assert schedule(7, WEIGHTS, 50)[:20] == schedule(7, WEIGHTS, 20), "a longer run begins like a shorter one"


def test_each_deck_holds_every_kind_as_often_as_it_weighs() -> None:
    kinds = [planned.kind for planned in schedule(3, WEIGHTS, 18)]
    assert [Counter(kinds[start : start + 6]) for start in (0, 6, 12)] == [Counter(WEIGHTS)] * 3
    assert kinds[:6] != kinds[6:12] or kinds[6:12] != kinds[12:]


def test_numbers_go_on_and_draws_are_shares() -> None:
    planned = schedule(3, WEIGHTS, 40, first=11)
    assert [one.number for one in planned] == list(range(11, 51))
    draws = [draw for one in planned for draw in (one.moment, one.victim, one.amount)]
    assert all(0 <= draw < 1 for draw in draws) and len(set(draws)) == len(draws)


def test_every_kind_can_be_struck_and_is_explained() -> None:
    assert set(WORDS) == set(KINDS)
    assert {kind for trials in TRIALS.values() for kind in trials.weights} == set(KINDS)
