"""The rows, in the order of the table: name -> the module whose ``ROW`` it is, imported on use."""

from __future__ import annotations

import importlib

from benchmarks.measure import Row

MODULES = {
    "training-step": "training_step",
    "ablation": "ablation",
    "overhead": "overhead",
    "command-line": "command_line",
    "generation": "generation",
    "scoring": "scoring",
    "teacher-forcing": "teacher",
    "shared-gpu": "shared_gpu",
}


def load(name: str) -> Row:
    return importlib.import_module(f"benchmarks.{MODULES[name]}").ROW
