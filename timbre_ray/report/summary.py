"""The report's plain sentences: the answer, how complete the sweep is, what failed, what it was made with."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from timbre_ray.report.claims import FAD, PIANO, Judgement, Verdict, number
from timbre_ray.report.comparisons import Contrasts, sentence
from timbre_ray.report.results import Results

READING = (
    "The tables follow Tables 2 to 7 of Tsai and Chen, Personalized Timbre Generation. The paper’s text could not be "
    "consulted while writing, so each carries our reading of what it compares. FAD is the Fréchet distance of the clips of "
    "the instance prompt, once against held-out recordings and once against the training set; lower is closer. KAD is the "
    "kernel audio distance, which has no bias where clips are few. Ranks and confidences are the instrument classifier’s; "
    "rank 1 is first."
)
_WORDS = ("none", "one", "two", "three", "four", "five")
_VERDICT_PHRASES: tuple[tuple[Verdict, str, str], ...] = (
    ("holds", "holds on these recordings", "hold on these recordings"),
    ("does not hold", "does not hold", "do not hold"),
    ("cannot be told apart", "cannot be decided", "cannot be decided"),
    ("not measured", "was not measured", "were not measured"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    trial_id: str
    stage: str
    reason: str


def answer(results: Results, judgements: Sequence[Judgement], contrasts: Contrasts) -> list[str]:
    """Sentences made from the verdicts and the last step's means."""
    if results.frame.empty:
        return ["No trial has finished yet, so nothing is measured."]
    counts = Counter(j.verdict for j in judgements)
    sentences = []
    for verdict, one, more in _VERDICT_PHRASES:
        if counts[verdict]:
            sentences.append(f"{_WORDS[counts[verdict]]} {one if counts[verdict] == 1 else more}")
    if len(sentences) == 1:
        sentences[0] = f"all {sentences[0]}"
    total = f"Of the paper’s {_WORDS[len(judgements)]} claims, {', '.join(sentences)}."
    compared = sentence(contrasts)
    return [total, *([compared] if compared else []), *_trade_off(results)]


def _trade_off(results: Results) -> list[str]:
    sentences = []
    start: Mapping[str, float] = {}
    if results.untouched:
        start = results.values(results.untouched.label, PIANO, step=0).groupby(level="target").mean().to_dict()
    for target in results.targets:
        means: dict[str, Mapping[str, float]] = {}
        for metric in (FAD, PIANO):
            frame = results.frame
            last = frame[frame["final"] & (frame["metric"] == metric) & (frame["target"] == target)]
            means[metric] = last.groupby("arm")["value"].mean().to_dict()
        if not means[FAD] or not means[PIANO]:
            continue
        nearest = min(means[FAD], key=lambda arm: means[FAD][arm])
        keeper = max(means[PIANO], key=lambda arm: means[PIANO][arm])
        before = f" ({number(start[target])} before training)" if target in start else ""
        piano = (
            f"keeps {number(means[PIANO][nearest])} confidence in the solo piano{before}"
            if nearest in means[PIANO]
            else "has no piano score"
        )
        text = f"On {target}, {nearest} comes closest to the recordings (FAD {number(means[FAD][nearest])}) and {piano}"
        if keeper != nearest and keeper in means[FAD]:
            text += f"; {keeper} keeps the most ({number(means[PIANO][keeper])}) at FAD {number(means[FAD][keeper])}"
        sentences.append(f"{text}.")
    return sentences


def completeness(results: Results) -> str:
    finished, failed = len(results.with_status("finished")), len(results.with_status("failed"))
    if results.num_planned is None:
        text = (
            f"{finished} of {len(results.trials)} recorded trials finished, {failed} failed (how many were planned is not known)"
        )
    else:
        rest = results.num_planned - finished - failed
        text = f"{finished} of {results.num_planned} planned trials finished, {failed} failed, {rest} not finished"
    seeds = sorted({int(seed) for seed in results.frame["seed"]})
    text += f"; targets: {', '.join(results.targets)}; seeds: {', '.join(map(str, seeds)) or 'none yet'}."
    return text + (" A failed trial’s scores are left out of every table." if failed else "")


def failures(results: Results) -> list[Failure]:
    return [
        Failure(
            trial_id=str(t["trial_id"]),
            stage=str(e.get("stage") or "–"),
            reason=f"{e.get('type', 'Error')}: {e.get('message', '')}",
        )
        for t in results.with_status("failed")
        for e in [t.get("error") or {}]
    ]


def provenance(results: Results) -> list[tuple[str, str]]:
    """What the ledger says about the machine and the versions, and what the trials cost."""
    stages = [stage for trial in results.trials for stage in trial.get("stages", ())]
    reused = sum(bool(stage.get("reused")) for stage in stages)
    seconds = sum(float(trial.get("wall_s") or 0) for trial in results.trials)
    found = [("trials’ wall time, summed", f"{seconds / 60:.1f} min")] if seconds else []
    found += [("stages", f"{len(stages) - reused} computed, {reused} reused from the store")] if stages else []
    return found + _flat(results.sweep.get("provenance") or {})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines.append((f"{prefix}{key}", ", ".join(f"{k} {v}" for k, v in value.items())))
        elif value is not None:
            lines.append((f"{prefix}{key}", str(value)))
    return lines


def verdict_class(verdict: Verdict) -> str:
    """CSS class of a verdict."""
    return verdict.replace(" ", "-")
