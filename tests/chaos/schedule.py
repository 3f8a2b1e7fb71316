"""Which fault comes when: drawn from a seed, before anything runs."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A fault to come. The three draws lie in [0, 1)."""

    number: int
    kind: str
    moment: float
    """How long the sweep is left alone before, as a share of the longest pause."""
    victim: float
    """Which of those that can be struck."""
    amount: float
    """How long or how much, where the kind has such a thing."""


def schedule(seed: int | str, weights: Mapping[str, int], num_faults: int, *, first: int = 1) -> tuple[Planned, ...]:
    """The kinds are dealt like cards, a kind as often in a deck as it weighs, so that a long run meets every one.

    ``first``: number of the first fault.
    """
    draw, deck, planned = random.Random(seed), [], []
    for number in range(first, first + num_faults):
        if not deck:
            deck = [kind for kind, weight in sorted(weights.items()) for _ in range(weight)]
            draw.shuffle(deck)
        kind = deck.pop()
        planned.append(Planned(number=number, kind=kind, moment=draw.random(), victim=draw.random(), amount=draw.random()))
    return tuple(planned)
