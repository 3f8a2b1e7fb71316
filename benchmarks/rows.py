"""The rows, in the order of the table: name -> where it is, imported on use."""

from __future__ import annotations

import importlib

from benchmarks.measure import Row

MODULES = {
    "training-step": "training_step:ROW",
    "gpu-training-step": "gpu.training_step:BASE",
    "gpu-training-step-large": "gpu.training_step:LARGE",
    "ablation": "ablation:ROW",
    "ablation-whole": "whole:ROW",
    "overhead": "overhead:ROW",
    "overhead-long": "overhead:LONG",
    "command-line": "command_line:ROW",
    "generation": "generation:ROW",
    "gpu-generation": "gpu.generation:BASE",
    "gpu-generation-large": "gpu.generation:LARGE",
    "scoring": "scoring:ROW",
    "teacher-forcing": "teacher:ROW",
    "gpu-teacher-forcing": "gpu.teacher:ROW",
    "gpu-limits": "gpu.limits:ROW",
    "gpu-kernels": "gpu.kernels:ROW",
    "shared-cpu": "gpu.shared:MINI",
    "shared-gpu": "gpu.shared:ROW",
    "gpu-methods": "gpu.methods:ROW",
}


def load(name: str) -> Row:
    module, _, attribute = MODULES[name].partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), attribute)
