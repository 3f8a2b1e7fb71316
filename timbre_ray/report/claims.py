"""The paper's claims, each judged on paired scores by one stated rule."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pandas as pd

from timbre_ray.report.paired import paired_difference
from timbre_ray.report.results import Arm, Results

Verdict = Literal["holds", "does not hold", "cannot be told apart", "not measured"]
Wanted = Literal["lower", "higher", "not_higher", "shown"]
MARGIN_SHARE = 0.10
"""To call a score level, a rise of this share of the reference’s mean must be ruled out; that no rise was seen is not enough."""
RULE = (
    "Scores are compared in pairs of the same target and the same seed. A difference counts as shown where the 95 % "
    "interval of its mean (Student’s t over seeds, each over all targets, which weigh alike) excludes zero. “Level” or "
    "“not raised” counts as shown where the interval reaches zero or less and rules out a rise by a tenth of the "
    "reference’s mean. A claim holds where every part of it is shown, does not hold where one part is shown to be the other "
    "way, and otherwise cannot be told apart. One seed has no interval, nor has a difference that is the same at every seed, "
    "as ranks often are: there is nothing to judge it by. The intervals speak of other seeds on these recordings, with the same "
    "noise of the evaluated clips, not of other instruments, and are not corrected for their number."
)
FAD, DUET_RANK, PIANO = "fad_held_out", "duet_partner_rank", "partner_confidence"
METRIC_NAMES = {
    FAD: "FAD (held-out)", DUET_RANK: "{partner}’s rank in the duet", PIANO: "confidence in the solo {partner}"
}  # fmt: skip
"""Words for ``metric_name``, which says what the partner is."""


def metric_name(metric: str, partner: str) -> str:
    return METRIC_NAMES[metric].format(partner=partner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: an arm at a step (None: the last)."""

    arm: Arm
    step: int | None = None

    @property
    def text(self) -> str:
        return self.arm.label + ("" if self.step is None else f" at step {self.step}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    metric: str
    score: str
    """The metric in words."""
    wanted: Wanted
    """What the claim says of the difference; ``shown``: told to the reader without a vote."""
    left: str
    right: str
    left_mean: float
    right_mean: float
    difference: float
    """Mean of left minus right over the pairs."""
    interval: tuple[float, float] | None
    """95 % interval of the mean difference; None for one seed, and where all seeds agree."""
    num_pairs: int
    by_target: tuple[tuple[str, float], ...]
    """Mean difference on each target."""
    is_constant: bool = False
    """The same at every seed."""

    @property
    def outcome(self) -> Verdict:
        if self.interval is None:
            return "cannot be told apart"
        low, high = self.interval
        if self.wanted == "not_higher":
            margin = MARGIN_SHARE * abs(self.right_mean)
            return "does not hold" if low > 0 else "holds" if high < margin else "cannot be told apart"
        if self.wanted == "higher":
            low, high = -high, -low
        return "holds" if high < 0 else "does not hold" if low > 0 else "cannot be told apart"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    claim: str
    verdict: Verdict
    sentence: str
    """The claim's finding in plain words, with the figures."""
    comparisons: tuple[Comparison, ...]


def compare(results: Results, metric: str, wanted: Wanted, left: Side, right: Side) -> Comparison | None:
    """Left minus right over the pairs that both have; None where there is no pair."""
    one = results.values(left.arm.label, metric, step=left.step)
    other = results.values(right.arm.label, metric, step=right.step)
    pairs = pd.concat({"left": one, "right": other}, axis=1, join="inner")
    if pairs.empty:
        return None
    means = pairs.groupby(level="target").mean().mean()  # targets weigh alike, as in the difference
    found = paired_difference((pairs["left"] - pairs["right"]).to_dict())
    return Comparison(
        metric=metric,
        score=metric_name(metric, results.partner),
        wanted=wanted,
        left=left.text,
        right=right.text,
        left_mean=float(means["left"]),
        right_mean=float(means["right"]),
        difference=found.mean,
        interval=found.interval,
        num_pairs=found.num_pairs,
        by_target=found.by_target,
        is_constant=found.is_constant,
    )


def judge_all(results: Results) -> tuple[Judgement, ...]:
    """None of a search: two of its points differ in more than what a claim is about."""
    if results.is_search:
        return ()
    return (
        teacher_forcing_lowers_fad(results),
        direct_loses_the_piano(results),
        prior_brings_the_piano_back(results),
        lora_lies_between(results),
        mixclass_with_teacher_is_best(results),
    )


def teacher_forcing_lowers_fad(results: Results) -> Judgement:
    early = [step for step in results.steps if step < results.steps[-1]]
    at = " and ".join(str(step) for step in early) or "0"
    claim = f"Teacher forcing lowers FAD at step{'s' if len(early) > 1 else ''} {at}."
    taught, plain = results.find_arm("direct", teacher=True), results.find_arm("direct", teacher=False)
    if taught is None or plain is None:
        return _not_measured(claim, "direct Dreambooth with and without teacher forcing")
    sides = [(Side(arm=taught, step=step), Side(arm=plain, step=step)) for step in early]
    return _judge(claim, [compare(results, FAD, "lower", *pair) for pair in sides])


def direct_loses_the_piano(results: Results) -> Judgement:
    claim = f"Direct Dreambooth loses the {results.partner}."
    plain = results.find_arm("direct", teacher=False)
    if plain is None:
        return _not_measured(claim, "direct Dreambooth without teacher forcing")
    end, start = Side(arm=plain), Side(arm=plain, step=0)
    return _judge(claim, [compare(results, PIANO, "lower", end, start), compare(results, DUET_RANK, "higher", end, start)])


def prior_brings_the_piano_back(results: Results) -> Judgement:
    claim = f"Prior preservation brings the {results.partner} back without raising FAD."
    prior, plain = results.find_arm("prior", teacher=False), results.find_arm("direct", teacher=False)
    if prior is None or plain is None:
        return _not_measured(claim, "direct and prior Dreambooth without teacher forcing")
    sides = Side(arm=prior), Side(arm=plain)
    votes = [compare(results, PIANO, "higher", *sides), compare(results, FAD, "not_higher", *sides)]
    return _judge(claim, [*votes, compare(results, DUET_RANK, "shown", *sides)])


def lora_lies_between(results: Results) -> Judgement:
    claim = f"LoRA keeps more of the {results.partner} than direct Dreambooth and less than prior preservation."
    lora, plain, prior = (results.find_arm(method, teacher=False) for method in ("lora", "direct", "prior"))
    if lora is None or plain is None or prior is None:
        return _not_measured(claim, "direct, prior and lora without teacher forcing")
    above, below = (Side(arm=lora), Side(arm=plain)), (Side(arm=lora), Side(arm=prior))
    votes = [compare(results, PIANO, "higher", *above), compare(results, PIANO, "lower", *below)]
    shown = [compare(results, metric, "shown", *sides) for metric in (FAD, DUET_RANK) for sides in (above, below)]
    return _judge(claim, [*votes, *shown])


def mixclass_with_teacher_is_best(results: Results) -> Judgement:
    claim = f"Mixclass-prior with teacher forcing is best or level in FAD and in the duet’s rank of the {results.partner}."
    mixed = results.find_arm("mixclass_prior", teacher=True)
    others = [arm for arm in results.arms if arm != mixed]
    if mixed is None or not others:
        return _not_measured(claim, "mixclass-prior with teacher forcing, and other arms")
    sides = [(Side(arm=mixed), Side(arm=other)) for other in others]
    return _judge(claim, [compare(results, metric, "not_higher", *pair) for metric in (FAD, DUET_RANK) for pair in sides])


def _not_measured(claim: str, needed: str) -> Judgement:
    return Judgement(
        claim=claim, verdict="not measured", sentence=f"This sweep has no arms for it; it needs {needed}.", comparisons=()
    )


def _judge(claim: str, found: list[Comparison | None]) -> Judgement:
    """All parts must hold; one part the other way round settles it."""
    comparisons = tuple(c for c in found if c is not None)
    votes = [c for c in comparisons if c.wanted != "shown"]
    num_missing = sum(c is None for c in found)
    if not votes:
        return Judgement(
            claim=claim, verdict="not measured", sentence="No pair of finished trials has the scores.", comparisons=()
        )
    outcomes = [c.outcome for c in votes]
    verdict: Verdict = "cannot be told apart"
    if "does not hold" in outcomes:
        verdict = "does not hold"
    elif not num_missing and all(outcome == "holds" for outcome in outcomes):
        verdict = "holds"
    return Judgement(claim=claim, verdict=verdict, sentence=_sentence(votes, num_missing), comparisons=comparisons)


def _sentence(votes: list[Comparison], num_missing: int) -> str:
    """Few comparisons are each told; of many, those that spoke against and how many held."""
    told = votes
    parts = []
    if len(votes) > 3:
        held = sum(c.outcome == "holds" for c in votes)
        parts.append(f"Of {len(votes)} comparisons, {held} show it")
        against = [c for c in votes if c.outcome == "does not hold"]
        told = against or sorted((c for c in votes if c.outcome != "holds"), key=lambda c: c.difference, reverse=True)[:1]
        if told:
            parts[-1] += "; against it" if against else "; the least certain"
    text = "; ".join(describe(c) for c in told)
    if parts:
        text = f"{parts[0]}: {text}" if told else parts[0]
    missing = f" {num_missing} of the comparisons have no pair of finished trials." if num_missing else ""
    return f"{text[0].upper()}{text[1:]}.{missing}"


def describe(c: Comparison) -> str:
    sign = "−" if c.difference < 0 else "+"
    pairs = f"{c.num_pairs} pair{'s' if c.num_pairs > 1 else ''}"
    spread = (
        f"95 % interval {number(c.interval[0], signed=True)} to {number(c.interval[1], signed=True)}, {pairs}"
        if c.interval
        else f"{pairs}, the same at every seed" * c.is_constant or pairs
    )
    change = f"{sign}{number(abs(c.difference))}"
    return f"{c.score} is {number(c.left_mean)} for {c.left} against {number(c.right_mean)} for {c.right}: {change} ({spread})"


def number(value: float, *, signed: bool = False) -> str:
    """Two decimals, three below one tenth; a true minus sign."""
    digits = 3 if 0 < abs(value) < 0.1 else 2
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")
