"""Part ``tune``: what Ray Tune, the ledger and the display take for each trial, and the driver's memory over the trials."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import ENVIRONMENT, ROOT
from benchmarks.scale import sweeps

#: A Ray of its own, never another one of this machine, with little shared memory: stubs have no large objects.
RAY = {"RAY_ADDRESS": "local", "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "100000000"}
#: Shares of a run that are compared, to see whether a trial late in it takes longer than an early one.
EDGE = 0.2


def measure(num_trials: int, limit_s: float) -> dict[str, Any]:
    """The driver as a process of its own; a run that is longer than ``limit_s`` is ended and says how far it came."""
    short = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)  # sockets need short paths
    with tempfile.TemporaryDirectory() as name, short as ray_folder:
        sweep = sweeps.write(Path(name), num_trials)
        command = [sys.executable, "-m", "benchmarks.scale.driver", str(sweep), str(limit_s)]
        environment = {**ENVIRONMENT, **RAY, "RAY_TMPDIR": ray_folder}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"the driver ended with {result.returncode}: {(result.stdout + result.stderr).strip()[-2000:]}")
    return summary(json.loads(result.stdout.strip().splitlines()[-1]))


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """With it: seconds a trial and beyond the stub's own, early and late in the run; memory before and after."""
    ends, samples, n = run["finished_at_s"], run["samples"], run["finished"]
    edge = max(2, round(EDGE * n))
    slot_s = run["concurrent"] * run["wall_s"] / n
    during = [s for s in samples if s["begun"] > 0] or samples
    late = [s["rss_mib"] for s in during if s["begun"] >= (1 - EDGE) * n] or [during[-1]["rss_mib"]]
    early = [s["rss_mib"] for s in during if s["begun"] <= EDGE * n] or [during[0]["rss_mib"]]
    return {
        **run, "trial_s": run["wall_s"] / n, "slot_s": slot_s, "overhead_s": slot_s - run["own_s"],
        "early_trial_s": (ends[edge - 1] - ends[0]) / (edge - 1), "late_trial_s": (ends[-1] - ends[-edge]) / (edge - 1),
        "driver_cpu_s": (during[-1]["cpu_s"] - during[0]["cpu_s"]) / n,
        "early_rss_mib": statistics.median(early), "late_rss_mib": statistics.median(late),
    }  # fmt: skip
