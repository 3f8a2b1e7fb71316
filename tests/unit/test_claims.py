"""What the report may say of the paper's claims: never more than the arms, seeds and clips at hand can carry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.test_report import ARMS, fail, planted, trial_record, verdicts, write_sweep
from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report import claims, comparisons
from timbre_ray.report.claims import FAD, Comparison, Judgement
from timbre_ray.report.numbers import digits_beside, interval_text, mean_and_spread, number, p_text
from timbre_ray.report.paired import PairedDifference, paired_difference
from timbre_ray.report.results import Results, load

NUM_SWEEPS = 1000
Change = Callable[[dict[str, Any]], object]


def altered(folder: Path, arm: str, change: Change) -> Results:
    """The records of an arm changed."""
    ledger = Ledger(folder)
    for record in ledger.trials():
        if record["arm"] == arm:
            record = json.loads(json.dumps(record))
            change(record)
            ledger.write_trial(record)
    return load(folder)


def best(results: Results) -> Judgement:
    return claims.mixclass_with_teacher_is_best(results)


def on_a_grid(folder: Path, rates: Mapping[str, tuple[float, ...]]) -> Results:
    """The finished trials once more at each learning rate of their arm; planned in the order given."""
    ledger, planned = Ledger(folder), []
    for record in ledger.trials():
        (folder / "trials" / f"{record['trial_id']}.json").unlink()
        for rate in rates[record["arm"]]:
            name = f"{record['trial_id']}-{rate}"
            planned.append(name)
            ledger.write_trial({**record, "trial_id": name, "point": {**record["point"], "dreambooth.lr": rate}})
    ledger.write_sweep({**ledger.sweep(), "planned": planned})
    return load(folder)


def test_one_part_of_many_refutes_nothing_by_chance(tmp_path: Path) -> None:
    """Of the five arms, four are compared in two scores: one difference with p of 0.03 among eight is no refutation."""

    def scores(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        noise = np.random.default_rng([len(arm), len(target), seed, step]).normal
        found = {name: 5.0 + float(noise(0, 3.0)) for name in planted(arm, target, seed, step)}
        if step == 300 and arm in ("base", "base-teacher-mixclass-prior"):
            found[FAD] = 5.0 + (arm != "base") * (2.0 + 0.6 * (seed - 1))
        return found

    judgement = best(load(write_sweep(tmp_path, scores, targets=("one",))[0]))
    worst = min(judgement.comparisons, key=lambda c: c.difference.p_value or 1.0)
    assert worst.difference.interval and worst.difference.interval[0] > 0 and worst.difference.p_value < 0.05
    assert worst.p_corrected > 0.05 and worst.outcome == judgement.verdict == "cannot be told apart"
    assert f"the farthest from it: {claims.describe(worst)}" in judgement.sentence


def test_claims_of_many_parts_are_refuted_by_chance_no_more_often_than_stated() -> None:
    """Six arms that are the same, three seeds, two targets and two scores: of mixclass-prior's ten parts one alone is the other
    way at 5 % in every fifth sweep or so."""
    rng, refuted, alone = np.random.default_rng(0), 0, 0
    for _ in range(NUM_SWEEPS):
        scores = 100 + rng.normal(size=(2, 6, 2, 3))  # metric, arm, target, seed
        parts = []
        for metric, other in np.ndindex(2, 5):
            apart = scores[metric, 5] - scores[metric, other]
            found = paired_difference({(str(t), s): float(apart[t, s]) for t, s in np.ndindex(2, 3)})
            parts.append(part(found, right_mean=1.0))
        judgement = claims._by_votes("the last arm is best or level", parts)
        refuted += judgement.verdict == "does not hold"
        alone += any(p.difference.p_value < 0.05 and p.difference.mean > 0 for p in parts)
    assert refuted / NUM_SWEEPS < 0.05 < 0.12 < alone / NUM_SWEEPS


def part(difference: PairedDifference, right_mean: float) -> Comparison:
    return Comparison(
        metric=FAD, score="", wanted="not_higher", left="", right="", left_mean=0.0, right_mean=right_mean, difference=difference,
        distances_apart="", last_steps_apart="",
    )  # fmt: skip


def test_a_rise_within_the_margin_is_level_however_sure_it_is(tmp_path: Path) -> None:
    def scores(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        rise = 0.65 + 0.05 * (seed - 1) if arm == "base-prior" and step == 300 else 0.0
        return {**planted(arm, target, seed, step), FAD: 20.0 + rise}

    results = load(write_sweep(tmp_path, scores)[0])
    (kept,) = (c for c in claims.prior_brings_the_piano_back(results).comparisons if c.metric == FAD)
    assert kept.difference.interval[0] > 0 and kept.outcome == "holds"
    compared = comparisons.contrast_all(results).found
    assert next(c.verdict for c in compared if (c.metric, c.arm) == (FAD, "base-prior")) == "level", "as the other rule says"


def test_arms_that_differ_in_more_than_the_claim_say_nothing_of_it(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    for arm in ARMS:
        altered(folder, arm, lambda record: record["spec"]["dreambooth"].update(lr=1e-4, prior_weight=0.5))
    assert verdicts(load(folder)) == ["holds"] * 5
    unread = altered(folder, "base", lambda record: record["spec"]["dreambooth"].update(prior_weight=1.0))
    assert verdicts(unread) == ["holds"] * 5, "direct reads no prior_weight"
    results = altered(folder, "base-teacher", lambda record: record["spec"]["dreambooth"].update(lr=4e-4))
    assert verdicts(results) == ["not measured", "holds", "holds", "holds", "holds"]
    first, *_, last = claims.judge_all(results)
    apart = "(dreambooth.lr 0.0004 against 0.0001), so nothing is known of it alone."
    assert first.sentence.startswith(f"Its arms differ in more than what it is about {apart}") and first.comparisons, (
        "the numbers are shown all the same"
    )
    assert last.sentence.endswith("The arms also differ in dreambooth.lr 0.0001 against 0.0004.")


@pytest.mark.parametrize(
    "evaluate",
    [
        {"at_steps": [0, 300]}, {"fad": ["vggish", "clap"]}, {"sampler": {"batch_size": 8}}, {"classifier": "/elsewhere/judge"},
    ],
)  # fmt: skip
def test_what_changes_no_score_sets_no_arms_apart(tmp_path: Path, evaluate: dict[str, Any]) -> None:
    folder, _ = write_sweep(tmp_path)
    own = {
        "at_steps": [0, 25, 300],
        "fad": ["vggish"],
        "sampler": {"batch_size": 2},
        "classifier": "/here/judge",
        "num_clips": 24,
    }
    for arm in ARMS:
        altered(folder, arm, lambda record: record["spec"].update(evaluate=own))
    results = altered(folder, "base-prior", lambda record: record["spec"].update(evaluate={**own, **evaluate}))
    assert verdicts(results) == ["holds"] * 5 and not any("differ in" in j.sentence for j in claims.judge_all(results))
    other = altered(folder, "base-prior", lambda record: record["spec"]["evaluate"].update(classifier="/here/another"))
    assert verdicts(other)[2] == "not measured", "another judge"


def test_arms_that_differ_in_nothing_else_are_found_among_others(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    ledger = Ledger(folder)
    for record in ledger.trials():
        record = json.loads(json.dumps(record))
        record["spec"]["dreambooth"]["lr"] = 2e-4
        ledger.write_trial(record)
        if record["arm"] == "base":
            record["spec"]["dreambooth"]["lr"] = 1e-5
            ledger.write_trial({**record, "arm": "base-slow", "trial_id": f"slow-{record['trial_id']}"})
    planned = [record["trial_id"] for record in ledger.trials()]
    ledger.write_sweep({**ledger.sweep(), "arms": ["base-slow", *ARMS], "planned": planned})
    results = load(folder)
    assert verdicts(results)[:4] == ["holds"] * 4
    assert claims.teacher_forcing_lowers_fad(results).comparisons[0].right == "base at step 0"


def test_training_longer_changes_nothing_at_a_step_that_both_have(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    for arm in ARMS:
        altered(folder, arm, lambda record: record["spec"]["dreambooth"].update(steps=300))
    results = altered(folder, "base-teacher", lambda record: record["spec"]["dreambooth"].update(steps=600))
    assert verdicts(results)[0] == "holds"


def test_a_grid_that_gained_a_setting_keeps_its_first_trials(tmp_path: Path) -> None:
    """Their records have no such key in their point; their specs have its value."""
    folder, _ = write_sweep(tmp_path, targets=("one",))
    ledger = Ledger(folder)
    for record in ledger.trials():
        record = json.loads(json.dumps(record))
        record["spec"]["dreambooth"]["lr"] = 1e-4
        ledger.write_trial(record)
        for seed, rate in ((3, 1e-4), (0, 2e-4)):
            point = {**record["point"], "seed": seed, "dreambooth.lr": rate}
            name = f"{record['arm']}-one-s{seed}-{rate}"
            spec = {**record["spec"], "dreambooth": {**record["spec"]["dreambooth"], "lr": rate}}
            ledger.write_trial({**record, "trial_id": name, "seed": seed, "point": point, "spec": spec})
    ledger.write_sweep({**ledger.sweep(), "planned": [record["trial_id"] for record in ledger.trials()]})
    results = load(folder)
    assert set(results.points) == {"dreambooth.lr=0.0001", "dreambooth.lr=0.0002"}
    assert len(results.values("base (dreambooth.lr=0.0001)", FAD, step=None)) == 4, "old and new seeds together"


def test_every_point_of_a_grid_is_judged_alone(tmp_path: Path) -> None:
    """An arm that has begun at one point only is no partner of another at the other point."""
    folder, store = write_sweep(tmp_path)
    rates = {arm: (2e-4, 1e-5) if arm == "base" else (2e-4,) for arm in ARMS}
    results = on_a_grid(folder, rates)
    assert results.points == ("dreambooth.lr=0.0002", "dreambooth.lr=1e-05")
    assert results.arms[0].label == "base (dreambooth.lr=0.0002)"
    found = claims.judge_all(results)
    assert len(found) == 10 and found[0].claim.startswith("At dreambooth.lr=0.0002: Teacher forcing lowers FAD")
    assert [j.verdict for j in found[::2]] == ["holds"] * 5
    assert [j.verdict for j in found[1::2]] == ["not measured", "holds", "not measured", "not measured", "not measured"]
    assert "not begun yet: base-teacher, " in found[1].sentence
    text = report.build(folder, store, tmp_path / "out").read_text()
    assert "Of the paper’s five claims at 2 points of the grid, 6 hold on these recordings, four were not measured." in text


def test_arms_that_have_not_begun_keep_a_claim_open(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    for path in (folder / "trials").glob("base-prior-*.json"):
        path.unlink()
    results = load(folder)
    assert results.not_begun == ("base-prior",)
    assert verdicts(results) == ["holds", "holds", "not measured", "not measured", "cannot be told apart"]
    *_, prior, lora, mixed = claims.judge_all(results)
    assert prior.sentence.endswith("not begun yet: base-prior.")
    assert mixed.sentence.endswith("2 of the comparisons have no pair of finished trials.")


def test_distances_of_other_numbers_of_clips_get_no_verdict(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    results = altered(folder, "base-prior", lambda record: [e.update(num_clips=40) for e in record["evaluations"]])
    contrast = next(c for c in comparisons.contrast_all(results).found if (c.metric, c.arm) == (FAD, "base-prior"))
    assert contrast.verdict_text == "cannot be told apart: 40 clips against 24"
    judgement = claims.prior_brings_the_piano_back(results)
    assert judgement.verdict == "cannot be told apart" and "40 clips against 24" in judgement.sentence
    piano = next(c for c in judgement.comparisons if c.metric == "partner_confidence")
    assert piano.outcome == "holds", "a mean is of as many clips as there are"
    distance = next(c for c in judgement.comparisons if c.metric == FAD)
    assert distance.p_corrected is None and piano.p_corrected == piano.difference.p_value, "it is no test to correct for"
    assert contrast.p_adjusted is None


def test_other_lengths_of_training_are_told_with_the_verdict(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    results = altered(folder, "base-prior", lambda record: record["evaluations"].pop())
    found = comparisons.contrast_all(results).found
    contrast = next(c for c in found if (c.metric, c.arm) == (FAD, "base-prior"))
    assert contrast.verdict_text == "worse (last step 25 against 300)"
    text = report.build(folder, store, tmp_path / "out").read_text()
    assert "base-prior (+4.00, last step 25 against 300)" in text


def test_who_stands_in_for_a_baseline_that_failed_is_said(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    for record in Ledger(folder).trials():
        if record["arm"] == "base":
            fail(folder, record["trial_id"], "a wrong path")
    contrasts = comparisons.contrast_all(load(folder))
    assert (contrasts.baseline, contrasts.instead_of) == ("base-teacher", "base")
    report.build(folder, store, tmp_path / "out")
    for name in ("index.html", "report.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "Against base-teacher (no trial of base has finished) at the last step" in text.replace("\\", "")
        assert "No trial of base, the sweep’s first arm, has finished; base-teacher stands in for it." in text
    assert comparisons.contrast_all(load(folder), baseline="base-prior").instead_of is None


def test_rounding_contradicts_no_verdict() -> None:
    assert interval_text((-0.00103, -0.00037)) == "−0.0010 to −0.0004"
    assert interval_text((0.0004, 2.0)) == "+0.0004 to +2.0000" and interval_text(None) == "–"
    assert interval_text((-0.0004, 2.0)) == "−0.00 to +2.00", "it excludes nothing"
    assert interval_text((-13.2, -5.1)) == "−13.20 to −5.10" and digits_beside((0.0, 0.0)) == 2
    assert number(0.0099, digits=digits_beside((-0.0003, -0.0001))) == "0.0099"
    assert (number(0.05), number(12.345)) == ("0.050", "12.35")
    assert (p_text(0.04996), p_text(0.05), p_text(0.0004), p_text(0.2)) == ("0.04996", "0.050", "< 0.001", "0.200")
    assert (mean_and_spread(0.99991, 0.0001), mean_and_spread(0.998, 0.003)) == ("0.9999 ± 0.0001", "0.998 ± 0.003")
    assert (mean_and_spread(20.3, 1.234), mean_and_spread(0.5, None)) == ("20.30 ± 1.23", "0.50")


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_a_target_of_one_seed_is_named_and_left_out(tmp_path: Path, name: str) -> None:
    folder, store = write_sweep(tmp_path, targets=("one",))
    ledger = Ledger(folder)
    for arm in ARMS:
        ledger.write_trial(trial_record(arm, "two", 0, planted))
    planned = [record["trial_id"] for record in ledger.trials()]
    ledger.write_sweep({**ledger.sweep(), "planned": planned})
    assert verdicts(load(folder)) == ["holds"] * 5
    report.build(folder, store, tmp_path / "out")
    assert "3, without two: one seed" in (tmp_path / "out" / name).read_text()


def test_distances_by_different_embedders_are_not_compared(tmp_path: Path) -> None:
    """``fad_held_out`` is by the first of ``evaluate.fad``, and says not by which."""
    folder, _ = write_sweep(tmp_path)
    for arm in ARMS:
        altered(folder, arm, lambda record: record["spec"].setdefault("evaluate", {}).update(fad=["vggish"]))
    assert claims.prior_brings_the_piano_back(load(folder)).verdict == "holds"
    altered(folder, "base-prior", lambda record: record["spec"]["evaluate"].update(fad=["vggish", "clap"]))
    assert claims.prior_brings_the_piano_back(load(folder)).verdict == "holds", "the first is the same"
    results = altered(folder, "base-prior", lambda record: record["spec"]["evaluate"].update(fad=["clap", "vggish"]))
    judgement = claims.prior_brings_the_piano_back(results)
    assert judgement.verdict == "cannot be told apart" and "by clap against vggish" in judgement.sentence
    (contrast,) = (c for c in comparisons.contrast_all(results).found if c.arm == "base-prior" and c.metric == FAD)
    assert contrast.verdict_text.startswith("cannot be told apart: by clap against vggish") and contrast.p_adjusted is None


def test_the_margin_is_of_the_reference() -> None:
    """The interval reaches above a tenth of the arm's own mean of 11 as little as it must, and above that of the reference."""
    difference = paired_difference({("t", seed): value for seed, value in enumerate((0.98, 1.0, 1.02))})
    found = Comparison(
        metric=FAD, score="FAD", wanted="not_higher", left="a", right="b", left_mean=11.0, right_mean=10.0, difference=difference,
        distances_apart="", last_steps_apart="",
    )  # fmt: skip
    assert difference.interval is not None and 1.0 < difference.interval[1] < 1.1 and found.outcome != "holds"


def test_what_untaught_arms_do_not_read_of_the_teacher_is_no_difference(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path)
    before = [judgement.verdict for judgement in claims.judge_all(load(folder))]
    for arm, lr in (("base", 0.1), ("base-prior", 0.5)):
        results = altered(folder, arm, lambda record: record["spec"].setdefault("teacher", {}).update(lr=lr))  # noqa: B023
    assert [judgement.verdict for judgement in claims.judge_all(results)] == before
