"""The published sizes on a GPU; the miniature on the CPU goes through the same code, for its tests."""

from __future__ import annotations

import functools
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GPT2LMHeadModel

from benchmarks.measure import peak_mib
from benchmarks.published import build_audiomae, build_pipeline, write_audiomae, write_checkpoint
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec
from timbre_ray.whole import whole_folder

SIZE = "audioldm2-large"


@functools.cache
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def spec_of(size: str, dtype: str = "float32") -> BackboneSpec:
    """A checkpoint of that size, written on first use; ``mini`` is the miniature."""
    if size == "mini":
        return BackboneSpec(dtype=dtype)
    folder = Path(tempfile.gettempdir()) / f"timbre-ray-random-{size}"
    if not folder.exists():
        with whole_folder(folder) as part:
            write_checkpoint(part, size, device())
            write_audiomae(part / "audiomae")
    return BackboneSpec(name=str(folder), dtype=dtype)


_built: dict[tuple[str, str], Backbone] = {}


def load(size: str, dtype: str = "float32") -> Backbone:
    """Random weights, built where they are used. The others that a row before this one asked for go aside, or their
    memory would be counted too."""
    for other in _built.values():
        other.set_aside()
    if (size, dtype) not in _built:
        _built[size, dtype] = load_backbone(spec_of(size, dtype)) if size == "mini" else _build(size, dtype)
    return _built[size, dtype]


def _build(size: str, dtype: str) -> Backbone:
    torch.manual_seed(0)
    with torch.device(device()):
        pipeline, audiomae = build_pipeline(size, GPT2LMHeadModel), build_audiomae()
    pipeline.set_progress_bar_config(disable=True)
    for part in (*pipeline.components.values(), audiomae):
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    nn.Module.to(pipeline.unet, getattr(torch, dtype))
    return Backbone(pipeline=pipeline, audiomae=audiomae, digest="", device=device())


def seconds(run: Callable[[], Any]) -> float:
    """The call until the device has done all of it."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if device() == "cuda":
        torch.cuda.synchronize()


def reset_peak() -> None:
    if device() == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Most memory that the process reserved on the GPU since ``reset_peak``, in 1e9 bytes: a recorded graph's is in use for as
    long as the graph lives, though the allocator counts what its tensors held as free once it is recorded. On a CPU: the most
    resident memory of the process since it began."""
    return torch.cuda.max_memory_reserved() / 1e9 if device() == "cuda" else peak_mib() * 2**20 / 1e9
