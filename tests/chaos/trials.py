"""The sweeps that are struck: the miniature's own training, or stubs for a quick run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.integration.stub_sweeps import by_token, stub_sweep
from tests.survival.stub import STUBS
from timbre_ray.cluster import functions
from timbre_ray.cluster.functions import Functions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trials:
    name: str
    plain: Functions
    """What the undisturbed run calls."""
    struck: Functions
    """What is struck: the same, but for how often it writes checkpoints."""
    sweep: Callable[[Path], dict[str, Any]]
    """Base and arms, for a folder of clips that stubs never read."""
    pace_s: float
    longest_pause_s: float
    """Between two faults."""
    hang_timeout_s: float
    weights: Mapping[str, int]
    """Kind of fault -> how often it comes in a deck of the schedule."""


def _miniature_trial(spec, *, worker, store, score, on_progress, companions) -> Iterator[Any]:
    from timbre_ray import training

    training.CHECKPOINT_EVERY_S = 0.0  # so few steps are over before the first checkpoint is due
    yield from functions.run_trial(
        spec, worker=worker, store=store, score=score, on_progress=on_progress, companions=companions
    )


def _miniature_sweep(clips: Path) -> dict[str, Any]:
    few = {"num_clips": 2, "sampler": {"num_inference_steps": 2, "mel_inversion": "griffin_lim"}}
    base = {
        "backbone": {"name": "mini"},
        "clips": {"path": "mini:chinese_flute_v1"},
        "dreambooth": {"steps": 8, "lr": 1e-4, "batch_size": 1, "gradient_accumulation": 1, "num_class_clips": 2},
        "evaluate": {"at_steps": [0, 4, 8], **few},
    }
    return {"base": base, "arms": {"direct": {}, "mixed": {"teacher": {"epochs": 1}, "dreambooth": {"method": "mixclass-prior"}}}}


#: What can be struck again and again while a sweep runs (faults.KINDS).
_WEIGHTS = {
    "worker": 3, "worker-notice": 2, "worker-stop": 2, "scorer": 2, "scorer-stop": 1, "driver": 2, "driver-notice": 1,
    "driver-stop": 1, "node": 2, "head": 1, "bit-flip": 3, "full-disk": 2, "io-error": 2, "same-sweep": 1, "same-store": 1,
    "garbage": 1, "nan": 1, "hang": 1,
}  # fmt: skip

STUB_TRIALS = Trials(
    name="stubs",
    plain=STUBS,
    struck=STUBS,
    sweep=lambda clips: stub_sweep(clips, arms=by_token("a", "b", "c"), steps=(0, 10, 20, 30)),
    pace_s=0.7,
    longest_pause_s=3.0,
    hang_timeout_s=15.0,
    weights=_WEIGHTS,
)
MINIATURE_TRIALS = Trials(
    name="miniature",
    plain=Functions(),
    struck=Functions(trial=_miniature_trial),
    sweep=_miniature_sweep,
    pace_s=0.0,
    longest_pause_s=8.0,
    hang_timeout_s=90.0,
    weights=dict.fromkeys([*_WEIGHTS, "checkpoint"], 1),  # each takes long: every kind before one comes again
)
TRIALS = {trials.name: trials for trials in (STUB_TRIALS, MINIATURE_TRIALS)}
