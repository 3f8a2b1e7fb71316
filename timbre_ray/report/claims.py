"""The paper's claims, each judged on paired scores by one stated rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from timbre_ray.report.likeness import distances_apart, last_steps_apart, settings_apart
from timbre_ray.report.numbers import digits_beside, interval_text, number
from timbre_ray.report.paired import CONFIDENCE, PairedDifference, holm, paired_sides
from timbre_ray.report.results import Arm, Results

Verdict = Literal["holds", "does not hold", "cannot be told apart", "not measured"]
Wanted = Literal["lower", "higher", "not_higher", "shown"]
MARGIN_SHARE = 0.10
"""To call a score level, a rise of this share of the reference’s mean must be ruled out; that no rise was seen is not enough."""
RULE = (
    "Scores are compared in pairs of the same target and the same seed, of arms that differ in nothing but what the claim is "
    "about. A difference counts as shown where the 95 % interval of its mean (Student’s t over seeds, each over all targets, "
    "which weigh alike) excludes zero. “Level” or “not raised” counts as shown where the interval rules out a rise by a tenth of "
    "the reference’s mean. A claim holds where every part of it is shown. It does not hold where one part is shown to be the "
    "other way, tested at 5 % for all parts of the claim together (Holm): the more parts, the more of them are the other way by "
    "chance. Otherwise it cannot be told apart. One seed has no interval, nor has a difference that is the same at every seed, "
    "as ranks often are: there is nothing to judge it by. Distances of different numbers of clips are not judged. The intervals "
    "speak of other seeds on these recordings, with the same noise of the evaluated clips, not of other instruments, and are not "
    "corrected for their number."
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
    difference: PairedDifference
    """Left minus right."""
    distances_apart: str
    """In words where the two are distances of different numbers of clips, or by different embedders; they get no verdict."""
    last_steps_apart: str
    """In words where the two were trained for different lengths."""
    p_corrected: float | None = None
    """Two-sided, of no difference, corrected over the votes of the claim; None where there is no test."""

    @property
    def outcome(self) -> Verdict:
        if self.difference.interval is None or self.distances_apart:
            return "cannot be told apart"
        low, high = self.difference.interval
        margin = MARGIN_SHARE * abs(self.right_mean) if self.wanted == "not_higher" else 0.0
        if self.wanted == "higher":
            low, high = -high, -low
        if high < margin:
            return "holds"
        is_refuted = low > 0 and self.p_corrected is not None and self.p_corrected < 1 - CONFIDENCE
        return "does not hold" if is_refuted else "cannot be told apart"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    claim: str
    verdict: Verdict
    sentence: str
    """The claim's finding in plain words, with the figures."""
    comparisons: tuple[Comparison, ...]


def compare(results: Results, metric: str, wanted: Wanted, left: Side, right: Side) -> Comparison | None:
    """Left minus right over the pairs that both have; None where there is no pair."""
    places = (left.arm.label, left.step), (right.arm.label, right.step)
    found = paired_sides(*(results.values(label, metric, step=step) for label, step in places))
    if found is None:
        return None
    difference, left_mean, right_mean = found
    return Comparison(
        metric=metric, score=metric_name(metric, results.partner), wanted=wanted, left=left.text, right=right.text,
        left_mean=left_mean, right_mean=right_mean, difference=difference,
        distances_apart=distances_apart(results, metric, places),
        last_steps_apart=last_steps_apart(results, metric, places),
    )  # fmt: skip


def judge_all(results: Results) -> tuple[Judgement, ...]:
    """Each claim, at each point of a grid over more than targets and seeds. None of a search: two of its points differ in more
    than what a claim is about.
    """
    if results.is_search:
        return ()
    if len(results.points) == 1:
        return tuple(judge(results) for judge in CLAIMS)
    found = [(point, judge(results.at(point))) for judge in CLAIMS for point in results.points]
    return tuple(dataclasses.replace(one, claim=f"At {point}: {one.claim}") for point, one in found)


