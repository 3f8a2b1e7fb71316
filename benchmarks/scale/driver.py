"""``python -m benchmarks.scale.driver SWEEP LIMIT_S``: a sweep of stub trials on Ray Tune, and what its driver takes.

The last line that is printed is JSON. ``run.time_budget_s`` ends the sweep where LIMIT_S is reached.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.scale.stub import STUBS, own_seconds
from timbre_ray.cluster.run import run_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.sweep import load_sweep

SAMPLE_EVERY_S = 2.0
#: Stubs that are run for their own time.
NUM_BARE = 50


class Sampler:
    """Memory and CPU time of this process, with the number of trials begun, while the ``with`` block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._process, self._stop = folder, psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[dict[str, float]] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            self._add()
        self._add()

    def _add(self) -> None:
        begun = len(os.listdir(self._folder)) if self._folder.is_dir() else 0
        memory, cpu = self._process.memory_info().rss / 2**20, time.process_time()
        self.samples.append({"time": time.time(), "begun": begun, "rss_mib": memory, "cpu_s": cpu})


def measure(sweep_file: Path, limit_s: float) -> dict[str, Any]:
    sweep = load_sweep(sweep_file)
    own_s = own_seconds([trial.spec for trial in sweep.trials[:NUM_BARE]])
    sweep = dataclasses.replace(sweep, run=dataclasses.replace(sweep.run, time_budget_s=limit_s))
    folder = Path(sweep.run.results) / sweep.name
    with Sampler(folder / "trials") as sampler, open(os.devnull, "w") as nowhere:
        outcome = run_sweep(sweep, functions=STUBS, console=Console(file=nowhere))
    if outcome.failed:
        raise RuntimeError(f"{len(outcome.failed)} stub trials failed: {next(iter(outcome.failed.values()))}")
    ended = sorted((r for r in Ledger(folder).trials() if r["status"] == "finished"), key=lambda record: record["finished"])
    first = min(record["started"] for record in ended)
    return {
        "planned": len(sweep.trials), "finished": len(ended), "concurrent": sweep.run.max_concurrent, "own_s": own_s,
        "wall_s": ended[-1]["finished"] - first, "finished_at_s": [round(r["finished"] - first, 2) for r in ended],
        "samples": [{**s, "time": round(s["time"] - first, 1)} for s in sampler.samples],
        "workers": [r["evaluations"][-1]["confidences"]["worker"] for r in ended],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), float(sys.argv[2]))))
