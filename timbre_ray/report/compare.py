"""Two arms or two trials of one sweep side by side: what their specs differ in, their scores, their audio."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from timbre_ray.report.paired import PairedDifference, paired_sides
from timbre_ray.report.results import Results, flat
from timbre_ray.store import Store

Place = tuple[str, int]
"""Target and seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One metric at the last step; means weigh targets alike."""

    metric: str
    left: float
    right: float
    difference: PairedDifference
    """Left minus right."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    side: str
    target: str
    seed: int
    prompt: str
    folder: Path | None
    """None: not in the store."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    left: str
    right: str
    settings: tuple[tuple[str, str, str], ...]
    """(dotted key, left's value, right's value) where the specs differ, beyond target and seed."""
    scores: tuple[Score, ...]
    audio: tuple[Sound, ...]


def compare(results: Results, left: str, right: str, store: Store) -> Sides:
    """left and right: two arms, paired by target and seed, or two trial ids, which are one pair whatever their seeds.

    Raises ValueError for a name that is neither, and where the two share no target and seed.
    """
    sides = [_trials(results, name) for name in (left, right)]
    if left in _ids(results) and right in _ids(results):
        sides = [{("trial", 0): trial for trial in side.values()} for side in sides]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        raise ValueError(f"{left} and {right}: no target and seed that both have finished; compare two trials by their ids")
    first = [side[shared[0]]["spec"] for side in sides]
    audio = []
    for name, side in zip((left, right), sides, strict=True):
        audio += [sound for place in shared for sound in _audio(name, side[place], store)]
    return Sides(
        left=left, right=right, settings=tuple(_differences(*first)), scores=tuple(_scores(*sides, shared)), audio=tuple(audio)
    )


def _ids(results: Results) -> set[str]:
    return {trial["trial_id"] for trial in results.with_status("finished")}


def _trials(results: Results, name: str) -> dict[Place, Mapping[str, Any]]:
    labels = results.frame.drop_duplicates("trial_id").set_index("trial_id")["arm"]
    finished = results.with_status("finished")
    found = [t for t in finished if t["trial_id"] == name] or [t for t in finished if labels[t["trial_id"]] == name]
    if not found:
        names = [*labels.unique(), *labels.index]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
        hint = f"nearest: {near[0]}" if near else f"the arms are {', '.join(labels.unique()) or 'none yet'}"
        raise ValueError(f"{name}: no arm with a finished trial and no finished trial in {results.name}; {hint}")
    return {(str(t["target"]), int(t["seed"])): t for t in found}


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    values = [dict(flat(spec)) for spec in (left, right)]
    for key in dict.fromkeys([*values[0], *values[1]]):
        a, b = (str(side.get(key, "–")) for side in values)
        if a != b:
            yield key, a, b


def _scores(left: dict[Place, Any], right: dict[Place, Any], shared: Sequence[Place]) -> Iterator[Score]:
    lines = [(place, *(_last(side[place])["metrics"] for side in (left, right))) for place in shared]
    for metric in lines[0][1]:
        pairs = pd.DataFrame({place: (a[metric], b[metric]) for place, a, b in lines if metric in a and metric in b}).T
        if pairs.empty:
            continue
        pairs.index.names = ["target", "seed"]
        difference, left_mean, right_mean = paired_sides(pairs[0], pairs[1])
        yield Score(metric=metric, left=left_mean, right=right_mean, difference=difference)


def _last(trial: Mapping[str, Any]) -> Mapping[str, Any]:
    return max(trial["evaluations"], key=lambda evaluation: evaluation["step"])


def _audio(side: str, trial: Mapping[str, Any], store: Store) -> Iterator[Sound]:
    for prompt, key in _last(trial)["audio"].items():
        folder = store.get("generate", key).folder if store.has("generate", key) else None
        yield Sound(side=side, target=str(trial["target"]), seed=int(trial["seed"]), prompt=prompt, folder=folder)
