"""Effects of factors: by hand, over a thousand simulated sweeps with known effects and nulls, and in every form of the report."""

from __future__ import annotations

import copy
import csv
import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.unit.test_paired import by_pair
from tests.unit.test_report import trial_record
from timbre_ray import report
from timbre_ray.ablation import AblationSpec
from timbre_ray.ledger import Ledger
from timbre_ray.report import effect_figure, effect_forms, effects
from timbre_ray.report.comparisons import FALSE_DISCOVERY_RATE
from timbre_ray.report.paired import PairedDifference, adjusted, effects_of, paired_difference
from timbre_ray.report.results import load

NUM_SWEEPS, NUM_SEEDS, TARGETS = 1000, 3, ("one", "two")
SCORES = ("fad_held_out", "duet_partner_rank", "partner_confidence", "fad_train", "fad_held_out/clap")
FADS: Mapping[tuple[str, ...], float] = {(): 10.0, ("teacher",): 8.0, ("prior",): 11.0, ("teacher", "prior"): 6.0}


def design_of(design: str, factors: tuple[str, ...] = ("teacher", "prior")) -> AblationSpec:
    return AblationSpec(factors={name: {f"dreambooth.{name}": 1} for name in factors}, design=design)


def write(
    folder: Path, ablation: AblationSpec, fad: Callable[[str, int, int], float], seeds: tuple[int, ...] = (0, 1, 2)
) -> Path:
    """A ledger of the design's arms. fad: (arm, number of the target, seed) -> what all its scores are made of."""
    ledger, planned = Ledger(folder / "results"), []
    for (number, target), seed, arm in itertools.product(enumerate(TARGETS), seeds, ablation.arms):
        value = fad(arm, number, seed)
        scores = {name: value for name in SCORES} | {"partner_confidence": value / 20}
        record = trial_record("base", target, seed, lambda *_: scores)  # noqa: B023
        record |= {"arm": arm, "trial_id": f"{arm}-{target}-s{seed}"}
        planned.append(record["trial_id"])
        ledger.write_trial(record)
    arms = {arm: list(on) for arm, on in ablation.arms.items()}
    ledger.write_sweep({"name": "factors", "arms": list(arms), "planned": planned, "text": "", "run": {},
                        "ablation": {"design": ablation.design, "arms": arms}})  # fmt: skip
    return ledger.folder


def planted(ablation: AblationSpec, noise: float = 0.01) -> Callable[[str, int, int], float]:
    """FADS, a level of its own for each target and seed, and a little noise that differs from arm to arm."""

    def fad(arm: str, target: int, seed: int) -> float:
        jitter = noise * math.sin(1 + 7 * seed + 3 * len(arm) + target)
        return FADS[tuple(ablation.arms[arm])] + 5 * target + seed + jitter

    return fad


def test_effects_of_a_factorial_by_hand(tmp_path: Path) -> None:
    spec = design_of("factorial")
    found = effects.gather(load(write(tmp_path, spec, planted(spec, noise=0.0))))
    assert found is not None and len(found.found) == 3 * len(SCORES)
    teacher, prior, both = (e for e in found.found if e.metric == "fad_held_out")
    assert (teacher.name, prior.name, both.name) == ("teacher", "prior", "teacher × prior")
    level = 3.5  # means of both targets' and all seeds' own levels: 2.5 and 1
    assert (teacher.off, teacher.on, teacher.difference.mean) == pytest.approx((10.5 + level, 7.0 + level, -3.5))
    assert (prior.off, prior.on, prior.difference.mean) == pytest.approx((9.0 + level, 8.5 + level, -0.5))
    assert (both.off, both.on, both.difference.mean) == pytest.approx((-2.0, -5.0, -3.0))
    assert teacher.difference.is_constant and teacher.difference.num_pairs == 6, "levels of targets and seeds are no spread"
    assert teacher.margin == pytest.approx(0.1 * (10 + level))
    assert teacher.verdict_text == "cannot be told apart: the same at every seed, no test"

    found = effects.gather(load(write(tmp_path / "noisy", spec, planted(spec))))
    verdicts = tuple(e.verdict_text for e in found.found if e.metric == "fad_held_out")
    assert verdicts == ("better", "level", "better together")
    confidence = next(e for e in found.found if e.metric == "partner_confidence")
    assert confidence.verdict_text == "worse", "less of the piano is worse"