def teacher_forcing_lowers_fad(results: Results) -> Judgement:
    early = [step for step in results.steps if step < results.steps[-1]]
    at = " and ".join(str(step) for step in early) or "0"
    claim = f"Teacher forcing lowers FAD at step{'s' if len(early) > 1 else ''} {at}."
    arms = _alike(results, ("direct", True), ("direct", False), length_matters=False)
    if arms is None:
        return _not_measured(results, claim, "direct Dreambooth with and without teacher forcing")
    taught, plain = arms
    sides = [(Side(arm=taught, step=step), Side(arm=plain, step=step)) for step in early]
    return _judge(results, claim, [compare(results, FAD, "lower", *pair) for pair in sides], arms, length_matters=False)


def direct_loses_the_piano(results: Results) -> Judgement:
    claim = f"Direct Dreambooth loses the {results.partner}."
    arms = _alike(results, ("direct", False))
    if arms is None:
        return _not_measured(results, claim, "direct Dreambooth without teacher forcing")
    (plain,) = arms
    end, start = Side(arm=plain), Side(arm=plain, step=0)
    votes = [compare(results, PIANO, "lower", end, start), compare(results, DUET_RANK, "higher", end, start)]
    return _by_votes(claim, votes)


def prior_brings_the_piano_back(results: Results) -> Judgement:
    claim = f"Prior preservation brings the {results.partner} back without raising FAD."
    arms = _alike(results, ("prior", False), ("direct", False))
    if arms is None:
        return _not_measured(results, claim, "direct and prior Dreambooth without teacher forcing")
    sides = Side(arm=arms[0]), Side(arm=arms[1])
    votes = [compare(results, PIANO, "higher", *sides), compare(results, FAD, "not_higher", *sides)]
    return _judge(results, claim, [*votes, compare(results, DUET_RANK, "shown", *sides)], arms)


def lora_lies_between(results: Results) -> Judgement:
    claim = f"LoRA keeps more of the {results.partner} than direct Dreambooth and less than prior preservation."
    arms = _alike(results, ("lora", False), ("direct", False), ("prior", False))
    if arms is None:
        return _not_measured(results, claim, "direct, prior and lora without teacher forcing")
    lora, plain, prior = arms
    above, below = (Side(arm=lora), Side(arm=plain)), (Side(arm=lora), Side(arm=prior))
    votes = [compare(results, PIANO, "higher", *above), compare(results, PIANO, "lower", *below)]
    shown = [compare(results, metric, "shown", *sides) for metric in (FAD, DUET_RANK) for sides in (above, below)]
    return _judge(results, claim, [*votes, *shown], arms)


def mixclass_with_teacher_is_best(results: Results) -> Judgement:
    claim = f"Mixclass-prior with teacher forcing is best or level in FAD and in the duet’s rank of the {results.partner}."
    arms = _alike(results, ("mixclass_prior", True))
    others = [arm for arm in results.arms if arms and arm != arms[0]]
    if arms is None or not others:
        return _not_measured(results, claim, "mixclass-prior with teacher forcing, and other arms")
    (mixed,) = arms
    sides = [(Side(arm=mixed), Side(arm=other)) for other in others]
    found = [compare(results, metric, "not_higher", *pair) for metric in (FAD, DUET_RANK) for pair in sides]
    judgement = _by_votes(claim, [*found, *[None] * 2 * len(results.not_begun)])
    apart = _apart(results, mixed, others)  # it ranks the arms as they are, but a reader must know
    note = f" The arms also differ in {apart}." if apart else ""
    return dataclasses.replace(judgement, sentence=judgement.sentence + note)


CLAIMS: tuple[Callable[[Results], Judgement], ...] = (
    teacher_forcing_lowers_fad,
    direct_loses_the_piano,
    prior_brings_the_piano_back,
    lora_lies_between,
    mixclass_with_teacher_is_best,
)


def _not_measured(results: Results, claim: str, needed: str) -> Judgement:
    waiting = ", ".join(results.not_begun)
    why = f"It needs {needed}; not begun yet: {waiting}." if waiting else f"This sweep has no arms for it; it needs {needed}."
    return Judgement(claim=claim, verdict="not measured", sentence=why, comparisons=())


