"""Between the clips of one trial: the kernel distance's interval and the clips that stand apart, as scores.json has them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from timbre_ray.report import stored_scores
from timbre_ray.report.numbers import number
from timbre_ray.report.results import Results
from timbre_ray.store import DamagedArtifactError, Store

FENCE = 1.5
"""Tukey's: an outlier lies this many interquartile ranges above the third quartile of its trial's clips."""
HEADERS = ("target", "arm", "seed", "clips", "KAD, held-out", "95 % interval", "a clip’s own distance, median", "outliers")
READING = (
    "At the last step. KAD with its 95 % interval for other clips of the same model (bootstrap over clips, so it says nothing of "
    "other seeds). Beside it each solo clip’s own Fréchet distance to the held-out recordings; an outlier lies more than "
    f"{FENCE} interquartile ranges above the third quartile of the trial’s clips. Clips count from 0, as in the store."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """The solo clips of one trial at its last step."""

    target: str
    arm: str
    seed: int
    kad: float
    kad_interval: tuple[float, float]
    distances: tuple[float, ...]
    """Of clip 0, 1, ...: its own Fréchet distance to the held-out recordings."""

    @functools.cached_property
    def outliers(self) -> tuple[int, ...]:
        low, high = np.quantile(self.distances, [0.25, 0.75])
        fence = high + FENCE * (high - low)
        return tuple(clip for clip, distance in enumerate(self.distances) if distance > fence)

    @property
    def cells(self) -> tuple[str, ...]:
        far = ", ".join(f"clip {clip} ({number(self.distances[clip])})" for clip in self.outliers) or "none"
        interval = f"{number(self.kad_interval[0])} to {number(self.kad_interval[1])}"
        middle = number(float(np.median(self.distances)))
        return self.target, self.arm, str(self.seed), str(len(self.distances)), number(self.kad), interval, middle, far


def gather(results: Results, store: Store) -> tuple[Spread, ...]:
    """One a finished trial whose score is in the store and holds both; a report away from its store goes without."""
    scores = stored_scores.manifests(store)
    labels = results.frame.drop_duplicates("trial_id").set_index("trial_id")["arm"]
    order = [arm.label for arm in results.arms]
    found = []
    for trial in results.with_status("finished"):
        last = max(trial["evaluations"], key=lambda evaluation: evaluation["step"])
        known = stored_scores.find(scores, last["audio"], trial) if scores else []
        held = _scores(store, known[0]["key"]) if known else {}
        if "outliers" in held and "kad_held_out" in held.get("intervals", {}):
            own = sorted((row["clip"], row["fad_held_out"]) for row in held["outliers"])
            found.append(Spread(
                target=str(trial["target"]), arm=labels[trial["trial_id"]], seed=int(trial["seed"]),
                kad=held["metrics"]["kad_held_out"], kad_interval=tuple(held["intervals"]["kad_held_out"]),
                distances=tuple(distance for _, distance in own),
            ))  # fmt: skip
    return tuple(sorted(found, key=lambda spread: (spread.target, order.index(spread.arm), spread.seed)))


def _scores(store: Store, key: str) -> dict[str, Any]:
    """Empty where they are damaged, as the listening tables skip such a clip: `store verify` and `report --check` name it."""
    try:
        return json.loads(store.get("score", key).file("scores.json").read_text(encoding="utf-8"))
    except DamagedArtifactError:
        return {}


def frame(spreads: Sequence[Spread]) -> pd.DataFrame:
    """One clip a line."""
    lines = [
        (s.target, s.arm, s.seed, clip, distance, clip in s.outliers)
        for s in spreads
        for clip, distance in enumerate(s.distances)
    ]
    return pd.DataFrame(lines, columns=["target", "arm", "seed", "clip", "fad_held_out", "is_outlier"])