@pytest.mark.parametrize(("design", "expected"), [("add_one", (-2.0, 1.0)), ("leave_one_out", (-5.0, -2.0))])
def test_effects_of_the_smaller_designs_by_hand(tmp_path: Path, design: str, expected: tuple[float, float]) -> None:
    """What a factor adds, to the baseline or to the others: of the same sign in either design."""
    spec = design_of(design)
    found = effects.gather(load(write(tmp_path, spec, planted(spec, noise=0.0))))
    own = {e.name: e.difference.mean for e in found.found if e.metric == "fad_held_out"}
    assert own == pytest.approx(dict(zip(("teacher", "prior"), expected, strict=True)))


def test_a_full_factorials_weights_are_orthogonal_contrasts() -> None:
    for num in (1, 2, 3, 4):
        arms = design_of("factorial", tuple("abcd"[:num])).arms
        weights = effects_of("factorial", arms)
        assert len(weights) == num + math.comb(num, 2)
        for one, other in itertools.combinations(weights.values(), 2):
            assert sum(one[arm] * other[arm] for arm in arms) == pytest.approx(0)
        assert all(sum(w.values()) == pytest.approx(0) and max(w.values()) == 2.0 ** (len(of) - num) for of, w in weights.items())


def test_effects_are_those_of_least_squares(tmp_path: Path) -> None:
    """A balanced factorial's main effects are twice the coefficients of coded factors, an interaction four times."""
    spec, generator = design_of("factorial", ("a", "b", "c")), np.random.default_rng(5)
    arms = spec.arms
    values = {arm: generator.normal(10, 3) for arm in arms}
    found = effects.gather(load(write(tmp_path, spec, lambda arm, target, seed: values[arm] + target + seed)))
    coded = np.array([[1 if f in on else -1 for f in "abc"] for on in arms.values()])
    columns = [np.ones(8), *coded.T, *(coded[:, i] * coded[:, j] for i, j in itertools.combinations(range(3), 2)), coded.prod(1)]
    solved = np.linalg.solve(np.array(columns).T, np.array(list(values.values())))
    own = [e.difference.mean for e in found.found if e.metric == "fad_held_out"]
    assert own == pytest.approx([*(2 * solved[1:4]), *(4 * solved[4:7])])


def simulate(of_arm: Mapping[str, float], arms: Mapping[str, tuple[str, ...]], seed: int) -> list[tuple[PairedDifference, float]]:
    """One sweep's effects with their corrected p: levels of targets and seeds, noise in every arm."""
    generator = np.random.default_rng([2026, seed])
    scores = {}
    for target in TARGETS:
        shared = generator.normal(0, 2, NUM_SEEDS)
        for arm, value in of_arm.items():
            scores[arm, target] = 10 + value + shared + generator.normal(0, 1, NUM_SEEDS)
    found = [
        paired_difference(
            by_pair({target: sum(weight * scores[arm, target] for arm, weight in weights.items()) for target in TARGETS})
        )
        for weights in effects_of("factorial", arms).values()
    ]
    return list(zip(found, adjusted([difference.p_value for difference in found]), strict=True))


def test_a_thousand_factorials_without_effects_cry_wolf_no_more_than_stated() -> None:
    arms = design_of("factorial", ("a", "b", "c")).arms
    sweeps = [simulate(dict.fromkeys(arms, 0.0), arms, seed) for seed in range(NUM_SWEEPS)]
    false = sum(any(p < FALSE_DISCOVERY_RATE for _, p in sweep) for sweep in sweeps)
    low, high = stats.binom.ppf([0.001, 0.999], NUM_SWEEPS, FALSE_DISCOVERY_RATE)
    assert low <= false <= high, false  # orthogonal contrasts: the rate is met, not only kept
    alone = sum(found.p_value < 0.05 for sweep in sweeps for found, _ in sweep)
    assert stats.binom.ppf(0.001, 6 * NUM_SWEEPS, 0.05) <= alone <= stats.binom.ppf(0.999, 6 * NUM_SWEEPS, 0.05)


