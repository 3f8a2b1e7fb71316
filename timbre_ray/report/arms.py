"""Every score of every arm at its last step: mean over seeds and its interval, under the floor and the untouched backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pandas as pd

from timbre_ray.report.effects import SCORES, score_name
from timbre_ray.report.numbers import NOTHING, digits_beside, number
from timbre_ray.report.paired import paired_difference
from timbre_ray.report.results import Results
from timbre_ray.report.tables import FLOOR_LABEL, UNTOUCHED_LABEL, RowKind

HEADERS = ("mean", "95 % interval", "seeds", "clips")
MAX_LINES = 1000
"""Beyond so many the page leaves them to the file."""
READING = (
    "At the last step. The interval is Student’s t over the seeds’ means: of other seeds on these recordings, with this noise "
    "(docs/explanation.md says how well it keeps its word, and why it is no bootstrap). It may pass the bounds of a confidence. "
    "The untouched backbone makes the same clips at every seed, so it has none. Arms are compared by their differences, not by "
    "whether such intervals overlap."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    target: str
    metric: str
    score: str
    """The metric in words."""
    label: str
    kind: RowKind
    mean: float
    interval: tuple[float, float] | None
    """Of the mean over seeds; None for fewer than two."""
    num_seeds: int
    num_clips: int

    @property
    def cells(self) -> tuple[str, ...]:
        digits = digits_beside(self.interval)
        ends = [number(end, digits=digits) for end in self.interval or ()]
        seeds = str(self.num_seeds) if self.num_seeds else NOTHING
        return number(self.mean, digits=digits), " to ".join(ends) or NOTHING, seeds, str(self.num_clips)


def gather(results: Results) -> tuple[Line, ...]:
    """By target and score; the references first, then the arms in the sweep's order."""
    frame = results.frame
    lines = [
        *_floors(results),
        *_lines(frame[frame["final"]], "arm", results.partner),
        *_lines(results.untouched.assign(arm=UNTOUCHED_LABEL), "untouched", results.partner),
    ]
    scores = {name: place for place, name in enumerate(SCORES)}
    arms = {arm.label: place for place, arm in enumerate(results.arms)}
    kinds: dict[RowKind, int] = {"floor": 0, "untouched": 1, "arm": 2}
    return tuple(sorted(lines, key=lambda line: (
        line.target, scores[line.metric.partition("/")[0]], line.metric, kinds[line.kind], arms.get(line.label, 0)
    )))  # fmt: skip


def _floors(results: Results) -> Iterable[Line]:
    for target, record in results.baselines.items():
        for metric, value in record["metrics"].items():
            if metric in SCORES:
                score = score_name(metric, results.partner)
                yield Line(target=target, metric=metric, score=score, label=FLOOR_LABEL, kind="floor", mean=float(value),
                           interval=None, num_seeds=0, num_clips=int(record["num_clips"]))  # fmt: skip


def _lines(frame: pd.DataFrame, kind: RowKind, partner: str) -> Iterable[Line]:
    known = frame[frame["metric"].map(lambda metric: metric.partition("/")[0] in SCORES).astype(bool)]
    for (target, metric, label), own in known.groupby(["target", "metric", "arm"], sort=False):
        found = paired_difference({(target, seed): value for seed, value in zip(own["seed"], own["value"], strict=True)})
        yield Line(
            target=target,
            metric=metric,
            score=score_name(metric, partner),
            label=label,
            kind=kind,
            mean=found.mean,
            interval=found.interval if kind == "arm" else None,
            num_seeds=len(own),
            num_clips=int(own["num_clips"].min()),
        )


def frame(lines: Iterable[Line]) -> pd.DataFrame:
    """One mean a line."""
    rows = [(x.target, x.label, x.metric, x.mean, *(x.interval or (None, None)), x.num_seeds, x.num_clips) for x in lines]
    names = ["target", "row", "metric", "mean", "low", "high", "num_seeds", "num_clips"]
    return pd.DataFrame(rows, columns=names).astype({"low": "float64", "high": "float64"})
