"""What each factor of an ablation does to each score at the last step, and what two do together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from timbre_ray.report.claims import METRIC_NAMES
from timbre_ray.report.comparisons import DEFAULT_MARGIN, FALSE_DISCOVERY_RATE, Verdict, judged, more_seeds
from timbre_ray.report.numbers import digits_beside, number
from timbre_ray.report.paired import POWER, PairedDifference, adjusted, effects_of, paired_difference
from timbre_ray.report.results import Results

TIMES = " × "
SCORES = {  # metric: (words, lower is better), the scores of the figures first
    **{metric: (words, metric != "partner_confidence") for metric, words in METRIC_NAMES.items()},
    "fad_train": ("FAD (training set)", True), "fad_inf_held_out": ("FAD-infinity (held-out)", True),
    "kad_held_out": ("KAD (held-out)", True), "kad_train": ("KAD (training set)", True),
    "solo_target_confidence": ("confidence in the target, solo", False),
    "duet_target_confidence": ("confidence in the target, duet", False),
    "duet_partner_confidence": ("confidence in the {partner}, duet", False), "partner_rank": ("solo {partner}’s rank", True),
    "clap_t": ("CLAP, to the prompt", False), "clap_a": ("CLAP, to held-out", False),
}  # fmt: skip
_DESIGNS = {
    "factorial": (
        "A factor’s effect is the mean of the arms that have it (“on”) less the mean of the same arms without it (“off”). In the "
        f"row A{TIMES}B, “on” is the effect of A where B is on and “off” where B is off: the difference is how much more A does "
        "with B, and zero where the two add up."
    ),
    "add_one": (
        "A factor’s effect is the baseline with it (“on”) less the baseline (“off”). What factors do together was not measured: "
        "that needs design: factorial."
    ),
    "leave_one_out": (
        "A factor’s effect is the arm with all factors (“on”) less that arm without this one (“off”): what it adds to the "
        "others, not what it does alone."
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """Of one factor, or the interaction of two, in one score."""

    metric: str
    score: str
    """The metric in words."""
    factors: tuple[str, ...]
    off: float
    """Mean without the factor; of an interaction, the first factor's effect without the second. Targets weigh alike."""
    on: float
    difference: PairedDifference
    """On less off, in pairs of the same target and seed."""
    margin: float
    """Effects below it do not matter, in the score's own unit."""
    p_adjusted: float | None
    """Benjamini and Hochberg over the effects in this score; None where there is no test."""

    @property
    def name(self) -> str:
        return TIMES.join(self.factors)

    @property
    def change_text(self) -> str:
        return number(self.difference.mean, signed=True, digits=digits_beside(self.difference.interval))

    @property
    def verdict(self) -> Verdict:
        lower = SCORES[self.metric.partition("/")[0]][1]
        return judged(self.difference, margin=self.margin, p_adjusted=self.p_adjusted, lower_is_better=lower)

    @property
    def verdict_text(self) -> str:
        words = {"level": "add up", "better": "better together", "worse": "worse together"} if len(self.factors) > 1 else {}
        return words.get(self.verdict, self.verdict) + more_seeds(self.difference, self.margin, self.verdict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effects:
    design: str
    num_arms: int
    margin_share: float
    found: tuple[Effect, ...]
    """By score, in the order of SCORES; empty while no seed has all the arms that an effect needs."""

    @property
    def rule(self) -> str:
        return (
            f"{_DESIGNS[self.design]} At the last step, in pairs of the same target and seed, averaged over other settings of a "
            "grid; seeds that lack an arm are left out. Better or worse: a paired t-test over seeds, each over all targets, "
            f"corrected over the effects in one score (Benjamini and Hochberg): of those called so at most "
            f"{FALSE_DISCOVERY_RATE:.0%} are expected to be false. Level, and of an interaction “add up”: the "
            f"95 % interval lies within {self.margin_share:.0%} of the first arm’s mean. “Together” compares two "
            "factors with the sum of their effects. "
            f"The number of seeds is what would decide with a chance of {POWER:.0%} before the correction, were effect and "
            "spread as they are here. An effect that is the same at every seed, as of ranks, has no spread to test it by."
        )

    @property
    def sentence(self) -> str:
        """The scores of the figures in words."""
        if not self.found:
            return f"No seed has finished all of the arms that an effect needs yet (the design has {self.num_arms})."
        if all(effect.difference.interval is None for effect in self.found):
            return "One seed has no interval, so no effect can be told from chance."
        return " ".join(filter(None, (self._of(metric) for metric in METRIC_NAMES)))

    def _of(self, metric: str) -> str:
        own = [effect for effect in self.found if effect.metric == metric]
        shown = [e for e in own if e.verdict in ("better", "worse")]
        told = "; ".join(f"{e.name} {e.change_text}, {e.verdict_text}" for e in shown)
        return f"{own[0].score[:1].upper()}{own[0].score[1:]}: {told or 'no effect is shown'}." if own else ""


def score_name(metric: str, partner: str) -> str:
    name, _, embedder = metric.partition("/")
    return SCORES[name][0].format(partner=partner) + (f", {embedder}" if embedder else "")


def gather(results: Results, *, margin: float = DEFAULT_MARGIN) -> Effects | None:
    """None for a sweep that is no ablation by factors. margin: share of the first arm's mean within which an effect is level."""
    ablation = results.sweep.get("ablation")
    if not ablation:
        return None
    design, arms = ablation["design"], ablation["arms"]
    order = {name: place for place, name in enumerate(SCORES)}
    metrics = [metric for metric in results.frame["metric"].unique() if metric.partition("/")[0] in order]
    found: list[Effect] = []
    for metric in sorted(metrics, key=lambda metric: (order[metric.partition("/")[0]], metric)):
        scores, name = _by_arm(results, metric), score_name(metric, results.partner)
        drafts = [_effect(metric, name, of, arms, weights, scores, margin) for of, weights in effects_of(design, arms).items()]
        found += _corrected([draft for draft in drafts if draft is not None])
    return Effects(design=design, num_arms=len(arms), margin_share=margin, found=tuple(found))


def _by_arm(results: Results, metric: str) -> pd.DataFrame:
    """Last scores: a row for target, seed and the grid's other settings; a column for each arm."""
    arms = {trial["trial_id"]: trial["arm"] for trial in results.trials}
    last = results.frame[results.frame["final"] & (results.frame["metric"] == metric)]
    plain = last["trial_id"].map(arms)
    settings = [label.removeprefix(arm) for label, arm in zip(last["arm"], plain, strict=True)]
    wide = last.assign(plain=plain, settings=settings)
    return wide.pivot(index=["target", "seed", "settings"], columns="plain", values="value")


def _effect(
    metric: str,
    score: str,
    of: tuple[str, ...],
    arms: Mapping[str, Sequence[str]],
    weights: Mapping[str, float],
    scores: pd.DataFrame,
    margin: float,
) -> Effect | None:
    """Without correction; None where no seed has all the arms."""
    wide = scores.reindex(columns=list(weights)).dropna()
    with_last = pd.Series({arm: weight * (of[-1] in arms[arm]) for arm, weight in weights.items()})
    without_last = with_last - pd.Series(weights)
    sides = pd.DataFrame({"on": wide @ with_last, "off": wide @ without_last, "level": wide[next(iter(arms))]})
    by_pair = sides.groupby(level=["target", "seed"])
    whole = by_pair["on"].transform("size") == sides.index.get_level_values("settings").nunique()
    pairs = sides[whole].groupby(level=["target", "seed"]).mean()
    if pairs.empty:
        return None
    difference = paired_difference((pairs["on"] - pairs["off"]).to_dict())
    means = pairs.groupby(level="target").mean().loc[[target for target, _ in difference.by_target]].mean()
    return Effect(
        metric=metric,
        score=score,
        factors=of,
        off=float(means["off"]),
        on=float(means["on"]),
        difference=difference,
        margin=margin * abs(float(means["level"])),
        p_adjusted=None,
    )


def _corrected(drafts: list[Effect]) -> list[Effect]:
    values = adjusted([draft.difference.p_value for draft in drafts])
    return [dataclasses.replace(draft, p_adjusted=p) for draft, p in zip(drafts, values, strict=True)]
