"""A week of work on 64 spot GPUs, at several rates of interruption, with and without checkpoints and shared stages."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import ROOT
from benchmarks.spot.fleet import HOUR_S, Fleet, Outcome, distinct_seconds, simulate
from benchmarks.spot.work import Times, Trial, read_times, trials_as_steps
from timbre_ray.specs import TrialSpec
from timbre_ray.sweep import load_sweep

NUM_GPUS, DAYS = 64, 7
RATES = (0.0, 0.02, 0.05, 0.2)
"""Interruptions a GPU-hour."""
RESTART_S, CHECKPOINT_S = 300.0, 60.0
SEEDS = (0, 1, 2)
LEARNING_RATES = (3e-5, 1e-4, 2e-4, 3e-4, 1e-3)
TRIAL_S = HOUR_S
"""The one scale: what a trial of the plain arm lasts if it shares nothing."""
MODES: dict[str, dict[str, Any]] = {
    "shared stages, checkpoints": {"shares": True, "checkpoint_s": CHECKPOINT_S},
    "shared stages, no checkpoints": {"shares": True, "checkpoint_s": None},
    "each trial for itself, checkpoints": {"shares": False, "checkpoint_s": CHECKPOINT_S},
    "each trial for itself, no checkpoints": {"shares": False, "checkpoint_s": None},
    "each trial for itself, nothing kept": {"shares": False, "checkpoint_s": None, "keeps": False},
}


def specs_of(num_seeds: int) -> list[TrialSpec]:
    """The arms and targets of sweeps/mini-ablation.yaml at five rates, seed after seed."""
    first = [trial.spec for trial in load_sweep(ROOT / "sweeps" / "mini-ablation.yaml").trials if trial.spec.seed == 0]
    return [
        dataclasses.replace(spec, seed=seed, dreambooth=dataclasses.replace(spec.dreambooth, lr=lr))
        for seed in range(num_seeds)
        for lr in LEARNING_RATES
        for spec in first
    ]


def scale(times: Times) -> float:
    (plain,) = trials_as_steps(specs_of(1)[:1], times)
    return TRIAL_S / sum(step.seconds for step in plain)


def seeds_of_a_week(times: Times, factor: float, num_gpus: int, days: float) -> int:
    """The fewest seeds whose distinct work keeps the GPUs busy for so long. A further seed adds as much as the last."""
    one, two = (distinct_seconds(trials_as_steps(specs_of(n), times, factor)) for n in (1, 2))
    return max(1, math.ceil((num_gpus * days * 24 * HOUR_S - one) / (two - one)) + 1)


def study(*, num_gpus: int = NUM_GPUS, days: float = DAYS, rates: Sequence[float] = RATES) -> dict[str, Any]:
    times = read_times()
    factor = scale(times)
    num_seeds = seeds_of_a_week(times, factor, num_gpus, days)
    trials = trials_as_steps(specs_of(num_seeds), times, factor)
    ideal = simulate(trials, Fleet(num_gpus=num_gpus))
    rows = [
        row(trials, mode, rate, ideal=ideal, num_gpus=num_gpus)
        for rate in rates
        for mode in MODES
        if rate or not mode.endswith(("no checkpoints", "nothing kept"))  # which make no difference without interruptions
    ]
    return {
        "num_gpus": num_gpus, "trials": len(trials), "seeds": num_seeds, "factor": factor, "trial_s": TRIAL_S,
        "draws": len(SEEDS), "restart_s": RESTART_S, "checkpoint_s": CHECKPOINT_S, "source": times.source,
        "times": table(times, factor),
        "ideal_days": ideal.makespan_s / 24 / HOUR_S, "ideal_gpu_h": ideal.computed_s / HOUR_S,
        "bound_days": distinct_seconds(trials) / num_gpus / 24 / HOUR_S, "rows": rows,
    }  # fmt: skip


def row(trials: Sequence[Trial], mode: str, rate: float, *, ideal: Outcome, num_gpus: int) -> dict[str, Any]:
    """Means over the draws, and the least and the greatest makespan."""
    draws = SEEDS if rate else SEEDS[:1]
    settings = {"num_gpus": num_gpus, "interruptions_a_gpu_hour": rate, "restart_s": RESTART_S, **MODES[mode]}
    found = [simulate(trials, Fleet(**settings, seed=seed)) for seed in draws]
    mean = {f.name: statistics.mean(getattr(o, f.name) for o in found) for f in dataclasses.fields(Outcome)}
    return {
        "mode": mode, "rate": rate, "days": mean["makespan_s"] / 24 / HOUR_S,
        "times_ideal": mean["makespan_s"] / ideal.makespan_s,
        "range": [bound(o.makespan_s for o in found) / ideal.makespan_s for bound in (min, max)],
        "computed_gpu_h": mean["computed_s"] / HOUR_S, "repeated_gpu_h": mean["repeated_s"] / HOUR_S,
        "beyond_ideal_gpu_h": (mean["computed_s"] - ideal.computed_s) / HOUR_S, "waiting_gpu_h": mean["waiting_s"] / HOUR_S,
        "down_gpu_h": mean["down_s"] / HOUR_S, "interruptions": mean["num_interruptions"],
    }  # fmt: skip


def table(times: Times, factor: float) -> list[dict[str, Any]]:
    """The stages' times as measured and as simulated, a unit of work each."""
    return [
        {
            "stage": stage, "variant": variant, "measured_s": seconds, "simulated_s": seconds * factor,
            "artifacts": times.counts[stage, variant],
        }
        for (stage, variant), seconds in times.seconds.items()
    ]  # fmt: skip
