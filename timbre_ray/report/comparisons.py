"""Every arm against one baseline arm, at the last step: effect, interval, corrected test and a plain verdict."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

import pandas as pd

from timbre_ray.report.claims import DUET_RANK, FAD, PIANO, metric_name, number
from timbre_ray.report.paired import MANY_SEEDS, POWER, PairedDifference, adjusted, paired_difference
from timbre_ray.report.results import Results

Verdict = Literal["better", "worse", "level", "cannot be told apart"]
FALSE_DISCOVERY_RATE = 0.05
DEFAULT_MARGIN = 0.10
LOWER_IS_BETTER = {FAD: True, DUET_RANK: True, PIANO: False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
    """One arm against the baseline in one score."""

    metric: str
    arm: str
    baseline: str
    arm_mean: float
    baseline_mean: float
    difference: PairedDifference
    """Arm minus baseline."""
    margin: float
    """Differences below it do not matter, in the score's own unit."""
    p_adjusted: float | None
    """Benjamini and Hochberg over all contrasts of the report; None where there is no test."""

    @property
    def verdict(self) -> Verdict:
        lower = LOWER_IS_BETTER[self.metric]
        return judged(self.difference, margin=self.margin, p_adjusted=self.p_adjusted, lower_is_better=lower)

    @property
    def verdict_text(self) -> str:
        return self.verdict + more_seeds(self.difference, self.margin, self.verdict)


def judged(difference: PairedDifference, *, margin: float, p_adjusted: float | None, lower_is_better: bool) -> Verdict:
    interval = difference.interval
    if interval is None or p_adjusted is None:
        return "cannot be told apart"
    low, high = interval
    if -margin < low and high < margin:
        return "level"
    if p_adjusted < FALSE_DISCOVERY_RATE:
        return "better" if (difference.mean < 0) == lower_is_better else "worse"
    return "cannot be told apart"


def more_seeds(difference: PairedDifference, margin: float, verdict: Verdict) -> str:
    """What to add to a verdict: where none could be reached, why, or about how many more seeds might reach one."""
    if verdict != "cannot be told apart":
        return ""
    if difference.is_constant:
        return ": the same at every seed, no test"
    more = difference.num_more_seeds(margin)
    if more is None:
        return ""
    how_many = f"about {more}" if more < MANY_SEEDS else f"more than {MANY_SEEDS}"
    return f": {how_many} more seed{'s' * (more > 1)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrasts:
    baseline: str | None
    """None where nothing is compared."""
    margin_share: float
    partner: str
    """What the scores' names call the instrument whose survival is measured."""
    found: tuple[Contrast, ...]

    @property
    def rule(self) -> str:
        return (
            "At the last step, in pairs of the same target and seed. Better or worse: a paired t-test over seeds, each over all "
            f"targets, corrected over the {sum(c.p_adjusted is not None for c in self.found)} tests of this table (Benjamini and "
            "Hochberg): of these verdicts at "
            f"most {FALSE_DISCOVERY_RATE:.0%} are expected to be false. Level: the 95 % interval lies within "
            f"{self.margin_share:.0%} of the baseline’s mean. The number of seeds is what would decide with a chance of "
            f"{POWER:.0%} before the correction, were effect and spread as they are here; few seeds know either only roughly. A "
            "difference that is the same at every seed, as ranks often are, has no spread to test it by."
        )


def contrast_all(results: Results, *, baseline: str | None = None, margin: float = DEFAULT_MARGIN) -> Contrasts:
    """Every other arm against ``baseline`` (default: the sweep's first arm that has finished trials; of a search none).

    margin: share of the baseline's mean within which two arms count as level. Raises ValueError for an arm that is not there.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: must be above 0 (a share of the baseline's mean)")
    finished = [arm.label for arm in results.arms if len(results.of_arm(arm.label))]
    if baseline is not None and baseline not in finished:
        near = difflib.get_close_matches(baseline, finished, n=1)
        raise ValueError(f"baseline={baseline!r}: no such arm with a finished trial; " + _choices(near, finished))
    if len(finished) < 2 or (results.is_search and baseline is None):
        return Contrasts(baseline=None, margin_share=margin, partner=results.partner, found=())
    base = baseline or finished[0]
    drafts = [_contrast(results, metric, arm, base, margin) for metric in LOWER_IS_BETTER for arm in finished if arm != base]
    found = _corrected([draft for draft in drafts if draft is not None])
    return Contrasts(baseline=base, margin_share=margin, partner=results.partner, found=found)


def _choices(near: list[str], finished: list[str]) -> str:
    return f"nearest: {near[0]}" if near else f"the arms are {', '.join(finished) or 'none yet'}"


def _contrast(results: Results, metric: str, arm: str, baseline: str, margin: float) -> Contrast | None:
    """Without correction; None where the two share no pair."""
    sides = {"arm": results.values(arm, metric, step=None), "baseline": results.values(baseline, metric, step=None)}
    pairs = pd.concat(sides, axis=1, join="inner")
    if pairs.empty:
        return None
    means = pairs.groupby(level="target").mean().mean()  # targets weigh alike, as in the difference
    return Contrast(
        metric=metric,
        arm=arm,
        baseline=baseline,
        arm_mean=float(means["arm"]),
        baseline_mean=float(means["baseline"]),
        difference=paired_difference((pairs["arm"] - pairs["baseline"]).to_dict()),
        margin=margin * abs(float(means["baseline"])),
        p_adjusted=None,
    )


def _corrected(drafts: list[Contrast]) -> tuple[Contrast, ...]:
    values = adjusted([draft.difference.p_value for draft in drafts])
    return tuple(dataclasses.replace(draft, p_adjusted=p) for draft, p in zip(drafts, values, strict=True))


def sentence(contrasts: Contrasts) -> str | None:
    """What the verdicts say, for the report's first screen; None where nothing was compared."""
    if not contrasts.found or all(c.difference.interval is None for c in contrasts.found):
        return None
    parts = []
    for metric in LOWER_IS_BETTER:
        own = [c for c in contrasts.found if c.metric == metric]
        told = [
            f"{verdict} {', '.join(f'{c.arm} ({number(c.difference.mean, signed=True)})' for c in own if c.verdict == verdict)}"
            for verdict in ("better", "worse")
            if any(c.verdict == verdict for c in own)
        ]
        if own:
            parts.append(f"{metric_name(metric, contrasts.partner)}: {', '.join(told) or 'none better or worse'}")
    return f"Against {contrasts.baseline} at the last step: {'; '.join(parts)}."
