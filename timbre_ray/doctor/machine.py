"""Whether this machine has what the sweep takes: GPUs, memory, weights, disk, rights."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbre_ray.backbones import PUBLISHED_AUDIOMAE, at_hand, pipeline_at_hand
from timbre_ray.companions import kind
from timbre_ray.doctor.case import Case, Finding
from timbre_ray.model_sizes import model_size, training_memory
from timbre_ray.quantities import size
from timbre_ray.remote_tier import local_root
from timbre_ray.specs import BackboneSpec

#: Parts of a pipeline that are nothing without weights.
WEIGHED = ("unet", "vae", "vocoder", "language_model", "projection_model", "text_encoder", "text_encoder_2")
#: A U-Net of more parameters is not trained on a CPU in a night.
LARGE = 100_000_000
#: Share of the memory or the disk that is called tight.
TIGHT = 0.9


def gpu(case: Case) -> Finding:
    if not case.asks_for_gpu:
        sizes = [found.unet for trial in case.trials if (found := model_size(trial.spec.backbone))]
        if max(sizes, default=0) > LARGE:
            found = f"none is asked for, and a U-Net of {max(sizes) / 1e6:.0f} M parameters learns slowly on a CPU"
            return Finding(level="warning", found=found, remedy="set run.resources.train: {gpu: 1}")
        return Finding(level="ok", found="none is asked for: the trials run on the CPU")
    there, wanted = len(case.gpus()), case.gpus_a_trial
    found = f"{there} here; a trial takes {wanted:g}"
    if there and there >= wanted:
        return Finding(level="ok", found=found)
    remedy = "run doctor on a node that has them, or lower run.resources"
    return Finding(level="error", found=found, remedy=f"{remedy}; `nvidia-smi` says whether the driver sees any")


def memory(case: Case) -> Finding:
    if not case.asks_for_gpu:
        return Finding(level="ok", found="no GPU is asked for")
    needs, at_once = {}, {}
    for trial in case.trials:
        known = model_size(trial.spec.backbone)
        name = trial.arm if not case.sweep.search else _point(trial.point)
        at_once[name] = case.sweep.run.train_together if kind(trial.spec) else 1
        needs[name] = training_memory(trial.spec, known, num_arms=at_once[name]) if known else None
    measured = {name: need for name, need in needs.items() if need is not None}
    if not measured:
        return Finding(level="warning", found="the size of the backbone is not known", remedy="watch the first trial's memory")
    worst = max(measured, key=lambda name: measured[name])
    shared = max(1, math.floor(1 / case.gpus_a_trial)) if case.gpus_a_trial else 1
    need, have = shared * measured[worst], min(case.gpus(), default=0)
    along = f", {at_once[worst]} trained at once" if at_once[worst] > 1 else ""
    found = f"about {size(need)} for {shared} trial(s) of {worst}{along} (weights, gradients, AdamW, activations by a rough rule)"
    if not have:
        return Finding(level="error", found=f"{found}; no GPU here", remedy="run it where a GPU has so much memory")
    found += f"; {size(have)} on the smallest GPU here"
    if need <= TIGHT * have:
        return Finding(level="ok", found=found)
    return Finding(level="error" if need > have else "warning", found=found, remedy=_less_memory(case))


def _point(point: Mapping[str, Any]) -> str:
    """What a search drew, as a command line would have it."""
    return ", ".join(f"{key}={value}" for key, value in point.items()) or "base"


def _less_memory(case: Case) -> str:
    """What would need less, of that which the sweep has not done yet; what changes no result first."""
    specs = [trial.spec for trial in case.trials]
    ways = [
        (case.gpus_a_trial < 1, "give a trial a whole GPU"),
        (case.sweep.run.train_together > 1, "lower run.train_together"),
        (any(spec.evaluate.sampler.batch_size > 1 for spec in specs), "lower evaluate.sampler.batch_size (no result changes)"),
        (any(spec.dreambooth.batch_size > 1 for spec in specs), "lower dreambooth.batch_size and raise gradient_accumulation"),
        (any(spec.dreambooth.mixed_precision == "no" for spec in specs), "set dreambooth.mixed_precision: bf16"),
        (any(spec.backbone.dtype == "float32" for spec in specs), "set backbone.dtype: bfloat16"),
        (any(spec.dreambooth.method != "lora" for spec in specs), "use method lora"),
        (True, "take a larger GPU"),
    ]
    return ", or ".join(way for possible, way in ways if possible)


def weights(case: Case) -> Finding:
    errors, warnings, fine = [], [], []
    for backbone in dict.fromkeys(trial.spec.backbone for trial in case.trials):
        folder = pipeline_at_hand(backbone)
        absent = [part for part in WEIGHED if folder and not any((folder / part).glob("*.safetensors"))]
        lacking = [f"{backbone.name} lacks {part}" for part in absent]
        lacking += [] if folder else [f"{backbone.name} is not in the hub's cache"]
        lacking += [] if _audiomae_at_hand(backbone) else [f"{backbone.audiomae or PUBLISHED_AUDIOMAE} is not in the hub's cache"]
        if not lacking:
            fine.append(f"{backbone.name} is here")
        elif Path(backbone.name).is_dir() or backbone.name == "mini":
            errors += lacking
        elif refusal := case.hub_refusal(backbone.name, backbone.revision):
            errors.append(f"{'; '.join(lacking)}, and the hub does not bring it ({refusal})")
        else:
            warnings.append(f"{'; '.join(lacking)}; the hub answers, and the first trial fetches it")
    remedy = "fetch it while there is a network (`hf download NAME`), or copy a whole folder and name it in backbone.name"
    level = "error" if errors else "warning" if warnings else "ok"
    return Finding(level=level, found="; ".join((*errors, *warnings, *fine)), remedy=remedy if level != "ok" else "")


def _audiomae_at_hand(backbone: BackboneSpec) -> bool:
    pipeline = pipeline_at_hand(backbone)
    if backbone.audiomae is None and pipeline and (pipeline / "audiomae").is_dir():
        return True
    name = backbone.audiomae or PUBLISHED_AUDIOMAE
    return Path(name).is_file() or at_hand(name, None, "model.safetensors") is not None


def disk(case: Case) -> Finding:
    times = case.sweep.search.num_trials if case.sweep.search else 1
    cost, at_once = case.estimate.num_bytes, _trials_at_once(case)
    need = times * cost.known + at_once * (case.estimate.checkpoint_bytes or 0)
    place = _existing(local_root(case.sweep.run.storage, case.sweep.run.cache))
    free = shutil.disk_usage(place).free
    found = f"{size(need)} to write at most, {at_once} trial(s) at once; {size(free)} free at {place}"
    if cost.unknown:
        found += f"; not counted: {', '.join(cost.unknown)}"
    remedy = "set run.storage to a larger disk, score fewer steps (the weights of each are kept), or lower run.max_concurrent"
    if need > TIGHT * free:
        return Finding(level="error" if need > free else "warning", found=found, remedy=remedy)
    if cost.unknown and not cost.known:
        return Finding(level="warning", found=found, remedy="look at the store after the first trial")
    return Finding(level="ok", found=found)


def _trials_at_once(case: Case) -> int:
    train = case.sweep.run.resources.train
    slots = [len(case.gpus()) / train["gpu"]] if train.get("gpu") else []
    slots += [(os.cpu_count() or 1) / train["cpu"]] if train.get("cpu") else []
    slots += [case.sweep.run.max_concurrent] if case.sweep.run.max_concurrent else []
    return max(1, math.floor(min([*slots, len(case.sweep.trials) if not case.sweep.search else case.sweep.search.num_trials])))


def folders(case: Case) -> Finding:
    problems = []
    run = case.sweep.run
    for key, folder in (("storage", local_root(run.storage, run.cache)), ("results", Path(run.results))):
        place = _existing(folder)
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            problems.append(f"run.{key}={getattr(run, key)!r}: nothing can be written at {place} ({error.strerror})")
    if problems:
        return Finding(level="error", found="; ".join(problems), remedy="change the folder's rights, or name another")
    return Finding(level="ok", found="store and results can be written")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.expanduser().resolve()
    return next(place for place in (path, *path.parents) if place.exists())
