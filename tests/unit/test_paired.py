"""Paired differences and verdicts: by hand, and over a thousand simulated sweeps with known effects and known nulls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.unit.test_report import null, planted, write_sweep
from timbre_ray import report
from timbre_ray.report import comparisons
from timbre_ray.report.comparisons import Contrast
from timbre_ray.report.paired import MANY_SEEDS, holm, paired_difference, paired_sides
from timbre_ray.report.results import load

TARGETS, NUM_SEEDS, NUM_ARMS, NUM_SWEEPS = ("one", "two"), 3, 5, 1000


def by_pair(differences: Mapping[str, Sequence[float] | np.ndarray]) -> dict[tuple[str, int], float]:
    """Target -> differences at seeds 0, 1, ... as the report has them."""
    return {(target, seed): float(value) for target, values in differences.items() for seed, value in enumerate(values)}


def test_one_target_is_the_paired_t_test() -> None:
    one, other = np.array([3.0, 4.5, 2.0, 6.0]), np.array([2.0, 5.0, 1.5, 3.5])
    found = paired_difference(by_pair({"mine": one - other}))
    assert found.p_value == pytest.approx(stats.ttest_rel(one, other).pvalue)
    assert found.interval == pytest.approx(stats.ttest_rel(one, other).confidence_interval(0.95))


def test_a_seed_is_one_whatever_the_number_of_targets() -> None:
    """Targets' own levels are no spread; what a seed does to all of them at once is, and more targets do not make it less."""
    first = [-1.0, -1.2, -0.8]
    alone = paired_difference(by_pair({"one": first}))
    both = paired_difference(by_pair({"one": first, "two": [value - 8 for value in first]}))
    assert (both.mean, both.num_pairs, both.num_seeds) == (pytest.approx(-5.0), 6, 3)
    assert both.spread == pytest.approx(alone.spread) == pytest.approx(0.2)
    opposed = paired_difference(by_pair({"one": [1.0, 2.0, 3.0], "two": [3.0, 2.0, 1.5]}))
    assert opposed.p_value == pytest.approx(stats.ttest_1samp([2.0, 2.0, 2.25], 0).pvalue), "Student's t over the seeds' means"


def test_targets_weigh_alike_whatever_their_seeds() -> None:
    found = paired_difference(by_pair({"one": [1.0, 2.0], "two": [3.0, 5.0, 4.0]}))
    assert (found.mean, found.num_pairs, found.num_seeds) == (2.75, 5, 2)
    # Each seed's part in the mean: (-0.5 / 2 - 1 / 3) / 2, (0.5 / 2 + 1 / 3) / 2 and 0; two seeds where there are fewest.
    assert found.standard_error == pytest.approx(math.sqrt(2 * 2 * (7 / 24) ** 2))


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    found = paired_difference(by_pair({"one": [1.0], "two": [3.0]}))
    assert (found.interval, found.p_value, found.num_more_seeds(1.0), found.is_constant) == (None, None, None, False)
    assert (found.mean, found.left_out) == (2.0, ())


def test_a_target_of_one_seed_takes_no_interval_from_the_others() -> None:
    found, alone = (paired_difference(by_pair(d)) for d in ({"one": [1.0], "two": [3.0, 4.0, 5.0]}, {"two": [3.0, 4.0, 5.0]}))
    assert found == dataclasses.replace(alone, left_out=("one",))
    assert found.interval and found.pairs_text == "3, without one: one seed"
    left = pd.Series({("one", 0): 7.0, ("two", 0): 1.0, ("two", 1): 2.0}).rename_axis(["target", "seed"])
    assert paired_sides(left, left * 2)[1:] == (1.5, 3.0), "the means are of what is compared"
    assert paired_sides(left, left.iloc[:0]) is None


def test_holm_is_the_textbooks() -> None:
    """Holm 1979: 0.01, 0.04, 0.03, 0.005 -> 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02], nan_ok=True)
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def test_seeds_that_agree_prove_nothing() -> None:
    """Ranks are whole numbers: three seeds that lose one place each have a sign test's p of one quarter, not of zero."""
    for value in (0.0, -1.0, 0.1 + 0.2):
        found = paired_difference(by_pair({"one": [value] * 3, "two": [value - 1] * 3}))
        assert found.is_constant and (found.interval, found.p_value, found.num_more_seeds(1.0)) == (None, None, None)
    assert comparisons.judged(found, margin=10.0, p_adjusted=None, lower_is_better=True) == "cannot be told apart"
    assert comparisons.more_seeds(found, 10.0, "cannot be told apart") == ": the same at every seed, no test"
    assert comparisons.more_seeds(found, 10.0, "better") == ""


@pytest.mark.parametrize("mean, margin", [(1.0, 0.1), (0.05, 1.0), (-0.6, 0.1)])
def test_so_many_more_seeds_decide_as_often_as_stated(mean: float, margin: float) -> None:
    """Studies of the suggested size are drawn, with the difference and its spread as they were observed."""
    seen = paired_difference(by_pair({"mine": mean + np.array([-1.0, 0.0, 1.0])}))
    num_seeds = 3 + (seen.num_more_seeds(margin) or 0)
    drawn = np.random.default_rng(3).normal(mean, seen.spread, (4000, num_seeds))
    error = stats.t.ppf(0.975, num_seeds - 1) * drawn.std(1, ddof=1) / math.sqrt(num_seeds)
    low, high = drawn.mean(1) - error, drawn.mean(1) + error
    decided = np.mean((low > 0) | (high < 0) | ((low > -margin) & (high < margin)))
    assert 0.78 < decided < 0.90, decided
    assert paired_difference(by_pair({"mine": [-1.0, 0.0, 1.001]})).num_more_seeds(1e-9) == MANY_SEEDS


def draw_levels(effect: float, shared: float, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Differences on two targets at NUM_SEEDS seeds; ``shared``: share of the variance that a seed gives both."""
    seeds = generator.normal(0, math.sqrt(shared), NUM_SEEDS)
    return {t: 3.0 * i + effect + seeds + generator.normal(0, math.sqrt(1 - shared), NUM_SEEDS) for i, t in enumerate(TARGETS)}


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.98])
def test_intervals_cover_whatever_the_targets_share(shared: float) -> None:
    """Two targets at one seed share class audio and noise: on the miniature's ablation they go together by up to 0.98."""
    covered, num_sweeps = 0, 4 * NUM_SWEEPS
    for sweep in range(num_sweeps):
        low, high = paired_difference(by_pair(draw_levels(1.0, shared, np.random.default_rng([11, sweep])))).interval
        covered += low <= 2.5 <= high  # the targets' mean effect
    least, most = stats.binom.ppf([0.001, 0.999], num_sweeps, 0.95)
    assert least <= covered <= most, covered


def simulate(effects: np.ndarray, seed: int) -> list[Contrast]:
    """One sweep: a baseline and NUM_ARMS arms, each with its effect, a level of its own on each target, noise between seeds."""
    generator = np.random.default_rng([2026, seed])
    base = {t: 10 * (i + 1) + generator.normal(0, 1, NUM_SEEDS) for i, t in enumerate(TARGETS)}
    drafts = []
    for arm, effect in enumerate(effects):
        own = {t: 10 * (i + 1) + effect + (i - 0.5) * arm + generator.normal(0, 1, NUM_SEEDS) for i, t in enumerate(TARGETS)}
        difference = paired_difference(by_pair({t: own[t] - base[t] for t in TARGETS}))
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
    effects = np.array([0.0, 0.0, -2.0, -10.0, 10.0])
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
