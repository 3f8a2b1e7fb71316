"""Differences between arms in pairs of the same target and seed, and the contrasts of arms that an ablation's effects are.

Targets are blocks: each has its own level of the difference, and the mean weighs all targets alike. Seeds are the repetitions,
and a seed is one whatever the number of targets: their trials share its class audio, its draws and its noise, so that what a seed
does to the one it does to the others. An interval speaks of other seeds on these recordings.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.80
"""How often a study of the suggested size would decide, were the difference and its spread as observed."""
MANY_SEEDS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    mean: float
    """Of the targets' mean differences."""
    spread: float | None
    """Standard deviation between seeds of the difference over all targets; None where a target has one seed."""
    num_seeds: int
    """Of the target that has fewest."""
    num_pairs: int
    by_target: tuple[tuple[str, float], ...]
    """Mean difference on each target."""
    left_out: tuple[str, ...] = ()
    """Targets of one seed where others have more: they have no spread, and would leave the others without an interval."""

    @property
    def pairs_text(self) -> str:
        without = f", without {', '.join(self.left_out)}: one seed" if self.left_out else ""
        return f"{self.num_pairs}{without}"

    @property
    def is_constant(self) -> bool:
        """The same at every seed: whole numbers, as ranks are, may agree by chance, and have no spread to judge them by."""
        return self.spread == 0

    @property
    def standard_error(self) -> float | None:
        """None where there is no spread to tell it from."""
        return self.spread / math.sqrt(self.num_seeds) if self.spread else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference (Student's t)."""
        if self.standard_error is None:
            return None
        half = _t_factor(self.num_seeds - 1) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float | None:
        """Two-sided, of no difference."""
        if self.standard_error is None:
            return None
        return float(2 * stats.t.sf(abs(self.mean) / self.standard_error, self.num_seeds - 1))

    def num_more_seeds(self, margin: float) -> int | None:
        """Seeds beyond the present ones after which the difference would be shown, or shown to lie within ``margin``, with a
        chance of POWER and before any correction; MANY_SEEDS where it is more than that. None where nothing is known.
        """
        if not self.spread:
            return None
        few, many = self.num_seeds, self.num_seeds + MANY_SEEDS
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if self._chance(middle, margin) >= POWER else (middle, many)
        return many - self.num_seeds

    def _chance(self, num_seeds: int, margin: float) -> float:
        """Of a verdict after so many seeds, were mean and spread as they are: of a difference, or, as a lower bound, of level."""
        assert self.spread
        factor, error = _t_factor(num_seeds - 1), self.spread / math.sqrt(num_seeds)

        def exceeds(gap: float) -> float:
            return float(stats.nct.sf(factor, num_seeds - 1, gap / error)) if gap > 0 else 0.0

        return max(exceeds(abs(self.mean)), exceeds(margin - self.mean) + exceeds(margin + self.mean) - 1)


@functools.cache
def _t_factor(degrees_of_freedom: int) -> float:
    """Looked up thousands of times in a large report, for few numbers of seeds."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom))


def paired_difference(differences: Mapping[tuple[str, int], float]) -> PairedDifference:
    """differences: (target, seed) -> difference, at least one.

    What the seeds differ by is told from each seed's part in the mean, over all targets at once (as cluster-robust errors are);
    with all targets at all seeds that is Student's t over the seeds' means. The target with fewest seeds decides the degrees of
    freedom; targets of one seed beside others with more are left out of everything.
    """
    given: dict[str, dict[int, float]] = {}
    for (target, seed), value in differences.items():
        given.setdefault(target, {})[seed] = float(value)
    groups = {target: values for target, values in given.items() if len(values) > 1} or given
    means = {target: statistics.fmean(values.values()) for target, values in groups.items()}
    fewest, spread = min(map(len, groups.values())), None
    if fewest > 1:
        parts: dict[int, float] = collections.defaultdict(float)
        for target, values in groups.items():
            for seed, value in values.items():
                parts[seed] += (value - means[target]) / (len(groups) * len(values))
        spread = fewest * math.sqrt(sum(part**2 for part in parts.values()) / (fewest - 1))
        # Rounding must not look like spread.
        spread = 0.0 if spread < 1e-9 * max(1.0, *map(abs, means.values())) else spread
    return PairedDifference(
        mean=statistics.fmean(means.values()),
        spread=spread,
        num_seeds=fewest,
        num_pairs=sum(map(len, groups.values())),
        by_target=tuple(means.items()),
        left_out=tuple(target for target in given if target not in groups),
    )


def paired_sides(left: pd.Series, right: pd.Series) -> tuple[PairedDifference, float, float] | None:
    """Scores by (target, seed) -> left less right over the pairs that both have, and the means of either side over the targets
    that count, which weigh alike. None where there is no pair.
    """
    pairs = pd.concat({"left": left, "right": right}, axis=1, join="inner")
    if pairs.empty:
        return None
    found = paired_difference((pairs["left"] - pairs["right"]).to_dict())
    by_target = pairs.groupby(level="target").mean()
    means = by_target.loc[[target for target, _ in found.by_target]].mean()
    return found, float(means["left"]), float(means["right"])


def effects_of(design: str, arms: Mapping[str, Sequence[str]]) -> dict[tuple[str, ...], dict[str, float]]:
    """Factors -> weight of each arm in their effect; one factor's own effect, and of a factorial the interaction of each two.

    arms: name -> the factors that are on, the arm of reference first. An effect is the scores' sum by these weights. A factor's
    own: the mean of the arms that have it less the mean of those they differ from in it alone. An interaction: how much larger
    the one factor's effect is where the other is on.
    """
    reference, *others = (frozenset(on) for on in arms.values())
    name = {frozenset(on): arm for arm, on in arms.items()}
    factors = list(dict.fromkeys(factor for on in arms.values() for factor in on))
    if design == "factorial":
        wanted = [*((factor,) for factor in factors), *itertools.combinations(factors, 2)]
        return {of: {arm: _sign(of, on) * 2.0 ** (len(of) - len(factors)) for arm, on in arms.items()} for of in wanted}
    effects = {}
    for other in others:
        (factor,) = reference ^ other
        lacks, has = sorted((reference, other), key=len)
        effects[factor,] = {name[has]: 1.0, name[lacks]: -1.0}
    return effects


def _sign(of: Sequence[str], on: Sequence[str]) -> int:
    return math.prod(1 if factor in on else -1 for factor in of)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over those that are there: that any of them is below 0.05 by chance has a chance of 0.05."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = found[place] = max(largest, min(1.0, p * (len(order) - rank)))
    return found


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg over those that are there."""
    tested = [p for p in p_values if p is not None]
    found = iter(stats.false_discovery_control(tested) if tested else ())
    return [None if p is None else float(next(found)) for p in p_values]
