"""What a sweep will cost: its stages counted with and without sharing, time and disk from what the store has measured. No torch.

Nothing is guessed: a stage of which the store has no like has no time, and says so.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
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

    def plus(self, other: Cost) -> Cost:
        unknown, sources = (*self.unknown, *other.unknown), (*self.sources, *other.sources)
        return Cost(
            known=self.known + other.known, unknown=tuple(dict.fromkeys(unknown)), sources=tuple(dict.fromkeys(sources))
        )


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
    found = Cost()
    for cost in costs:
        found = found.plus(cost)
    return found


class Records:
    """What the artifacts of a store took, by kind of stage, backbone and variant."""

    def __init__(self, store: Store) -> None:
        self._seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._bytes: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        manifests = [m for m in store.manifests() if "work" in m["description"]]
        backbones = {m["key"]: m["description"]["backbone"] for m in manifests if m["stage"] == "encode"}
        for manifest in manifests:
            self._add(manifest, manifest["description"], backbones)

    def _add(self, manifest: dict[str, Any], description: dict[str, Any], backbones: dict[str, str]) -> None:
        backbone = description["backbone"] or backbones.get(description["spec"].get("encode_key"), "")
        place = (manifest["stage"], backbone, description["variant"])
        spent = description.get("spent", {"seconds": manifest["seconds"], "work": description["work"]})
        if spent["work"] > 0:  # 0: trained by a run that was resumed at this very step
            self._seconds[place].append(spent["seconds"] / spent["work"])
        num_bytes = sum(file["bytes"] for file in manifest["files"].values())
        self._bytes[place].append(num_bytes / description["num_clips"])

    def seconds(self, stage: Stage) -> Cost:
        measured = self._seconds.get((stage.name, stage.backbone, stage.variant))
        if not measured:
            return Cost(unknown=(_words(stage),))
        return Cost(known=statistics.median(measured) * stage.work, sources=("measured in this store",))

    def num_bytes(self, stage: Stage, spec: TrialSpec) -> Cost:
        measured = self._bytes.get((stage.name, stage.backbone, stage.variant))
        if measured:
            return Cost(known=statistics.median(measured) * stage.num_clips, sources=("sizes measured in this store",))
        size = model_size(spec.backbone)
        computed = artifact_bytes(stage.name, stage.num_clips, spec.dreambooth, size) if size else None
        if size is None or computed is None:
            return Cost(unknown=(_words(stage),))
        return Cost(known=computed, sources=(f"{size.source}, saved in float32",))


def estimate(trials: Sequence[PlannedTrial], store: Store, *, todo: Collection[str]) -> Estimate:
    """todo: ids of the trials that a run would start; the others' stages are counted and cost nothing."""
    records, alone = Records(store), Counter[str]()
    distinct: dict[tuple[str, str], Stage] = {}
    lacking: dict[tuple[str, str], tuple[Stage, TrialSpec]] = {}
    runs: dict[str, Stage] = {}
    stored: dict[tuple[str, str], bool] = {}
    recordings = functools.cache(recording_digests)  # read once a plan, not once a trial
    for trial in trials:
        keys = StageKeys(trial.spec, recordings(trial.spec.clips))
        stages = {(stage.name, stage.key): stage for stage in keys.all()}
        alone.update(name for name, _ in stages)
        distinct |= stages
        stored |= {place: store.has(*place) for place in stages if place not in stored}
        if trial.trial_id in todo:
            missing = {place: (stage, trial.spec) for place, stage in stages.items() if not stored[place]}
            lacking |= missing
            if any(name == "dreambooth" for name, _ in missing):
                run = _training(keys)
                runs[run.key] = run
    checkpoints = [c for c in (_checkpoint(spec) for stage, spec in lacking.values() if stage.name == "dreambooth") if c]
    counts = []
    for kind in KINDS:
        wanted = [(stage, spec) for stage, spec in lacking.values() if stage.name == kind]
        timed = list(runs.values()) if kind == "dreambooth" else [stage for stage, _ in wanted]
        counts.append(StageCount(
            kind=kind, alone=alone[kind], shared=sum(name == kind for name, _ in distinct),
            stored=sum(found for (name, _), found in stored.items() if name == kind), num_to_do=len(wanted),
            seconds=total(records.seconds(stage) for stage in timed),
            num_bytes=total(records.num_bytes(stage, spec) for stage, spec in wanted),
        ))  # fmt: skip
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
