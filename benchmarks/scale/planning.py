"""Part ``plan``: ``timbre-ray plan`` as a process, before anything has run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.scale import sweeps
from benchmarks.scale.records import command


def measure(num_trials: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {"trials": num_trials, **command("plan", str(sweeps.write(Path(folder), num_trials)))}
