"""Importances and parallel coordinates on real Optuna studies of stub evaluations whose answer is known."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from tests.unit.test_report import trial_record
from timbre_ray import report
from timbre_ray.cluster.run import _sweep_record
from timbre_ray.ledger import Ledger
from timbre_ray.report import importances, parallel
from timbre_ray.report.importances import MIN_TRIALS, Search
from timbre_ray.report.results import load
from timbre_ray.run_specs import RangeSpec
from timbre_ray.search_space import distributions
from timbre_ray.sweep import load_sweep

ROOT = Path(__file__).parents[2]
SPACE = {
    "dreambooth.method": RangeSpec(
        type="categorical", choices=("direct", "prior", "mixclass-prior", "chineseclass-prior", "lora")
    ),
    "dreambooth.lr": RangeSpec(type="float", low=1e-5, high=1e-3, log=True),
    "dreambooth.prior_weight": RangeSpec(type="float", low=0.1, high=3.0),
    "dreambooth.lora_rank": RangeSpec(type="int", low=2, high=16, log=True),
    "dreambooth.steps": RangeSpec(type="int", low=100, high=300),
}
Score = Callable[[dict[str, Any], np.random.Generator], float]


def rate_decides(point: dict[str, Any], generator: np.random.Generator) -> float:
    """Distance: least near a rate of 1e-4; the number of steps helps a little."""
    return 5 + 2 * (math.log10(point["dreambooth.lr"]) + 4) ** 2 - 0.001 * point["dreambooth.steps"] + generator.normal(0, 0.15)


def method_decides(point: dict[str, Any], generator: np.random.Generator) -> float:
    return SPACE["dreambooth.method"].choices.index(point["dreambooth.method"]) / 4 + generator.normal(0, 0.05)


def nothing_decides(point: dict[str, Any], generator: np.random.Generator) -> float:
    return float(generator.normal())


def write(folder: Path, scores: dict[str, tuple[Score, str]], num_trials: int = 30, seed: int = 0) -> Path:
    """A ledger as a search leaves it: TPE draws ``num_trials`` points. scores: metric -> (its value at a point, min or max)."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    generator, ledger = np.random.default_rng(seed), Ledger(folder / "results")
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(directions=[f"{mode}imize" for _, mode in scores.values()], sampler=sampler)
    for number in range(num_trials):
        trial = study.ask(distributions(SPACE))
        values = {metric: score(trial.params, generator) for metric, (score, _) in scores.items()}
        study.tell(trial, list(values.values()))
        record = trial_record("base", "mine", 0, lambda *_, v=values: {"fad_held_out": 5.0, "partner_confidence": 0.5} | v)
        record |= {"arm": "search", "trial_id": f"search-{number:03}", "point": dict(trial.params), "started": float(number)}
        record["spec"]["dreambooth"]["method"] = trial.params["dreambooth.method"].replace("-", "_")
        ledger.write_trial(record)
    ledger.write_sweep({
        "name": "search", "arms": ["search"], "planned": num_trials, "text": "", "run": {},
        "objectives": {metric: mode for metric, (_, mode) in scores.items()},
        "space": json.loads(json.dumps({key: dataclasses.asdict(range_) for key, range_ in SPACE.items()})),
    })  # fmt: skip
    return ledger.folder


def found(folder: Path) -> Search:
    search = importances.gather(load(folder))
    assert search is not None
    return search


ONE = {"fad_held_out": (rate_decides, "min")}
TWO = {**ONE, "partner_confidence": (method_decides, "max")}


def test_the_setting_that_decides_is_the_most_important(tmp_path: Path) -> None:
    search = found(write(tmp_path, TWO))
    assert len(search.trials) == 30 and search.headers == ("setting", "share of fad_held_out", "share of partner_confidence")
    assert set(search.shares) == set(SPACE)
    for index, setting in enumerate(("dreambooth.lr", "dreambooth.method")):
        shares = {key: own[index] for key, own in search.shares.items()}
        assert sum(shares.values()) == pytest.approx(1) and max(shares, key=shares.get) == setting
        assert shares[setting] > 0.5
    assert next(iter(search.shares)) == "dreambooth.lr" in search.sentence
    assert found(tmp_path / "results").shares == search.shares, "the forest is seeded"


def test_too_few_trials_are_told_and_not_ranked(tmp_path: Path) -> None:
    search = found(write(tmp_path, ONE, num_trials=MIN_TRIALS - 1))
    assert search.shares == {} and search.sentence == (
        f"{MIN_TRIALS - 1} trials have finished; importances are not estimated from fewer than {MIN_TRIALS}."
    )
    page = report.build(tmp_path / "results", tmp_path / "store", tmp_path / "out").read_text()
    assert search.sentence in page and "Importances of the settings" not in page and "Trials in parallel coordinates" in page
    assert search.sentence in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "out" / "tables" / "importances.csv").exists()
    assert found(write(tmp_path / "more", ONE, num_trials=MIN_TRIALS)).shares


