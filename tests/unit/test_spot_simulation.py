"""The simulation of spot GPUs: work is conserved, bounds of list scheduling hold, and its stages are the project's own."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.spot.fleet import Fleet, Outcome, distinct_seconds, simulate
from benchmarks.spot.study import MODES, specs_of, study
from benchmarks.spot.work import Step, Trial, read_times, trials_as_steps
from timbre_ray.stage_keys import StageKeys

RATES = (0.0, 0.5, 2.0)


def chain(name: str, *steps: tuple[str, float, bool]) -> Trial:
    """Steps as (key, seconds, trains); those of all trials begin with ``all-``."""
    keys = [key if key.startswith("all-") else f"{name}-{key}" for key, _, _ in steps]
    return tuple(Step(name=k, key=k, needs=(), seconds=s, trains=t) for k, (_, s, t) in zip(keys, steps, strict=True))


def made_up(num: int) -> list[Trial]:
    """One stage that all share, then training with clips between its two scored steps; no two trials last alike."""
    return [
        chain(f"t{i}", ("all-clips", 700.0, False), ("train-25", 150.0 + 7 * i, True), ("clips-25", 400.0, False),
              ("train-300", 1900.0, True), ("clips-300", 400.0 + i, False))
        for i in range(num)
    ]  # fmt: skip


def every_mode(trials: list[Trial], rate: float, seed: int = 0) -> dict[str, Outcome]:
    fleets = {mode: Fleet(num_gpus=5, interruptions_a_gpu_hour=rate, seed=seed, **settings) for mode, settings in MODES.items()}
    return {mode: simulate(trials, fleet) for mode, fleet in fleets.items()}


@pytest.fixture(scope="module")
def real() -> list[Trial]:
    return trials_as_steps(specs_of(1), read_times(), factor=20.0)


@pytest.mark.parametrize("num_gpus", [1, 4, 7])
def test_without_interruptions_it_is_a_list_schedule(num_gpus: int) -> None:
    """Graham's bounds; nothing is wasted."""
    trials = made_up(12)
    for shares in (True, False):
        outcome, work = simulate(trials, Fleet(num_gpus=num_gpus, shares=shares)), distinct_seconds(trials, shares=shares)
        longest = max(sum(step.seconds for step in trial) for trial in trials)
        assert outcome.computed_s == pytest.approx(work) and outcome.repeated_s == outcome.down_s == 0
        assert work / num_gpus <= outcome.makespan_s + 1e-6
        assert outcome.makespan_s <= (work + outcome.waiting_s) / num_gpus + longest
        assert (outcome.waiting_s > 0) == (shares and num_gpus > 1), "they wait for the one stage that all need"


def test_one_gpu_does_one_thing_after_another() -> None:
    trials = made_up(3)
    assert simulate(trials, Fleet(num_gpus=1)).makespan_s == pytest.approx(distinct_seconds(trials))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_work_is_conserved(rate: float, seed: int, real: list[Trial]) -> None:
    """What was computed is what had to be, and what was lost, which is counted at another place of the code."""
    for trials in (made_up(12), real):
        for mode, outcome in every_mode(trials, rate, seed).items():
            work = distinct_seconds(trials, shares=MODES[mode]["shares"])
            assert outcome.computed_s == pytest.approx(work + outcome.repeated_s), mode
            assert (outcome.repeated_s > 0) <= (outcome.num_interruptions > 0), mode
            assert outcome.makespan_s * 5 >= outcome.computed_s - 1e-6, mode


@pytest.mark.parametrize("rate", RATES)
def test_sharing_is_never_more_work_and_keeping_more_never_wastes_more(rate: float, real: list[Trial]) -> None:
    draws = [every_mode(real, rate, seed) for seed in range(4)]
    for found in draws:
        assert found["shared stages, checkpoints"].computed_s <= found["each trial for itself, checkpoints"].computed_s
    ways = [f"each trial for itself, {what}" for what in ("checkpoints", "no checkpoints", "nothing kept")]
    wasted = [sum(found[way].repeated_s for found in draws) for way in ways]
    assert wasted == sorted(wasted) and (wasted[0] < wasted[2]) == (rate > 0)


def test_a_checkpoint_bounds_what_an_interruption_costs() -> None:
    """Training loses at most what lies between two checkpoints; other stages what they had."""
    trials = [chain("t", ("train-300", 50_000.0, True))]
    for seed in range(5):
        fleet = Fleet(num_gpus=1, interruptions_a_gpu_hour=1.0, checkpoint_s=60.0, restart_s=30.0, seed=seed)
        outcome = simulate(trials, fleet)
        assert outcome.num_interruptions > 0 and 0 < outcome.repeated_s < 60.0 * outcome.num_interruptions
        assert outcome.makespan_s == pytest.approx(outcome.computed_s + 30.0 * outcome.num_interruptions)


def test_the_stages_are_the_projects_own(real: list[Trial]) -> None:
    """Each trial has the stages that a plan counts, after what they need, and shares those whose keys are equal."""
    specs = specs_of(1)
    for spec, trial in zip(specs, real, strict=True):
        assert {step.key for step in trial} == {stage.key for stage in StageKeys(spec).all()}
        seen: set[str] = set()
        for step in trial:
            assert set(step.needs) <= seen, f"{step.name} comes before what it needs"
            seen.add(step.key)
        scored = [step.name for step in trial if step.name in ("dreambooth", "generate", "score")]
        assert [name for name, _ in itertools.groupby(scored)] == ["generate", "score"] + ["dreambooth", "generate", "score"] * 2
    assert distinct_seconds(real) < 0.9 * distinct_seconds(real, shares=False)


def test_a_study_has_a_row_for_each_rate_and_way() -> None:
    found = study(num_gpus=4, days=0.2, rates=(0.0, 1.0))
    assert [row["mode"] for row in found["rows"]] == [*(m for m in MODES if m.endswith(", checkpoints")), *MODES]
    plain, *others = found["rows"]
    assert plain["times_ideal"] == 1 and plain["interruptions"] == 0 and all(row["times_ideal"] > 1 for row in others)
    assert found["ideal_days"] >= found["bound_days"] and found["bound_days"] >= 0.2
