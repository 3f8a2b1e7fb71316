"""Trials as chains of stages: which there are, what they need and which ones trials share is the project's own ``StageKeys``.

``python -m benchmarks.spot.work STORE NOTE`` writes stage_seconds.json from what a store has measured.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timbre_ray.clip_sets import recording_digests
from timbre_ray.estimate import Records
from timbre_ray.specs import TrialSpec
from timbre_ray.stage_keys import Stage, StageKeys
from timbre_ray.store import Store

TABLE = Path(__file__).with_name("stage_seconds.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds a unit of a stage's work, by stage and variant, as somebody measured them."""

    source: str
    seconds: Mapping[tuple[str, str], float]
    counts: Mapping[tuple[str, str], int]
    """Artifacts that a median is of."""

    def of(self, stage: Stage) -> float:
        """Raises KeyError for a stage that was not measured: nothing is guessed."""
        return self.seconds[stage.name, stage.variant] * stage.work


def read_times(path: Path = TABLE) -> Times:
    table = json.loads(path.read_text(encoding="utf-8"))
    places = [((row["stage"], row["variant"]), row) for row in table["stages"]]
    return Times(
        source=table["source"], seconds={place: row["seconds_a_unit"] for place, row in places},
        counts={place: row["artifacts"] for place, row in places},
    )  # fmt: skip


def measured_in(store: Store, source: str) -> dict[str, Any]:
    """The table of a store with one backbone."""
    counts = Counter((m["stage"], m["description"]["variant"]) for m in store.manifests() if "work" in m["description"])
    medians = Records(store).seconds_a_unit
    rows = [
        {"stage": stage, "variant": variant, "seconds_a_unit": round(seconds, 5), "artifacts": counts[stage, variant]}
        for (stage, _, variant), seconds in sorted(medians.items())
    ]
    return {"source": source, "stages": rows}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of a trial, in the order in which the trial comes to it."""

    name: str
    key: str
    needs: tuple[str, ...]
    """Keys of the stages that must be there before."""
    seconds: float
    trains: bool
    """A part of the trial's Dreambooth run, from the scored step before to its own: whoever lacks it trains from the run's start,
    or from a checkpoint."""


Trial = Sequence[Step]


def trials_as_steps(specs: Iterable[TrialSpec], times: Times, factor: float = 1.0) -> list[Trial]:
    """factor: all measured times are multiplied by it."""
    recordings, common = functools.cache(recording_digests), dict[Hashable, Any]()
    return [_steps(StageKeys(spec, recordings(spec.clips), common), times, factor) for spec in specs]


def _steps(keys: StageKeys, times: Times, factor: float) -> Trial:
    clips, at_steps, prompts = keys.spec.evaluate.num_clips, keys.spec.evaluate.at_steps, keys.scored_prompts().values()
    steps = {keys.generate(step, prompt, clips).key: step for step in at_steps for prompt in prompts}
    stages = sorted(keys.all(), key=lambda stage: _turn(stage, steps))
    there = {stage.key for stage in stages}
    return tuple(
        Step(
            name=stage.name, key=stage.key, needs=tuple(key for key in _inputs(stage) if key in there),
            seconds=times.of(stage) * factor, trains=stage.name == "dreambooth",
        )
        for stage in stages
    )  # fmt: skip


def _inputs(stage: Stage) -> Sequence[str]:
    """A score's key holds what it hears in its spec."""
    heard = [key for _, key in stage.spec["audio"]] if stage.name == "score" else []
    return [*stage.inputs, *heard, *([stage.spec["encode_key"]] if heard else [])]


def _turn(stage: Stage, steps: Mapping[str, int]) -> tuple[int, int]:
    """(scored step, place within it): training up to the step, then its clips, then its scores; before all what training needs.

    steps: key of generated clips -> the step they are of.
    """
    match stage.name:
        case "dreambooth":
            return stage.spec["step"], 0
        case "generate":
            return steps[stage.key], 1
        case "score":
            return steps[stage.spec["audio"][0][1]], 2
        case "teach":
            return -1, 3
        case "prompt":
            return -1, 4 if stage.inputs[1] else 0
        case _:
            return -1, ("encode", "class_audio", "mixture_audio").index(stage.name)


if __name__ == "__main__":
    TABLE.write_text(json.dumps(measured_in(Store(sys.argv[1]), sys.argv[2]), indent=1) + "\n", encoding="utf-8")
