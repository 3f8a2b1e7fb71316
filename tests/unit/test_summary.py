"""The first lines of a report: its own question first, means with their spread, no claims that no arm speaks to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit import test_effects, test_importances
from tests.unit.test_report import write_sweep
from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report import claims, effects, importances, summary
from timbre_ray.report.findings import Findings
from timbre_ray.report.results import load
from timbre_ray.status import read_status
from timbre_ray.store import Store


def findings_of(folder: Path, tmp_path: Path) -> Findings:
    return report.build_tables(folder, Store(tmp_path / "store"), tmp_path / "tables")


def answer(folder: Path, tmp_path: Path) -> list[str]:
    findings = findings_of(folder, tmp_path)
    return summary.answer(findings, claims.judge_all(findings.results))


def test_means_stand_with_their_spread_and_the_next_arm(tmp_path: Path) -> None:
    told = answer(write_sweep(tmp_path, arms=("base-teacher-mixclass-prior", "base-lora"), targets=("mine",))[0], tmp_path)
    # by hand: a seed more adds 0.112 and 0.04 to what is planted, a tenth of that to the piano's confidence
    assert told[-1] == (
        "On mine, base-teacher-mixclass-prior has the lowest mean FAD (3.00 ± 0.11; next base-lora 5.00 ± 0.04) and keeps "
        "0.92 ± 0.01 confidence in the solo piano (0.90 before training)."
    )


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    told = answer(write_sweep(tmp_path, seeds=(1,), arms=("base", "base-lora"), targets=("mine",))[0], tmp_path)
    assert told[-1] == (
        "On mine, base has the lowest mean FAD (4.00; next base-lora 5.00) and keeps 0.100 confidence in the solo piano "
        "(0.90 before training); base-lora keeps the most (0.50) at FAD 5.00."
    )


def test_claims_that_no_arm_speaks_to_are_not_counted(tmp_path: Path) -> None:
    told = answer(write_sweep(tmp_path, arms=("base-lora", "base-teacher"), targets=("mine",))[0], tmp_path)
    assert len(told) == 2 and "claims" not in " ".join(told)
    told = answer(write_sweep(tmp_path / "more", arms=("base", "base-prior"), targets=("mine",))[0], tmp_path)
    assert told[0] == "Of the paper’s five claims, two hold on these recordings, three were not measured."


def test_an_ablation_answers_with_its_effects(tmp_path: Path) -> None:
    design = test_effects.design_of("factorial")
    folder = test_effects.write(tmp_path, design, test_effects.planted(design))
    found = effects.gather(load(folder))
    told = answer(folder, tmp_path)
    assert found is not None and told[0] == f"Effects of the factors at the last step. {found.sentence}"
    assert "teacher −" in told[0] and "teacher × prior" in told[0]
    assert told[1] == "Of the paper’s five claims, one is not decided, four were not measured."


@pytest.mark.parametrize(("mode", "choose"), [("min", min), ("max", max)])
def test_a_search_answers_with_its_best_trial(tmp_path: Path, mode: str, choose) -> None:
    scores = {"fad_held_out": (test_importances.rate_decides, mode)}
    folder = test_importances.write(tmp_path, scores, num_trials=importances.MIN_TRIALS - 1)
    search = importances.gather(load(folder))
    assert search is not None
    best = choose(search.trials, key=lambda trial: trial.values[0])
    told = answer(folder, tmp_path)
    which = {"min": "lowest", "max": "highest"}[mode]
    assert told[0].startswith(f"Of {len(search.trials)} finished trials, {best.trial_id} has the {which} fad_held_out")
    assert f"{best.values[0]:.2f}" in told[0] and f"dreambooth.steps={best.point['dreambooth.steps']}" in told[0]
    assert ("dreambooth.lora_rank=" in told[0]) == (best.point["dreambooth.method"] == "lora"), "drawn, but not read"
    assert told[1] == search.sentence


def test_a_search_of_one_trial_names_it(tmp_path: Path) -> None:
    folder = test_importances.write(tmp_path, {"fad_held_out": (test_importances.rate_decides, "min")}, num_trials=1)
    assert answer(folder, tmp_path)[0].startswith("Of 1 finished trials, search-000 has the lowest fad_held_out")


def test_a_search_cut_short_has_no_trials_missing(tmp_path: Path) -> None:
    """search.num_trials was lowered after more of them had run; and a failed one is drawn anew."""
    folder = test_importances.write(tmp_path, {"fad_held_out": (test_importances.rate_decides, "min")}, num_trials=5)
    ledger = Ledger(folder)
    ledger.write_sweep({**ledger.sweep(), "planned": 3})
    assert summary.completeness(load(folder)).startswith("5 of 5 planned trials finished, 0 failed, 0 not finished;")
    assert read_status(folder).line == "search (not running): 5 finished, 0 not begun, 5 planned"
    ledger.write_sweep({**ledger.sweep(), "planned": 7})
    assert summary.completeness(load(folder)).startswith("5 of 7 planned trials finished, 0 failed, 2 not finished;")


def test_what_the_trials_cost_is_told_in_minutes(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    ledger = Ledger(folder)
    for number, record in enumerate(ledger.trials()):
        ledger.write_trial({**record, "wall_s": 120.0 if number == 0 else 0.0})
    assert dict(summary.provenance(load(folder)))["trials’ wall time, summed"] == "2.0 min"
