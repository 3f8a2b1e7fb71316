"""A driver as a process of its own: ``python -m tests.survival.drive ADDRESS SWEEP...`` runs the sweeps with stub trials."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.survival.stub import STUBS
from timbre_ray.cluster.functions import Functions
from timbre_ray.cluster.resources import ray_session
from timbre_ray.cluster.run import run_sweep
from timbre_ray.sweep import load_sweep


def drive(functions: Functions, address: str, *paths: str) -> int:
    """Runs the sweeps one after another; prints why trials failed, and returns the exit code."""
    with ray_session(address=address, threads=1):
        outcomes = [run_sweep(load_sweep(Path(path)), address=address, functions=functions) for path in paths]
    for outcome in outcomes:
        print(*outcome.failed.values(), sep="\n")
    return max(outcome.exit_code for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(drive(STUBS, *sys.argv[1:]))
