"""Drives one real trial on the miniature, with a checkpoint after every step: ``python -m tests.survival.trained ADDRESS SWEEP``.

``strikes/checkpoint-<step>`` meets the trial when that checkpoint is written but has not taken the place of the one before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.stub_functions import count_call
from tests.survival.drive import drive
from tests.survival.stub import strike
from timbre_ray.cluster import functions

STEPS = 6


def trained_sweep() -> dict[str, Any]:
    """Base and the one arm."""
    few = {"num_clips": 2, "sampler": {"num_inference_steps": 2, "mel_inversion": "griffin_lim"}}
    base = {
        "clips": {"path": "mini:chinese_flute_v1"},
        "dreambooth": {"steps": STEPS, "lr": 1e-4, "batch_size": 1, "gradient_accumulation": 1},
        "evaluate": {"at_steps": [STEPS], **few},
    }
    return {"base": base, "arms": {"a": {}}}


def trial(spec, *, worker, store, score, on_progress, companions) -> Iterator[Any]:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from timbre_ray import training
    from timbre_ray.train import checkpoint

    training.CHECKPOINT_EVERY_S = 0.0
    write_state = checkpoint._dump

    def dump(state: dict[str, Any], file: Any) -> None:
        write_state(state, file)
        file.flush()
        strike(store.root, f"checkpoint-{state['step']}")

    count_call(store.root, f"a-{spec.seed}")
    checkpoint._dump = dump
    counting = register_optimizer_step_post_hook(lambda *_: steps_file(store.root).open("a").write("x"))
    try:
        yield from functions.run_trial(
            spec, worker=worker, store=store, score=score, on_progress=on_progress, companions=companions
        )
    finally:
        counting.remove()
        checkpoint._dump = write_state


def steps_file(store_root: Path) -> Path:
    """One character for each step of the optimizer, by whichever process."""
    return store_root.parent / "steps"


if __name__ == "__main__":
    sys.exit(drive(functions.Functions(trial=trial), *sys.argv[1:]))
