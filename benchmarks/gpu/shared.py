"""Row 8: several LoRA arms on one GPU or CPU core, over one frozen base in one process, or each in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from threading import Barrier
from typing import Any

import torch

from benchmarks.gpu import model
from benchmarks.gpu.limits import examples_of
from benchmarks.measure import Figure, Row
from timbre_ray.methods import lora
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train.dreambooth import Arm, train, train_together
from timbre_ray.train.losses import Examples

NUM_ARMS, BLOCK, WARM_UP = 4, 5, 3
SPEC = DreamboothSpec(method="lora", lr=1e-4, batch_size=4, gradient_accumulation=1, mixed_precision="bf16")
MINI_SPEC = dataclasses.replace(SPEC, batch_size=2, mixed_precision="no")  # as in sweeps/mini-ablation.yaml
#: Who trains which arms, by their seeds: a process for each.
SIDES = {"together": [range(NUM_ARMS)], "apart": [range(seed, seed + 1) for seed in range(NUM_ARMS)], "alone": [range(1)]}
LIMIT_S = 300  # for a process to load its model, or to run a block


def steps_of(backbone: Backbone, examples: Examples, spec: DreamboothSpec, seeds: range) -> Iterator[Any]:
    """One arm as a trial trains it alone, or several as one trains them along with its own."""
    unet = backbone.copy_unet()
    if len(seeds) == 1:
        torch.manual_seed(seeds[0])
        lora.attach(unet, spec)
        return train(unet, backbone.new_scheduler(), examples, None, spec, seed=seeds[0], device=backbone.device)
    attached = lora.together(unet, [spec] * len(seeds), seeds)
    arms = [
        Arm(instance=examples, spec=spec, seed=seed, parameters=one.parameters)
        for seed, one in zip(seeds, attached, strict=True)
    ]  # fmt: skip
    return train_together(unet, backbone.new_scheduler(), arms, device=backbone.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a process measured."""

    side: str
    blocks: list[tuple[float, float]]
    """When each began and ended; one clock for all processes on Linux."""
    memory_gb: float


def _process(side: str, seeds: range, size: str, spec: DreamboothSpec, repeats: int, barrier: Barrier, answers: Any) -> None:
    """A process of its own: loads, then trains a block of steps whenever it is its side's turn."""
    if model.device() == "cpu":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # all share one core, as trials share a GPU
        torch.set_num_threads(1)
    backbone = model.load(size)
    examples = examples_of(backbone)
    backbone.set_aside()
    model.reset_peak()
    steps = steps_of(backbone, examples, dataclasses.replace(spec, steps=WARM_UP + repeats * BLOCK), seeds)
    for _ in range(WARM_UP):
        next(steps)
    blocks = []
    for turn in [turn for i in range(repeats) for turn in (list(SIDES) if i % 2 == 0 else list(SIDES)[::-1])]:
        barrier.wait()
        if turn == side:
            begin = time.perf_counter()
            for _ in range(BLOCK):
                next(steps)
            blocks.append((begin, time.perf_counter()))
    barrier.wait()  # a process that ends takes time, too
    answers.put(Found(side=side, blocks=blocks, memory_gb=model.peak_gb()))


def run(repeats: int, size: str, spec: DreamboothSpec) -> list[Found]:
    """All sides' processes, side after side. Raises queue.Empty where one of them fails."""
    context = multiprocessing.get_context("spawn")
    places = [(side, seeds) for side, each in SIDES.items() for seeds in each]
    barrier, answers = context.Barrier(len(places), timeout=LIMIT_S), context.Queue()
    workers = [
        context.Process(target=_process, args=(side, seeds, size, spec, repeats, barrier, answers), daemon=True)
        for side, seeds in places
    ]
    for worker in workers:
        worker.start()
    try:
        return [answers.get(timeout=2 * LIMIT_S) for _ in workers]
    finally:
        for worker in workers:
            worker.kill()


def measure(repeats: int, size: str = model.SIZE, spec: DreamboothSpec = SPEC) -> list[Figure]:
    found = run(repeats, size, spec)
    by_side = {side: [one for one in found if one.side == side] for side in SIDES}
    gb = {side: sum(one.memory_gb for one in ones) for side, ones in by_side.items()}
    rates = {side: _rates(ones, num_arms=sum(map(len, SIDES[side]))) for side, ones in by_side.items()}
    return [
        Figure(
            name=f"{NUM_ARMS} arms in one process over {NUM_ARMS} processes, steps per second",
            values=tuple(a / b for a, b in zip(rates["together"], rates["apart"], strict=True)), goal=1.5,
            sides={"together_steps_per_s": rates["together"], "apart_steps_per_s": rates["apart"]},
        ),
        Figure(
            name="its memory over theirs", values=(gb["together"] / gb["apart"],),
            sides={"together_gb": (gb["together"],), "apart_gb": (gb["apart"],)},
        ),
        Figure(name="one arm alone", values=rates["alone"], unit="steps/s"),
    ]  # fmt: skip


def _rates(ones: Sequence[Found], num_arms: int) -> tuple[float, ...]:
    """Steps a second of all arms of a side, block by block: from when the first of its processes began to when the last ended."""
    same = zip(*(one.blocks for one in ones), strict=True)
    return tuple(num_arms * BLOCK / (max(end for _, end in spans) - min(begin for begin, _ in spans)) for spans in same)


ROW = Row(
    name="shared-gpu", title=f"{NUM_ARMS} LoRA arms on one GPU, {model.SIZE}", measure=measure, needs_gpu=True,
    setup=f"Random weights in the published shapes, 10.24 s, bfloat16 autocast, {SPEC.batch_size} clips a step and arm. In one "
    "process: one pass of the base for all arms, as `run.train_together` has it. Else: as many processes, which the GPU serves "
    "in turns, as trials at fractional GPUs are.",
)  # fmt: skip
MINI = Row(
    name="shared-cpu", title=f"{NUM_ARMS} LoRA arms on one CPU core",
    measure=lambda repeats: measure(repeats, "mini", MINI_SPEC),
    setup=f"The miniature in float32, {MINI_SPEC.batch_size} clips a step and arm. In one process: one pass of the base for all "
    "arms, as `run.train_together` has it. Else: as many processes, all on one core, as trials at fractional CPUs are. Memory is "
    "that of the whole processes.",
)  # fmt: skip
