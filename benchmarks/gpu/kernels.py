"""Row 7, where the gap is: the share of the time in which the GPU computes, and which kernels take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import model
from benchmarks.gpu.limits import examples_of, generating, training
from benchmarks.measure import Figure, Row
from timbre_ray.models.sampling import prompt_pair

LONGEST = 6


def shares(name: str, run: Callable[[], Any]) -> list[Figure]:
    """Kernels come one after another, so that their seconds add up to those in which the GPU computes."""
    run()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        spent = model.seconds(run)
    events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
    busy = sum(event.self_device_time_total for event in events) / 1e6
    figures = [Figure(name=f"{name}: share of the time in kernels", values=(busy / spent,))]
    for event in events[:LONGEST]:
        share = event.self_device_time_total / 1e6 / busy
        figures.append(Figure(name=f"{name}: of that, {event.key[:70]}", values=(share,)))
    return figures


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    backbone = model.load(size)
    examples = examples_of(backbone)
    backbone.set_aside()
    found = []
    for batch in (1, 8):
        found += shares(f"training, {batch} at once", lambda batch=batch: list(training(backbone, examples, batch, steps=3)))
    half = model.load(size, "bfloat16")
    pair = prompt_pair(half, "A recording of a piano.", "")
    return found + shares("generation, 16 at once", lambda: generating(half, half.unet, pair, 16))


ROW = Row(
    name="gpu-kernels", title=f"Kernels, {model.SIZE}", measure=measure, needs_gpu=True,
    setup="The work of the row before under PyTorch's profiler, once each; training is three steps and the copy of the U-Net.",
)  # fmt: skip
