"""Drives trials on the miniature and writes down every optimizer step: ``python -m tests.survival.counted ADDRESS SWEEP``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.integration.stub_functions import baseline, prepare_scoring
from timbre_ray.cluster import functions
from timbre_ray.cluster.resources import ray_session
from timbre_ray.cluster.run import run_sweep
from timbre_ray.sweep import load_sweep

#: Of a step, so that a notice meets the training in the middle.
PAUSE_S = 0.4


def trial(spec, *, worker, store, score, on_progress, companions):
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps = store.root.parent / "steps"

    def count(*_) -> None:
        time.sleep(PAUSE_S)
        with steps.open("a") as file:
            file.write(f"{os.getpid()}\n")

    handle = register_optimizer_step_post_hook(count)
    try:
        yield from functions.run_trial(
            spec, worker=worker, store=store, score=score, on_progress=on_progress, companions=companions
        )
    finally:
        handle.remove()


def score(request, *, worker, store):
    return {"num_clips": 2, "metrics": {"fad_held_out": 1.0}, "confidences": {}}


def main(address: str, path: str) -> int:
    with ray_session(address=address, threads=1):
        bundle = functions.Functions(trial=trial, score=score, baseline=baseline, prepare_scoring=prepare_scoring)
        return run_sweep(load_sweep(Path(path)), address=address, functions=bundle).exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