def test_known_effects_and_interactions_are_recovered() -> None:
    """a: -4 alone, and -3 more where b is on; b: +2 alone; c: nothing."""
    arms = design_of("factorial", ("a", "b", "c")).arms
    of_arm = {arm: -4.0 * ("a" in on) + 2.0 * ("b" in on) - 3.0 * ({"a", "b"} <= {*on}) for arm, on in arms.items()}
    truth = [-4 - 1.5, 2 - 1.5, 0.0, -3.0, 0.0, 0.0]
    sweeps = [simulate(of_arm, arms, seed) for seed in range(NUM_SWEEPS)]
    low, high = stats.binom.ppf([0.001, 0.999], NUM_SWEEPS, 0.95)
    for place, true in enumerate(truth):
        found = [sweep[place][0] for sweep in sweeps]
        covered = sum(f.interval[0] <= true <= f.interval[1] for f in found)
        assert low <= covered <= high, (place, covered)
        error = np.std([f.mean for f in found]) / math.sqrt(NUM_SWEEPS)
        assert abs(np.mean([f.mean for f in found]) - true) < 4 * error, place
    decided = [(p < FALSE_DISCOVERY_RATE, true) for sweep in sweeps for (_, p), true in zip(sweep, truth, strict=True)]
    false = [shown for shown, true in decided if true == 0 and shown]
    assert len(false) / sum(shown for shown, _ in decided) <= FALSE_DISCOVERY_RATE
    assert sum(sweep[0][1] < FALSE_DISCOVERY_RATE for sweep in sweeps) > 0.95 * NUM_SWEEPS
    assert sum(sweep[3][1] < FALSE_DISCOVERY_RATE for sweep in sweeps) > 0.3 * NUM_SWEEPS


def test_seeds_without_all_arms_are_left_out(tmp_path: Path) -> None:
    spec = design_of("factorial")
    folder = write(tmp_path, spec, planted(spec))
    ledger = Ledger(folder)
    ledger.write_trial({**ledger.trial("prior-one-s1"), "status": "failed"})
    found = effects.gather(load(folder))
    assert {e.difference.num_pairs for e in found.found} == {5}
    for seed, target in itertools.product((0, 1, 2), TARGETS):
        ledger.write_trial({**ledger.trial(f"baseline-{target}-s{seed}"), "status": "running"})
    none = effects.gather(load(folder))
    assert none.found == () and none.sentence.startswith("No seed has finished all of the arms")


def test_one_seed_has_effects_and_no_verdict(tmp_path: Path) -> None:
    spec = design_of("factorial")
    found = effects.gather(load(write(tmp_path, spec, planted(spec), seeds=(0,))))
    assert {e.verdict_text for e in found.found} == {"cannot be told apart"} and "no interval" in found.sentence
    assert effect_figure.draw_all(found) == ()


def test_other_settings_of_the_grid_are_averaged_over(tmp_path: Path) -> None:
    spec = design_of("add_one", ("teacher",))
    folder = write(tmp_path, spec, lambda arm, target, seed: 10.0 - 2 * (arm == "teacher") + seed)
    ledger = Ledger(folder)
    for record in ledger.trials():
        point = {**record["point"], "dreambooth.lr": 1e-3}
        fast = copy.deepcopy(record) | {"trial_id": f"{record['trial_id']}-fast", "point": point}
        for evaluation in (e for e in fast["evaluations"] if record["arm"] == "teacher"):
            evaluation["metrics"] = {name: value - 4 for name, value in evaluation["metrics"].items()}
        ledger.write_trial(fast)
        ledger.write_trial({**record, "point": {**record["point"], "dreambooth.lr": 1e-5}})
    names = [record["trial_id"] for record in ledger.trials()]
    ledger.write_sweep({**ledger.sweep(), "planned": names})
    results = load(folder)
    assert len(results.arms) == 4, "two arms at two rates"
    (teacher,) = (e for e in effects.gather(results).found if e.metric == "fad_held_out")
    assert teacher.difference.mean == pytest.approx(-4.0) and teacher.difference.num_pairs == 6  # -2 and -6
    ledger.write_trial({**ledger.trial("teacher-one-s1-fast"), "status": "failed"})
    (teacher,) = (e for e in effects.gather(load(folder)).found if e.metric == "fad_held_out")
    assert teacher.difference.mean == pytest.approx(-4.0) and teacher.difference.num_pairs == 5, "not that of one setting alone"


