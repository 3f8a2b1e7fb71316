"""Every arm against one baseline arm, at the last step: effect, interval, corrected test and a plain verdict."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from timbre_ray.report.claims import DUET_RANK, FAD, PIANO, metric_name
from timbre_ray.report.likeness import distances_apart, last_steps_apart
from timbre_ray.report.numbers import digits_beside, number
from timbre_ray.report.paired import MANY_SEEDS, POWER, PairedDifference, adjusted, paired_sides
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
    distances_apart: str = ""
    """In words where the two are distances of different numbers of clips, or by different embedders; they get no verdict."""
    last_steps_apart: str = ""
    """In words where the two were trained for different lengths."""

    @property
    def verdict(self) -> Verdict:
        if self.distances_apart:
            return "cannot be told apart"
        lower = LOWER_IS_BETTER[self.metric]
        return judged(self.difference, margin=self.margin, p_adjusted=self.p_adjusted, lower_is_better=lower)

    @property
    def verdict_text(self) -> str:
        why = f": {self.distances_apart}" if self.distances_apart else more_seeds(self.difference, self.margin, self.verdict)
        return self.verdict + why + (f" ({self.last_steps_apart})" if self.last_steps_apart else "")


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
    instead_of: str | None
    """The sweep's first arm, where that has no finished trial and ``baseline`` stands in for it."""
    margin_share: float
    partner: str
    """What the scores' names call the instrument whose survival is measured."""
    found: tuple[Contrast, ...]

    @property
    def stands_in(self) -> str:
        """What to say where the baseline is not the sweep's first arm for want of a finished trial; else empty."""
        if not self.instead_of:
            return ""
        return f"No trial of {self.instead_of}, the sweep’s first arm, has finished; {self.baseline} stands in for it."

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
        return Contrasts(baseline=None, instead_of=None, margin_share=margin, partner=results.partner, found=())
    base = baseline or finished[0]
    drafts = [_contrast(results, metric, arm, base, margin) for metric in LOWER_IS_BETTER for arm in finished if arm != base]
    found = _corrected([draft for draft in drafts if draft is not None])
    instead_of = None if baseline else _stands_in_for(results, base)
    return Contrasts(baseline=base, instead_of=instead_of, margin_share=margin, partner=results.partner, found=found)


def _stands_in_for(results: Results, base: str) -> str | None:
    first = next(iter(results.sweep.get("arms", ())), None)
    return first if any(arm.label == base and first not in (None, arm.name) for arm in results.arms) else None


def _choices(near: list[str], finished: list[str]) -> str:
    return f"nearest: {near[0]}" if near else f"the arms are {', '.join(finished) or 'none yet'}"


def _contrast(results: Results, metric: str, arm: str, baseline: str, margin: float) -> Contrast | None:
    """Without correction; None where the two share no pair."""
    places = (arm, None), (baseline, None)
    found = paired_sides(*(results.values(label, metric, step=step) for label, step in places))
    if found is None:
        return None
    difference, arm_mean, baseline_mean = found
    return Contrast(
        metric=metric, arm=arm, baseline=baseline, arm_mean=arm_mean, baseline_mean=baseline_mean, difference=difference,
        margin=margin * abs(baseline_mean), p_adjusted=None, distances_apart=distances_apart(results, metric, places),
        last_steps_apart=last_steps_apart(results, metric, places),
    )  # fmt: skip


def _corrected(drafts: list[Contrast]) -> tuple[Contrast, ...]:
    values = adjusted([None if draft.distances_apart else draft.difference.p_value for draft in drafts])
    return tuple(dataclasses.replace(draft, p_adjusted=p) for draft, p in zip(drafts, values, strict=True))


def sentence(contrasts: Contrasts) -> str | None:
    """What the verdicts say, for the report's first screen; None where nothing was compared."""
    if not contrasts.found or all(c.difference.interval is None for c in contrasts.found):
        return None
    parts = []
    for metric in LOWER_IS_BETTER:
        own = [c for c in contrasts.found if c.metric == metric]
        told = [
            f"{verdict} {', '.join(_told(c) for c in own if c.verdict == verdict)}"
            for verdict in ("better", "worse")
            if any(c.verdict == verdict for c in own)
        ]
        if own:
            parts.append(f"{metric_name(metric, contrasts.partner)}: {', '.join(told) or 'none better or worse'}")
    absent = f" (no trial of {contrasts.instead_of} has finished)" if contrasts.instead_of else ""
    return f"Against {contrasts.baseline}{absent} at the last step: {'; '.join(parts)}."


def _told(c: Contrast) -> str:
    change = number(c.difference.mean, signed=True, digits=digits_beside(c.difference.interval))
    return f"{c.arm} ({', '.join(filter(None, (change, c.last_steps_apart)))})"