def _alike(results: Results, *wanted: tuple[str, bool], length_matters: bool = True) -> tuple[Arm, ...] | None:
    """An arm of each (method, with teacher forcing): the first that differ in nothing else, or the first if all do; None where
    one is missing.
    """
    candidates = [results.arms_of(method, teacher=teacher) for method, teacher in wanted]
    if not all(candidates):
        return None
    for first in candidates[0]:
        others = [
            next((arm for arm in some if not _apart(results, first, [arm], length_matters)), None) for some in candidates[1:]
        ]
        if None not in others:
            return (first, *others)
    return tuple(some[0] for some in candidates)


def _judge(
    results: Results, claim: str, found: list[Comparison | None], arms: Sequence[Arm], *, length_matters: bool = True
) -> Judgement:
    """The first of ``arms`` is held against the others, which may differ from it in nothing but what the claim is about."""
    judgement, apart = _by_votes(claim, found), _apart(results, arms[0], arms[1:], length_matters)
    if not apart or not judgement.comparisons:
        return judgement
    why = f"Its arms differ in more than what it is about ({apart}), so nothing is known of it alone. "
    return dataclasses.replace(judgement, verdict="not measured", sentence=why + judgement.sentence)


def _apart(results: Results, arm: Arm, others: Sequence[Arm], length_matters: bool = True) -> str:
    found = (settings_apart(results, arm, other, length_matters=length_matters) for other in others)
    return "; ".join(dict.fromkeys(words for some in found for words in some))


def _by_votes(claim: str, found: list[Comparison | None]) -> Judgement:
    """All parts must hold; one part the other way round settles it."""
    comparisons = _corrected([c for c in found if c is not None])
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


def _corrected(comparisons: list[Comparison]) -> tuple[Comparison, ...]:
    judged = [c.wanted != "shown" and not c.distances_apart for c in comparisons]
    p_values = holm([c.difference.p_value if is_judged else None for c, is_judged in zip(comparisons, judged, strict=True)])
    return tuple(dataclasses.replace(c, p_corrected=p) for c, p in zip(comparisons, p_values, strict=True))


def _sentence(votes: list[Comparison], num_missing: int) -> str:
    """Few comparisons are each told; of many, those that spoke against and how many held."""
    told = votes
    parts = []
    if len(votes) > 3:
        held = sum(c.outcome == "holds" for c in votes)
        parts.append(f"Of {len(votes)} comparisons, {held} show it")
        against = [c for c in votes if c.outcome == "does not hold"]
        told = against or sorted((c for c in votes if c.outcome != "holds"), key=_how_far_off, reverse=True)[:1]
        if told:
            parts[-1] += "; against it" if against else "; the farthest from it"
    text = "; ".join(describe(c) for c in told)
    if parts:
        text = f"{parts[0]}: {text}" if told else parts[0]
    missing = f" {num_missing} of the comparisons have no pair of finished trials." if num_missing else ""
    return f"{text[0].upper()}{text[1:]}.{missing}"


def _how_far_off(c: Comparison) -> float:
    """In standard errors, as scores have different units; the same at every seed is farther than any."""
    found, sign = c.difference, -1.0 if c.wanted == "higher" else 1.0
    if found.standard_error:
        return sign * found.mean / found.standard_error
    return sign * math.copysign(math.inf, found.mean) if found.mean else 0.0


def describe(c: Comparison) -> str:
    found, digits = c.difference, digits_beside(c.difference.interval)
    pairs = f"{found.num_pairs} pair{'s' * (found.num_pairs > 1)}{found.pairs_text.removeprefix(str(found.num_pairs))}"
    told = [f"95 % interval {interval_text(found.interval)}"] if found.interval else []
    told += [pairs, *["the same at every seed"] * found.is_constant, *filter(None, (c.distances_apart, c.last_steps_apart))]
    sides = [f"{number(mean, digits=digits)} for {name}" for mean, name in ((c.left_mean, c.left), (c.right_mean, c.right))]
    change = number(found.mean, signed=True, digits=digits)
    return f"{c.score} is {sides[0]} against {sides[1]}: {change} ({', '.join(told)})"