def test_sides_are_of_the_targets_whose_difference_is_told(tmp_path: Path) -> None:
    spec = design_of("add_one", ("teacher",))
    folder = write(tmp_path, spec, lambda arm, target, seed: 10.0 - 2 * (arm == "teacher") + seed + 50 * target)
    ledger = Ledger(folder)
    for seed in (1, 2):  # of the second target one seed is left: it has no spread
        ledger.write_trial({**ledger.trial(f"teacher-two-s{seed}"), "status": "failed"})
    (teacher,) = (e for e in effects.gather(load(folder)).found if e.metric == "fad_held_out")
    assert teacher.difference.num_pairs == 3 and (teacher.off, teacher.on) == pytest.approx((11.0, 9.0))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, spec = tmp_path_factory.mktemp("effects"), design_of("factorial")
    report.build(write(folder, spec, planted(spec)), folder / "store", folder / "out")
    return folder / "out"


def test_every_form_has_the_same_figures(built: Path) -> None:
    with (built / "tables" / "effects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 15
    teacher = next(line for line in lines if line["metric"] == "fad_held_out" and line["effect"] == "teacher")
    frame = pd.read_parquet(built / "tables" / "effects.parquet")
    same = frame[(frame["metric"] == "fad_held_out") & (frame["effect"] == "teacher")].iloc[0]
    assert float(teacher["difference"]) == same["difference"] and float(teacher["p_adjusted"]) == same["p_adjusted"] < 0.001
    shown = f"{float(teacher['difference']):.2f}".replace("-", "−")
    assert re.search(rf"\| FAD \(held-out\) \| teacher \|.*\| {shown} \|.*\| better \|", (built / "report.md").read_text())
    tex = (built / "tables" / "effects.tex").read_text()
    assert r"teacher $\times$ prior" in tex and shown.replace("−", "$-$") in tex
    rows = [line for line in tex.splitlines() if line.startswith(("teacher", "prior"))]
    assert len(rows) == 15 and all(line.count(" & ") == len(effect_forms.HEADERS) - 1 for line in rows)


def test_the_page_shows_effects_before_the_claims(built: Path) -> None:
    page = (built / "index.html").read_text()
    assert page.index('id="effects"') < page.index('id="claims"') and '<a href="#effects">' in page
    section = page[page.index('id="effects"') : page.index('id="claims"')]
    assert section.count("<svg") == 3 and section.count("</title><desc") == 3
    assert re.search(r"<desc[^>]*>Effect and 95 % interval\. teacher: −3\.5\d \(", section) and "2 other scores" in section
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for color in effect_figure.SERIES:  # every colour is the page's own, so that it follows light and dark
        assert re.sub(rf"var\(--series-\d, {color}\)", "", section).count(color) == 0


def test_a_sweep_with_arms_has_no_section_and_no_file(tmp_path: Path) -> None:
    from tests.unit.test_report import write_sweep

    folder, store = write_sweep(tmp_path, arms=("base",), seeds=(0,))
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert 'id="effects"' not in page and not (tmp_path / "out" / "tables" / "effects.csv").exists()


def test_a_wide_design_has_its_figures_as_a_table_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = design_of("factorial")
    found = effects.gather(load(write(tmp_path, spec, planted(spec))))
    assert len(effect_figure.draw_all(found)) == 3
    monkeypatch.setattr(effect_figure, "MAX_LINES", 2)
    assert effect_figure.draw_all(found) == ()