def always_first(point: dict[str, Any], generator: np.random.Generator) -> float:
    """A score in which no trial differs but by rounding."""
    return 61.3 + 1e-14 * point["dreambooth.steps"]


def test_where_all_trials_score_alike_nothing_is_ranked(tmp_path: Path) -> None:
    folder = write(tmp_path, {"fad_held_out": (always_first, "min")}, num_trials=16)
    search = found(folder)
    assert search.shares == {} and search.sentence == (
        "All 16 finished trials have the same fad_held_out, so there are no importances to estimate."
    )
    page = report.build(folder, tmp_path / "store", tmp_path / "out").read_text()
    assert search.sentence in page and "Importances of the settings" not in page
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Of 16 finished trials, all have the same fad\\_held\\_out, 61.30." in text
    assert not (tmp_path / "out" / "tables" / "importances.csv").exists()


def test_one_of_two_scores_that_is_alike_leaves_the_other_ranked(tmp_path: Path) -> None:
    folder = write(tmp_path, {"duet_partner_rank": (always_first, "min"), "fad_held_out": (rate_decides, "min")})
    search = found(folder)
    assert search.headers == ("setting", "share of fad_held_out") and next(iter(search.shares)) == "dreambooth.lr"
    assert "dreambooth.lr matters most for fad_held_out" in search.sentence
    assert search.sentence.endswith(" All have the same duet_partner_rank, for which nothing matters.")
    report.build(folder, tmp_path / "store", tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "tables" / "importances.parquet")
    assert set(frame["metric"]) == {"fad_held_out"} and frame["share"].sum() == pytest.approx(1)


def test_only_what_the_search_of_today_covers_counts(tmp_path: Path) -> None:
    folder = write(tmp_path, ONE, num_trials=16)
    ledger = Ledger(folder)
    first, second, third = ledger.trials()[:3]
    ledger.write_trial({**first, "point": {**first["point"], "dreambooth.steps": 9000}})
    ledger.write_trial({**second, "status": "failed"})
    ledger.write_trial({**third, "point": {}})
    assert len(found(folder).trials) == 13
    ledger.write_sweep({**ledger.sweep(), "objectives": {}})
    assert importances.gather(load(folder)) is None


def test_what_a_run_records_is_what_the_report_reads(tmp_path: Path) -> None:
    sweep = load_sweep(ROOT / "sweeps" / "mini-search.yaml")
    record = json.loads(json.dumps(_sweep_record(sweep)))
    folder = write(tmp_path, ONE, num_trials=MIN_TRIALS)
    Ledger(folder).write_sweep({**record, "name": "search"})
    search = found(folder)
    assert search.space == dict(sweep.search.space) and len(search.trials) == MIN_TRIALS and record["ablation"] is None
    ablation = json.loads(json.dumps(_sweep_record(load_sweep(ROOT / "sweeps" / "mini-factorial.yaml"))))["ablation"]
    assert ablation == {"design": "factorial", "arms": {"baseline": [], "teacher": ["teacher"], "prior": ["prior"],
                                                        "teacher+prior": ["teacher", "prior"]}}  # fmt: skip


def test_the_best_trials_are_the_thick_lines(tmp_path: Path) -> None:
    one = found(write(tmp_path / "one", ONE))
    distances = {trial.trial_id: trial.values[0] for trial in one.trials}
    assert [trial.trial_id for trial in parallel.best_trials(one)] == sorted(distances, key=distances.get)[: parallel.NUM_BEST]
    two = found(write(tmp_path / "two", TWO))
    front = parallel.best_trials(two)
    values = [trial.values for trial in two.trials]
    for trial in two.trials:
        near, piano = trial.values
        beaten = any(a <= near and b >= piano and (a, b) != (near, piano) for a, b in values)
        assert beaten == (trial not in front)
    assert front[0].values[0] == min(trial.values[0] for trial in two.trials)


def test_lines_go_through_the_values_that_were_drawn() -> None:
    rate, method, rank = (parallel._range_height(SPACE[f"dreambooth.{name}"]) for name in ("lr", "method", "lora_rank"))
    assert [rate(value) for value in (1e-5, 1e-4, 1e-3)] == pytest.approx([0, 0.5, 1])
    assert [method(value) for value in SPACE["dreambooth.method"].choices] == [0, 0.25, 0.5, 0.75, 1]
    assert [rank(value) for value in (2, 4, 16)] == pytest.approx([0, 1 / 3, 1])
    assert parallel._range_ticks(SPACE["dreambooth.steps"]) == {"100": 0.0, "300": 1.0}
    assert parallel._score_axis("fad", [2.0, 2.0])[1](2.0) == 0.0, "all alike: no division by zero"


