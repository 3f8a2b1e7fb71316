"""The sweep that every part of the measurement uses, at any number of trials."""

from __future__ import annotations

from pathlib import Path

import yaml

#: Trials a seed: five arms, two targets, five rates.
TRIALS_A_SEED = 50
_SWEEP = {
    "name": "scale",
    "base": {
        "clips": {"path": "mini:chinese_flute_v1"},
        "dreambooth": {"steps": 25, "num_class_clips": 4},
        "evaluate": {"at_steps": [0, 25], "num_clips": 4},
    },
    "arms": {
        "direct": {},
        "teacher": {"teacher": {"epochs": 5}},
        "prior": {"dreambooth": {"method": "prior"}},
        "lora": {"dreambooth": {"method": "lora"}},
        "teacher-mixclass-prior": {"teacher": {"epochs": 5}, "dreambooth": {"method": "mixclass_prior"}},
    },
}  # fmt: skip


def write(folder: Path, num_trials: int) -> Path:
    """A sweep of so many trials that keeps its store and its results in ``folder``."""
    if num_trials % TRIALS_A_SEED:
        raise ValueError(f"{num_trials} trials: must be a multiple of {TRIALS_A_SEED} (arms, targets and rates of one seed)")
    grid = {
        "seed": list(range(num_trials // TRIALS_A_SEED)),
        "clips.path": ["mini:chinese_flute_v1", "mini:chinese_flute_v2"],
        "dreambooth.lr": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3],
    }
    run = {
        "resources": {"train": {"cpu": 1}, "score": {"cpu": 0}},
        "max_concurrent": 2, "storage": str(folder / "store"), "results": str(folder / "results"),
    }  # fmt: skip
    path = folder / "scale.yaml"
    sweep = yaml.safe_dump({**_SWEEP, "grid": grid, "run": run}, sort_keys=False)
    path.write_text(f"# Question: what do many trials cost?\n{sweep}")
    return path
