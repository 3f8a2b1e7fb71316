"""Runs the sweeps named on the command line with stub trials, in one Ray session: a process has only one."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

import stub_functions
from ray import cloudpickle

from timbre_ray.cluster.resources import ray_session
from timbre_ray.cluster.run import run_sweep
from timbre_ray.sweep import load_sweep

if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(stub_functions)  # the workers cannot import the tests
    with ray_session(address=None, threads=1):
        for path in sys.argv[1:]:
            outcome = run_sweep(load_sweep(Path(path)), functions=stub_functions.STUBS)
            print(f"kept {outcome.num_kept}, finished {len(outcome.finished)}, failed {len(outcome.failed)}")
