"""What a sweep will cost: its stages counted with and without sharing, time and disk from what the store has measured. No torch.

Nothing is guessed: a stage of which the store has no like has no time, and says so.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from timbre_ray.clip_sets import recording_digests
from timbre_ray.model_sizes import artifact_bytes, checkpoint_bytes, model_size
from timbre_ray.specs import TrialSpec
from timbre_ray.stage_keys import Stage, StageKeys
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial

KINDS = ("encode", "teach", "prompt", "class_audio", "mixture_audio", "dreambooth", "generate", "score")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """A sum over stages, and those that could not be added to it."""

    known: float = 0.0
    unknown: tuple[str, ...] = ()
    """Stages without a measurement, each with its variant, once."""
    sources: tuple[str, ...] = ()
    """Where the known part comes from, in words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCount:
    """One kind of stage over a sweep."""

    kind: str
    alone: int
    """Times it is computed if every trial works for itself."""
    shared: int
    """Distinct ones."""
    stored: int
    """Of these, already in the store."""
    num_to_do: int
    """That the trials still to run lack."""
    seconds: Cost
    num_bytes: Cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    counts: tuple[StageCount, ...]
    checkpoint_bytes: int | None
    """Of the largest training, while it is under way; None where nothing trains or its size is not known."""

    @property
    def seconds(self) -> Cost:
        """Compute time of all workers together."""
        return total(count.seconds for count in self.counts)

    @property
    def num_bytes(self) -> Cost:
        return total(count.num_bytes for count in self.counts)


def total(costs: Iterable[Cost]) -> Cost:
    known, unknown, sources = 0.0, dict[str, None](), dict[str, None]()
    for cost in costs:
        known += cost.known
        unknown |= dict.fromkeys(cost.unknown)
        sources |= dict.fromkeys(cost.sources)
    return Cost(known=known, unknown=tuple(unknown), sources=tuple(sources))


class Records:
    """What the artifacts of a store took, by kind of stage, backbone and variant."""

    def __init__(self, store: Store) -> None:
        self.places: set[tuple[str, str]] = set()
        """Stage and key of every artifact."""
        seconds, sizes, backbones = defaultdict(list), defaultdict(list), dict[str, str]()
        for manifest in store.manifests():
            description, stage, key = manifest["description"], manifest["stage"], manifest["key"]
            self.places.add((stage, key))
            if "work" not in description:  # of an older version
                continue
            if stage == "encode":
                backbones[key] = description["backbone"]
            place = (stage, description["backbone"], description["spec"].get("encode_key"), description["variant"])
            spent = description.get("spent", {"seconds": manifest["seconds"], "work": description["work"]})
            if spent["work"] > 0:  # 0: trained by a run that was resumed at this very step
                seconds[place].append(spent["seconds"] / spent["work"])
            sizes[place].append(sum(file["bytes"] for file in manifest["files"].values()) / description["num_clips"])
        self.seconds_a_unit = _medians(seconds, backbones)
        """(stage, backbone, variant) -> median seconds a unit of work."""
        self._bytes = _medians(sizes, backbones)

    def seconds(self, stage: Stage) -> Cost:
        measured = self.seconds_a_unit.get((stage.name, stage.backbone, stage.variant))
        if measured is None:
            return Cost(unknown=(_words(stage),))
        return Cost(known=measured * stage.work, sources=("measured in this store",))

    def num_bytes(self, stage: Stage, spec: TrialSpec) -> Cost:
        measured = self._bytes.get((stage.name, stage.backbone, stage.variant))
        if measured is not None:
            return Cost(known=measured * stage.num_clips, sources=("sizes measured in this store",))
        size = model_size(spec.backbone)
        computed = artifact_bytes(stage.name, stage.num_clips, spec.dreambooth, size) if size else None
        if size is None or computed is None:
            return Cost(unknown=(_words(stage),))
        return Cost(known=computed, sources=(f"{size.source}, saved in float32",))


def _medians(
    measured: Mapping[tuple[str, str, str | None, str], list[float]], backbones: Mapping[str, str]
) -> dict[tuple[str, str, str], float]:
    """By kind of stage, backbone and variant; a score has the backbone of the recordings that it was held against."""
    found = defaultdict(list)
    for (stage, backbone, encode_key, variant), values in measured.items():
        found[stage, backbone or backbones.get(encode_key or "", ""), variant] += values
    return {place: statistics.median(values) for place, values in found.items()}


def estimate(trials: Sequence[PlannedTrial], store: Store, *, todo: Collection[str], afresh: bool = False) -> Estimate:
    """todo: ids of the trials that a run would start; the others' stages are counted and cost nothing. afresh: as if the store
    held none of their stages."""
    records, alone = Records(store), Counter[str]()
    distinct: set[tuple[str, str]] = set()
    lacking: dict[tuple[str, str], tuple[Stage, TrialSpec]] = {}
    runs: dict[str, Stage] = {}
    recordings, common = functools.cache(recording_digests), dict[Hashable, Any]()  # read and derived once a plan
    for trial in trials:
        keys = StageKeys(trial.spec, recordings(trial.spec.clips), common)
        stages = {(stage.name, stage.key): stage for stage in keys.all()}
        alone.update(name for name, _ in stages)
        distinct.update(stages)
        if trial.trial_id in todo:
            missing = {place: (stage, trial.spec) for place, stage in stages.items() if afresh or place not in records.places}
            lacking |= missing
            if any(name == "dreambooth" for name, _ in missing):
                run = _training(keys)
                runs[run.key] = run
    wanted: dict[str, list[tuple[Stage, TrialSpec]]] = {kind: [] for kind in KINDS}
    for (name, _), one in lacking.items():
        wanted[name].append(one)
    shared, stored = (Counter(name for name, _ in places) for places in (distinct, distinct & records.places))
    counts = [
        StageCount(
            kind=kind, alone=alone[kind], shared=shared[kind], stored=stored[kind], num_to_do=len(wanted[kind]),
            seconds=total(map(records.seconds, runs.values() if kind == "dreambooth" else (stage for stage, _ in wanted[kind]))),
            num_bytes=total(records.num_bytes(stage, spec) for stage, spec in wanted[kind]),
        )
        for kind in KINDS
    ]  # fmt: skip
    checkpoints = [c for c in (_checkpoint(spec) for _, spec in wanted["dreambooth"]) if c]
    return Estimate(counts=tuple(counts), checkpoint_bytes=max(checkpoints, default=None))


def _training(keys: StageKeys) -> Stage:
    """A whole training run: one whose weights lack any of its scored steps starts at the first step."""
    last = keys.spec.evaluate.at_steps[-1]
    return dataclasses.replace(keys.dreambooth(last), work=keys.clips_trained(last))


def _checkpoint(spec: TrialSpec) -> int | None:
    size = model_size(spec.backbone)
    return checkpoint_bytes(spec.dreambooth, size) if size else None


def _words(stage: Stage) -> str:
    return f"{stage.name} ({stage.variant})" if stage.variant else stage.name
