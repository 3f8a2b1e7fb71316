"""Row 1 at the published sizes: a training step with prior preservation, speed and memory on the GPU."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import baseline
from benchmarks.gpu import model
from benchmarks.measure import Figure, Row, speedup
from benchmarks.training_step import CLASS_PROMPT, INSTANCE_PROMPT, files_of
from timbre_ray.data.clips import read_clips
from timbre_ray.methods import METHODS
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train.dreambooth import train
from timbre_ray.train.losses import Examples

WARM_UP = 2
#: So small a rate that theirs, which trains the pipeline's own U-Net, leaves it as it was.
SPEC = DreamboothSpec(method="prior", lr=1e-12, batch_size=1, gradient_accumulation=4, mixed_precision="bf16", weight_decay=0.0)
AT_ONCE = dataclasses.replace(SPEC, batch_size=4, gradient_accumulation=1)
MODES = {"theirs": SPEC, "ours-one-by-one": SPEC, "ours-at-once": AT_ONCE}


def losses_of(mode: str, backbone: Backbone, folder: Path, steps: int) -> Iterator[float]:
    """Theirs keeps the whole pipeline on the GPU and trains its U-Net; ours trains a copy and sets the rest aside."""
    spec = dataclasses.replace(MODES[mode], steps=steps)
    if mode == "theirs":
        instance, prior = (sorted(folder.glob(f"{name}_*.flac")) for name in ("chinese_flute_v1", "chinese_lute"))
        unet = backbone.pipeline.to(backbone.device).unet
        METHODS[spec.method].attach(unet, spec)
        yield from baseline.train(backbone.pipeline, unet, (instance, INSTANCE_PROMPT), (prior, CLASS_PROMPT), spec, seed=0)
        unet.requires_grad_(False)
        unet.zero_grad(set_to_none=True)
        return
    examples = []
    for prefix, prompt in (("chinese_flute_v1", INSTANCE_PROMPT), ("chinese_lute", CLASS_PROMPT)):
        mean, std = backbone.encode_audio(read_clips(folder, prefix))
        examples.append(Examples(mean=mean, std=std, prompt=backbone.embed(prompt)))
    backbone.set_aside()
    unet = backbone.copy_unet()
    METHODS[spec.method].attach(unet, spec)
    for row in train(unet, backbone.new_scheduler(), *examples, spec, seed=0, device=backbone.device):
        yield row["loss"]


def run(mode: str, backbone: Backbone, folder: Path, repeats: int) -> tuple[list[float], float]:
    """-> seconds of each step after the first two, peak memory in GB."""
    backbone.set_aside()
    model.reset_peak()
    # A step is done when its loss is read.
    times = [time.perf_counter() for _ in losses_of(mode, backbone, folder, WARM_UP + repeats)]
    return [b - a for a, b in itertools.pairwise(times[WARM_UP - 1 :])], model.peak_gb()


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    backbone = model.load(size)
    with tempfile.TemporaryDirectory() as name:
        files_of(backbone, Path(name))
        found = {mode: run(mode, backbone, Path(name), repeats) for mode in MODES}
    their_s, their_gb = found["theirs"]
    figures = []
    for mode, words in (("ours-at-once", "four clips at once"), ("ours-one-by-one", "one clip at a time, as theirs")):
        our_s, our_gb = found[mode]
        figures += [
            speedup(f"steps per second, {words}", our_s, their_s, 3.0),
            Figure(
                name=f"peak memory reserved on the GPU, {words}", values=(our_gb / max(their_gb, 1e-9),), goal=0.5,
                bound="at most", sides={"ours_gb": (our_gb,), "theirs_gb": (their_gb,)},
            ),
        ]  # fmt: skip
    return figures


def row(name: str, size: str) -> Row:
    return Row(
        name=name, title=f"Training step with prior preservation, {size}", needs_gpu=True,
        measure=functools.partial(measure, size=size),
        setup="Random weights in the published shapes, 10.24 s, four target and four class clips a step, bfloat16 autocast "
        f"over float32 weights, every weight of the U-Net trained; steps one after another, after {WARM_UP} that are not "
        "counted. Theirs is batch 1 with four accumulated, and keeps the pipeline on the GPU; ours has recorded its CUDA "
        "graph in the first step.",
    )  # fmt: skip


BASE, LARGE = row("gpu-training-step", "audioldm2"), row("gpu-training-step-large", "audioldm2-large")