def test_the_page_has_the_search_in_every_form(tmp_path: Path) -> None:
    folder = write(tmp_path, TWO)
    page = report.build(folder, tmp_path / "store", tmp_path / "out").read_text()
    section = page[page.index('id="search"') : page.index('id="figures"')]
    assert section.count("<svg") == section.count("</title><desc") == 1 and "30 finished trials. Thick lines" in section
    assert all(choice in section for choice in SPACE["dreambooth.method"].choices)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and "https://" not in page
    rows = found(folder).rows
    assert all(f'<th scope="row">{row[0]}</th><td>{row[1]}</td>' in section for row in rows)
    search = found(folder)
    assert search.trial_headers[3:6] == ("at step", "method", "lr") and len(search.trial_rows) == 30
    best = min(search.trials, key=lambda trial: trial.values[0])
    assert search.trial_rows[0][0] == best.trial_id.rsplit("-", 1)[-1] and search.trial_rows[0][1] == f"{best.values[0]:.2f}"
    assert f'<th scope="row">{search.trial_rows[0][0]}</th>' in section
    assert [arm.label for arm in load(folder).arms] == [row[0] for row in search.trial_rows], "every table has the best first"
    method, rank = (search.trial_headers.index(name) for name in ("method", "lora_rank"))
    assert {(row[method] == "lora", row[rank] == "–") for row in search.trial_rows} == {(True, False), (False, True)}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## What the search found" in text and f"| {rows[0][1]} |" in text
    frame = pd.read_parquet(tmp_path / "out" / "tables" / "importances.parquet")
    assert len(frame) == 10 and frame.groupby("metric")["share"].sum().tolist() == pytest.approx([1, 1])


def test_a_large_search_says_how_much_of_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = found(write(tmp_path, ONE))
    whole = parallel.draw(search)
    monkeypatch.setattr(parallel, "MAX_LINES", 12)
    part = parallel.draw(search)
    assert "Of 30 trials the best 12 are drawn." in part.caption and "are drawn" not in whole.caption
    assert whole.svg.count("<path") - part.svg.count("<path") == 18


def test_importances_of_a_large_search_are_of_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, ONE, num_trials=31)
    seen: list[list[str]] = []
    monkeypatch.setattr(importances, "_shares", lambda trials, *_: seen.append([t.trial_id for t in trials]) or {"a": (1.0,)})
    whole = found(folder)
    monkeypatch.setattr(importances, "MAX_TRIALS", 16)
    part = found(folder)
    assert len(whole.trials) == len(part.trials) == len(seen[0]) == 31
    assert seen[1] == [f"search-{number:03}" for number in range(0, 31, 2)]
    assert part.sentence.startswith("Over 16 of 31 finished trials, spread evenly from the first to the last, a matters most")


def test_neither_torch_nor_ray_is_imported_and_nothing_is_printed(tmp_path: Path) -> None:
    folder = write(tmp_path, ONE, num_trials=MIN_TRIALS)
    code = (
        "import sys; from pathlib import Path; from timbre_ray import report; report.build(*map(Path, sys.argv[1:])); "
        "assert 'optuna' in sys.modules and not {'torch', 'ray'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "store"), str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.slow
def test_how_often_importances_are_right(tmp_path: Path) -> None:
    """The figures of docs/explanation.md, over 100 searches of 24 trials each."""
    first, largest = {}, []
    for name, score in (("lr", rate_decides), ("method", method_decides), ("nothing", nothing_decides)):
        scores = {"fad_held_out": (score, "min")}
        folders = [write(tmp_path / f"{name}{seed}", scores, num_trials=24, seed=seed) for seed in range(100)]
        searches = [found(folder) for folder in folders]
        first[name] = sum(next(iter(search.shares)) == f"dreambooth.{name}" for search in searches)
        if name == "nothing":
            largest = [next(iter(search.shares.values()))[0] for search in searches]
    print(first, np.quantile(largest, [0.5, 0.95]))
    assert first["lr"] >= 95 and first["method"] >= 95
    assert 0.25 < np.quantile(largest, 0.5) < 0.5 < np.quantile(largest, 0.95) < 0.75, "where nothing matters"


def test_the_table_begins_with_the_best() -> None:
    trials = tuple(
        importances.Drawn(trial_id=f"s-{value}", point={}, values=(value,), last_step=1, in_force={}) for value in (0.2, 0.9, 0.5)
    )
    for mode, first in (("min", "0.2"), ("max", "0.9")):
        search = Search(objectives={"m": mode}, space={}, trials=trials, varied=("m",), shares={})
        assert search.trial_rows[0][0] == first
