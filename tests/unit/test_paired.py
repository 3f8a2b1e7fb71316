"""Paired differences and verdicts: by hand, and over a thousand simulated sweeps with known effects and known nulls."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.unit.test_report import null, planted, write_sweep
from timbre_ray import report
from timbre_ray.report import comparisons
from timbre_ray.report.comparisons import Contrast
from timbre_ray.report.paired import paired_difference
from timbre_ray.report.results import load

TARGETS, NUM_SEEDS, NUM_ARMS, NUM_SWEEPS = ("one", "two"), 3, 5, 1000


def test_one_target_is_the_paired_t_test() -> None:
    one, other = np.array([3.0, 4.5, 2.0, 6.0]), np.array([2.0, 5.0, 1.5, 3.5])
    found = paired_difference({"mine": one - other})
    assert found.p_value == pytest.approx(stats.ttest_rel(one, other).pvalue)
    assert found.interval == pytest.approx(stats.ttest_rel(one, other).confidence_interval(0.95))


def test_what_differs_between_targets_is_not_spread() -> None:
    found = paired_difference({"one": [-1.0, -1.2, -0.8], "two": [-9.0, -9.2, -8.8]})
    assert found.mean == pytest.approx(-5.0)
    assert found.spread == pytest.approx(0.2)  # within each target
    half = stats.t.ppf(0.975, 4) * 0.2 * math.sqrt(2 / 3) / 2
    assert found.interval == pytest.approx((-5 - half, -5 + half))


def test_targets_weigh_alike_whatever_their_seeds() -> None:
    found = paired_difference({"one": [1.0], "two": [3.0, 5.0]})
    assert (found.mean, found.num_pairs, found.degrees_of_freedom) == (2.5, 3, 1)
    assert found.standard_error == pytest.approx(math.sqrt(2) * math.sqrt(1 + 1 / 2) / 2)


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    found = paired_difference({"one": [1.0], "two": [3.0]})
    assert (found.interval, found.p_value, found.num_more_seeds(1.0)) == (None, None, None)


def test_more_seeds_are_what_the_power_formula_says() -> None:
    found = paired_difference({"mine": [-1.0, 0.0, 1.5]})  # mean 1/6, spread 1.258
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    wanted = math.ceil((z * found.spread / (1 / 6)) ** 2)
    assert found.num_more_seeds(margin=0.2) == wanted - 3
    assert found.num_more_seeds(margin=1.0) < wanted - 3  # sooner shown to be level
    assert paired_difference({"mine": [0.0, 0.0]}).num_more_seeds(0.1) is None


def simulate(effects: np.ndarray, seed: int) -> list[Contrast]:
    """One sweep: a baseline and NUM_ARMS arms, each with its effect, a level of its own on each target, noise between seeds."""
    generator = np.random.default_rng([2026, seed])
    base = {t: 10 * (i + 1) + generator.normal(0, 1, NUM_SEEDS) for i, t in enumerate(TARGETS)}
    drafts = []
    for arm, effect in enumerate(effects):
        own = {t: 10 * (i + 1) + effect + (i - 0.5) * arm + generator.normal(0, 1, NUM_SEEDS) for i, t in enumerate(TARGETS)}
        difference = paired_difference({t: own[t] - base[t] for t in TARGETS})
        drafts.append(
            Contrast(metric=comparisons.FAD, arm=str(arm), baseline="base", arm_mean=0.0, baseline_mean=15.0,
                     difference=difference, margin=0.3, p_adjusted=None)
        )  # fmt: skip
    return list(comparisons._corrected(drafts))


def test_a_thousand_sweeps_without_effects_cry_wolf_no_more_than_stated() -> None:
    sweeps = [simulate(np.zeros(NUM_ARMS), seed) for seed in range(NUM_SWEEPS)]
    false = sum(any(c.verdict in ("better", "worse") for c in sweep) for sweep in sweeps)
    assert false <= stats.binom.ppf(0.999, NUM_SWEEPS, comparisons.FALSE_DISCOVERY_RATE)
    assert any(c.p_adjusted < 1 for sweep in sweeps for c in sweep)


def test_intervals_cover_at_the_stated_rate_and_effects_are_found() -> None:
    effects = np.array([0.0, 0.0, -2.0, -6.0, 6.0])
    sweeps = [simulate(effects, seed) for seed in range(NUM_SWEEPS)]
    for arm, effect in enumerate(effects):
        covered = sum(sweep[arm].difference.interval[0] <= effect <= sweep[arm].difference.interval[1] for sweep in sweeps)
        low, high = stats.binom.ppf([0.001, 0.999], NUM_SWEEPS, 0.95)
        assert low <= covered <= high, (arm, covered)
    decided = [c for sweep in sweeps for c in sweep if c.verdict in ("better", "worse")]
    false = [c for c in decided if effects[int(c.arm)] == 0]
    assert len(false) / len(decided) <= comparisons.FALSE_DISCOVERY_RATE
    assert sum(sweep[3].verdict == "better" for sweep in sweeps) > 0.95 * NUM_SWEEPS
    assert sum(sweep[4].verdict == "worse" for sweep in sweeps) > 0.95 * NUM_SWEEPS


def test_planted_effects_get_their_verdicts(tmp_path: Path) -> None:
    found = comparisons.contrast_all(load(write_sweep(tmp_path)[0]))
    assert (found.baseline, len(found.found)) == ("base", 12)  # three scores, four other arms
    verdicts = {(c.metric, c.arm): c.verdict for c in found.found}
    assert verdicts["partner_confidence", "base-prior"] == "better"
    assert verdicts["fad_held_out", "base-lora"] == "worse"
    assert verdicts["fad_held_out", "base-prior"] == "level"
    assert "base-lora" in (comparisons.sentence(found) or "")


def test_noise_asks_for_more_seeds(tmp_path: Path) -> None:
    found = comparisons.contrast_all(load(write_sweep(tmp_path, null)[0])).found
    assert {c.verdict for c in found} <= {"cannot be told apart", "level"}
    assert any("more seed" in c.verdict_text for c in found)


def test_another_baseline_and_margin(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    report.build(folder, store, tmp_path / "out", baseline="base-lora", margin=5.0)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Every arm against base-lora" in text and "within 500%" in text
    assert (tmp_path / "out" / "tables" / "comparisons.csv").read_text().count("base-lora") == 12
    with pytest.raises(ValueError, match=r"baseline='base-lore': no such arm with a finished trial; nearest: base-lora"):
        report.build(folder, store, tmp_path / "out", baseline="base-lore")
    with pytest.raises(ValueError, match="margin=0: must be above 0"):
        report.build(folder, store, tmp_path / "out", margin=0)


def test_one_arm_has_nothing_to_compare(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, planted, arms=("base",))
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert 'id="comparisons"' not in page
