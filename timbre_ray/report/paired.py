"""Differences between arms in pairs of the same target and seed, and the contrasts of arms that an ablation's effects are.

Targets are blocks: each has its own level of the difference, and the mean weighs all targets alike. Seeds are the repetitions:
the spread is what remains within the targets. So an interval speaks of other seeds on these recordings.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.80
"""How often a study of the suggested size would decide, were the difference and its spread as observed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedDifference:
    mean: float
    """Of the targets' mean differences."""
    spread: float | None
    """Standard deviation between the seeds of one target, pooled; None where no target has two seeds."""
    standard_error: float | None
    degrees_of_freedom: int
    num_pairs: int
    by_target: tuple[tuple[str, float], ...]
    """Mean difference on each target."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean difference (Student's t)."""
        if self.standard_error is None:
            return None
        half = _t_factor(self.degrees_of_freedom) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float | None:
        """Two-sided, of no difference. A difference that is the same at every seed counts as certain."""
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.mean) / self.standard_error, self.degrees_of_freedom))

    def num_more_seeds(self, margin: float) -> int | None:
        """Seeds a target beyond the present ones after which the difference would be shown, or shown to lie within ``margin``.

        The nearer of the two, by the normal approximation; None where neither can be told from what is known.
        """
        if not self.spread:
            return None
        gap = max(abs(self.mean), margin - abs(self.mean))
        if gap <= 0:
            return None
        z = float(stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER))
        num_targets = len(self.by_target)
        wanted = math.ceil((z * self.spread / gap) ** 2 / num_targets)
        return max(1, wanted - math.ceil(self.num_pairs / num_targets))


@functools.cache
def _t_factor(degrees_of_freedom: int) -> float:
    """Looked up thousands of times in a large report, for few numbers of seeds."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom))


def paired_difference(by_target: Mapping[str, Sequence[float] | np.ndarray]) -> PairedDifference:
    """by_target: the differences at each seed, at least one a target."""
    groups = {target: np.asarray(values, dtype=np.float64) for target, values in by_target.items()}
    means = {target: float(values.mean()) for target, values in groups.items()}
    num_pairs = sum(map(len, groups.values()))
    freedom = num_pairs - len(groups)
    spread = error = None
    if freedom > 0:
        spread = math.sqrt(sum(float(np.square(v - means[t]).sum()) for t, v in groups.items()) / freedom)
        # Rounding must not look like spread.
        spread = 0.0 if spread < 1e-9 * max(1.0, *map(abs, means.values())) else spread
        error = spread * math.sqrt(sum(1 / len(values) for values in groups.values())) / len(groups)
    return PairedDifference(
        mean=float(np.mean(list(means.values()))),
        spread=spread,
        standard_error=error,
        degrees_of_freedom=freedom,
        num_pairs=num_pairs,
        by_target=tuple(means.items()),
    )


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


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg over those that are there."""
    tested = [p for p in p_values if p is not None]
    found = iter(stats.false_discovery_control(tested) if tested else ())
    return [None if p is None else float(next(found)) for p in p_values]
