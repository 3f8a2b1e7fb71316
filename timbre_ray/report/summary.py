"""The report's plain sentences: the answer, how complete the sweep is, what failed, what it was made with."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from timbre_ray.ledger import is_stopped_early
from timbre_ray.report import pareto
from timbre_ray.report.claims import CLAIMS, FAD, PIANO, Judgement, Verdict
from timbre_ray.report.comparisons import sentence
from timbre_ray.report.findings import Findings
from timbre_ray.report.importances import Drawn, Search
from timbre_ray.report.numbers import mean_and_spread, number
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
    ("cannot be told apart", "is not decided", "are not decided"),
    ("not measured", "was not measured", "were not measured"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    trial_id: str
    stage: str
    reason: str


def answer(findings: Findings, judgements: Sequence[Judgement]) -> list[str]:
    """What the sweep was run to find out, first: factors' effects, or a search's best trials; then the claims and the means."""
    results = findings.results
    if results.frame.empty:
        return ["No trial has finished yet, so nothing is measured."]
    if findings.search:
        return [_best(findings.search), findings.search.sentence, *_claims(judgements)]
    effects = [f"Effects of the factors at the last step. {findings.effects.sentence}"] if findings.effects else []
    compared = sentence(findings.contrasts)
    found = [*effects, *_claims(judgements), *([compared] if compared else []), *_trade_off(results)]
    return found or ["None of the paper’s claims was measured, and there is nothing to compare yet."]


def _claims(judgements: Sequence[Judgement]) -> list[str]:
    """How many of the paper's claims came out how; nothing where none was measured."""
    counts = Counter(j.verdict for j in judgements)
    if set(counts) <= {"not measured"}:
        return []
    sentences = []
    for verdict, one, more in _VERDICT_PHRASES:
        if counts[verdict]:
            sentences.append(f"{_count(counts[verdict])} {one if counts[verdict] == 1 else more}")
    if len(sentences) == 1:
        sentences[0] = f"all {sentences[0]}"
    num_points = len(judgements) // len(CLAIMS)
    points = f" at {num_points} points of the grid" if num_points > 1 else ""
    return [f"Of the paper’s {_count(len(CLAIMS))} claims{points}, {', '.join(sentences)}."]


def _count(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _best(search: Search) -> str:
    """The trial that is first in each objective, with what the search chose for it; no trial where all have the same score."""
    found = []
    for place, (metric, mode) in enumerate(search.objectives.items()):
        if metric not in search.varied and len(search.trials) > 1:
            found.append(f"all have the same {metric}, {number(search.trials[0].values[place])}")
            continue
        choose: Callable[..., Drawn] = min if mode == "min" else max
        best = choose(search.trials, key=lambda trial, place=place: trial.values[place])
        which = f"the {'lowest' if mode == 'min' else 'highest'} {metric}, {number(best.values[place])} at step {best.last_step}"
        found.append(f"{best.trial_id} has {which} ({pareto.settings(best.in_force)})")
    return f"Of {len(search.trials)} finished trials, {'; '.join(found)}."


def _trade_off(results: Results) -> list[str]:
    """On each target, which arm has the lowest mean distance and which the highest mean confidence; no verdict."""
    sentences = []
    before_training = results.untouched[results.untouched["metric"] == PIANO]
    start = before_training.groupby("target")["value"].mean().to_dict()
    for target in results.targets:
        last = results.frame[results.frame["final"] & (results.frame["target"] == target)]
        fad, piano = ({arm: own for arm, own in last[last["metric"] == m].groupby("arm")["value"]} for m in (FAD, PIANO))
        if not fad or not piano:
            continue
        nearest, *others = sorted(fad, key=lambda arm: fad[arm].mean())
        next_best = f"; next {others[0]} {_spread(fad[others[0]])}" if others else ""
        text = f"On {target}, {nearest} has the lowest mean FAD ({_spread(fad[nearest])}{next_best}) and "
        before = f" ({number(start[target])} before training)" if target in start else ""
        if nearest in piano:
            text += f"keeps {_spread(piano[nearest])} confidence in the solo {results.partner}{before}"
        else:
            text += f"has no {results.partner} score"
        keeper = max(piano, key=lambda arm: piano[arm].mean())
        if keeper != nearest and keeper in fad:
            text += f"; {keeper} keeps the most ({_spread(piano[keeper])}) at FAD {_spread(fad[keeper])}"
        sentences.append(f"{text}.")
    return sentences


def _spread(values: pd.Series) -> str:
    """Mean and standard deviation over seeds; one seed has none."""
    return mean_and_spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def paper_note(findings: Findings) -> str:
    """Where the paper's own values would go; empty where any are given."""
    if any(table.has_paper for table in findings.tables):
        return ""
    return (
        "The paper’s own values are not on file. To see them beside these, write them into results/"
        f"{findings.results.name}/paper_values.yaml, a line for each table and arm (docs/how-to/ablation.md shows one), and make "
        "the report again."
    )


def completeness(results: Results) -> str:
    finished, failed = len(results.with_status("finished")), len(results.with_status("failed"))
    num_stopped = sum(map(is_stopped_early, results.trials))
    stopped = f", of which {num_stopped} stopped early" if num_stopped else ""
    if results.num_planned is None:
        text = (
            f"{finished} of {len(results.trials)} recorded trials finished{stopped}, {failed} failed (how many were planned is "
            "not known)"
        )
    else:
        planned = max(results.num_planned, len(results.trials))  # a search keeps its trials where num_trials was lowered
        rest = planned - finished - failed
        text = f"{finished} of {planned} planned trials finished{stopped}, {failed} failed, {rest} not finished"
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


def verdict_text(verdict: Verdict) -> str:
    """A claim's verdict as its label: of a claim, which is no pair of arms, "cannot be told apart" says nothing."""
    return "not decided" if verdict == "cannot be told apart" else verdict


def verdict_class(verdict: Verdict) -> str:
    """CSS class of a verdict."""
    return verdict.replace(" ", "-")
