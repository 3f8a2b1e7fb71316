"""``report --check`` on a small store of real scores: silent where all is true, and it finds each kind of planted number."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.test_scorer import publish, request, shipped
from timbre_ray import cli, recheck, report, stage_keys
from timbre_ray.evaluate.scorer import compute_floor, score_clips
from timbre_ray.ledger import Ledger
from timbre_ray.report import effect_forms, spread
from timbre_ray.report.numbers import number
from timbre_ray.report.paired import paired_difference
from timbre_ray.specs import ClipsSpec, EvaluateSpec, TrialSpec, as_dict
from timbre_ray.store import Store

COMMITTED = Path(__file__).parents[2] / "reports" / "mini-ablation" / "tables"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``results/small`` and ``store``: two arms of one score each, the floor, and the report."""
    root = tmp_path_factory.mktemp("scored")
    store, ledger = Store(root / "store"), Ledger(root / "results" / "small")
    spec = TrialSpec(clips=ClipsSpec(path="mini:chinese_flute_v1"), evaluate=EvaluateSpec(at_steps=(0,), num_clips=4))
    names = []
    for arm, clips in (("near", "chinese_flute_v1"), ("far", "chinese_lute")):
        asked = dataclasses.replace(request(store, shipped(clips)), embedders=spec.evaluate.fad)
        scores = score_clips(asked, store)
        names.append(f"{arm}-s0")
        ledger.write_trial({
            "trial_id": names[-1], "arm": arm, "target": "flute", "seed": 0, "point": {}, "status": "finished", "error": None,
            "spec": as_dict(spec), "losses": [], "wall_s": 1.0,
            "stages": [{"stage": "encode", "key": "flute", "seconds": 1.0, "reused": False}],
            "evaluations": [{"step": 0, "num_clips": 4, "metrics": scores["metrics"], "confidences": scores["confidences"],
                             "audio": dict(asked.audio)}],
        })  # fmt: skip
    num_clips, metrics = compute_floor("flute", "chinese flute", spec.evaluate, store)
    ledger.write_baseline("flute", {"num_clips": num_clips, "metrics": metrics, "audio": {"real": "flute"}})
    ledger.write_sweep({"name": "small", "arms": ["near", "far"], "planned": names, "run": {"storage": str(store.root)}})
    report.build(ledger.folder, store.root, root / "reports" / "small")
    return root


@pytest.fixture
def here(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, and the working folder."""
    shutil.copytree(scored, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def check() -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["report", "small", "--check", "--storage", "store"])
    return done.exit_code, done.output


def edit(path: Path, change: Callable[[Any], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    if (manifest := path.with_name("artifact.json")).exists():  # sealed anew: a wrong number, no damaged file
        entry = json.loads(manifest.read_text())
        entry["files"][path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        manifest.write_text(json.dumps(entry))


def test_true_numbers_pass_and_nothing_is_written(here: Path) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    code, said = check()
    assert code == 0 and "none differs" in said and "tables in reports/small" in said.replace("\\", "/"), said
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_wrong_number_in_a_score_is_found_and_no_other(here: Path) -> None:
    paths = here.glob("store/artifacts/score/*/scores.json")
    path = next(p for p in paths if json.loads(p.read_text())["metrics"]["fad_held_out"] > 1)
    true = json.loads(path.read_text())["metrics"]["fad_held_out"]
    edit(path, lambda scores: scores["metrics"].update(fad_held_out=true * 1.01))
    code, said = check()
    assert code == 1 and "1 differ" in said and "metrics.fad_held_out" in said and f"{true * 1.01:.6g}" in said, said


def test_a_score_of_an_earlier_version_says_why_it_differs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stage_keys.VERSIONS, "score", stage_keys.VERSIONS["score"] + 1)
    assert check()[0] == 0, "the same numbers are the same, whoever computed them"
    path = next(here.glob("store/artifacts/score/*/scores.json"))
    edit(path, lambda scores: scores["metrics"].update(fad_held_out=scores["metrics"]["fad_held_out"] + 5))
    code, said = check()
    assert code == 1 and "scored by another version of timbre-ray" in " ".join(said.split()), said


def test_a_damaged_score_is_named(here: Path) -> None:
    path = next(here.glob("store/artifacts/score/*/scores.json"))
    path.write_text(path.read_text().replace("1", "2"))
    shutil.rmtree(here / "reports")
    code, said = check()
    assert code == 1 and "1 differ" in said and "scores.json is not what was published" in said, said


def test_a_wrong_outlier_interval_and_confidence_are_found(here: Path) -> None:
    path = next(here.glob("store/artifacts/score/*/scores.json"))

    def spoil(scores: dict[str, Any]) -> None:
        scores["outliers"][0]["fad_held_out"] += 10
        scores["intervals"]["kad_held_out"][1] += 10
        scores["confidences"]["duet"]["piano"] += 0.1

    edit(path, spoil)
    code, said = check()
    # the table of clips, there and in report.md, was made of the true numbers
    assert code == 1 and "5 differ" in said and "clips.csv" in said and "report.md" in said, said
    assert all(name in said for name in ("outliers.clip", "intervals.kad_held_out.1", "confidences.duet.piano")), said


def test_a_wrong_number_in_the_ledger_or_the_floor_is_found(here: Path) -> None:
    edit(here / "results/small/trials/far-s0.json", lambda r: r["evaluations"][0]["metrics"].update(partner_rank=1.0))
    edit(here / "results/small/baselines/flute.json", lambda r: r["metrics"].update(fad_held_out=3.0))
    shutil.rmtree(here / "reports")  # made of the true numbers: they would be found as well
    code, said = check()
    assert code == 1 and "2 differ" in said and "no tables written" in said, said
    assert "trials/far-s0.json, step 0" in said and "baselines/flute.json" in said


def test_a_table_changed_by_hand_is_found(here: Path) -> None:
    path = here / "reports/small/tables/table-3-fad.csv"
    path.write_text(path.read_text().replace("near", "nearest"))
    (here / "reports/small/tables/trials.csv").unlink()
    code, said = check()
    assert code == 1 and "2 differ" in said and "table-3-fad.csv" in said and "trials.csv" in said, said


def test_a_text_changed_by_hand_and_a_table_of_an_earlier_report_are_found(here: Path) -> None:
    folder = here / "reports/small"
    text = folder / "report.md"
    text.write_text(text.read_text().replace("not measured", "holds", 1))
    for name in ("effects.tex", "table-4-fad.csv", "my-own.csv", "table-4-fad-notes.csv", "importances.csv"):
        (folder / "tables" / name).write_text("mine\n")
    (folder / "tables" / "effects.csv").write_text(",".join(effect_forms.CSV_HEADER) + "\n")
    shutil.copy(folder / "tables" / "table-3-fad.csv", folder / "tables" / "table-4-fad-lute.csv")
    code, said = check()
    assert code == 1 and "5 differ" in said, said
    assert all(f"reports/small/tables/{name}" in said for name in ("effects.csv", "effects.tex", "table-4-fad.csv")), said
    assert "table-4-fad-lute.csv" in said and "report.md" in said and "my-own" not in said and "notes" not in said, said
    text.unlink()
    assert "is not there" in check()[1]


def test_audio_that_is_gone_or_another_does_not_pass(here: Path) -> None:
    folders = sorted(p.parent for p in here.glob("store/artifacts/generate/solo*/artifact.json"))
    shutil.rmtree(folders[0])
    code, said = check()
    assert code == 1 and "1 differ" in said and "no artifact generate/" in said, said


def test_the_same_audio_held_against_other_recordings_is_another_score(here: Path) -> None:
    """As the untouched model's audio, which all targets share."""
    store, path = Store(here / "store"), here / "results/small/trials/far-s0.json"
    record = json.loads(path.read_text())
    other = publish(store, "encode", "lute", {"train": shipped("chinese_lute"), "held_out": shipped("chinese_lute")})
    fad = tuple(record["spec"]["evaluate"]["fad"])
    asked = dataclasses.replace(request(store, shipped("chinese_lute")), encode_key=other, embedders=fad)
    scores = score_clips(asked, store)
    record["evaluations"][0] |= {"metrics": scores["metrics"], "confidences": scores["confidences"]}
    record |= {"trial_id": "lute-s0", "target": "lute", "stages": [{"stage": "encode", "key": "lute"}]}
    path.with_name("lute-s0.json").write_text(json.dumps(record))
    edit(here / "results/small/sweep.json", lambda sweep: sweep["planned"].append("lute-s0"))
    shutil.rmtree(here / "reports")
    assert len(recheck.tasks(here / "results/small")) == 4  # three scores and a floor
    code, said = check()
    assert code == 0 and "4 scores" in said, said


def test_the_report_shows_the_interval_and_every_clip(here: Path) -> None:
    text = (here / "reports/small/report.md").read_text()
    assert "## Clips that stand apart" in text and 'id="clips"' in (here / "reports/small/index.html").read_text()
    stored = [json.loads(path.read_text()) for path in here.glob("store/artifacts/score/*/scores.json")]
    for scores in stored:
        low, high = (number(value) for value in scores["intervals"]["kad_held_out"])
        assert f"{low} to {high}" in text
    with (here / "reports/small/tables/clips.csv").open() as file:
        written = sorted(float(row["fad_held_out"]) for row in csv.DictReader(file))
    assert written == pytest.approx(sorted(row["fad_held_out"] for scores in stored for row in scores["outliers"]))


def test_an_outlier_is_beyond_tukeys_fence() -> None:
    told = {"target": "t", "arm": "a", "seed": 0, "kad": 1.0, "kad_interval": (0.5, 2.0)}
    plain = (10.0, 11.0, 12.0, 13.0, 14.0)
    assert spread.Spread(**told, distances=plain).outliers == ()
    far = spread.Spread(**told, distances=(*plain, 40.0))
    assert far.outliers == (5,) and far.cells[-1] == "clip 5 (40.00)"


def test_tolerance_is_relative_above_one_and_absolute_below() -> None:
    assert not recheck.differs(100.0, 100.05) and recheck.differs(100.0, 100.2)
    assert not recheck.differs(1e-5, 5e-4) and recheck.differs(0.5, 0.502)
    assert recheck.differs(1.0, float("nan"))


def rows(name: str) -> list[dict[str, str]]:
    with (COMMITTED / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_committed_tables_are_what_their_trials_make() -> None:
    """Every arm's mean and standard deviation, by plain arithmetic from trials.csv."""
    trials, compared = rows("trials.csv"), 0
    last = max(int(t["step"]) for t in trials)
    for path in sorted(COMMITTED.glob("table-*.csv")):
        for row in rows(path.name):
            if not row["step"]:
                continue  # the floor, which is no trial, and the untouched backbone
            step = last if row["step"] == "last" else int(row["step"])
            wanted = (row["target"], row["row"], row["metric"], step)
            values = [float(t["value"]) for t in trials if (t["target"], t["arm"], t["metric"], int(t["step"])) == wanted]
            assert len(values) == int(row["num_seeds"]), wanted
            assert float(row["mean"]) == pytest.approx(statistics.fmean(values)), wanted
            assert float(row["std"]) == pytest.approx(statistics.stdev(values), abs=1e-9), wanted
            compared += 1
    assert compared >= 100


def test_the_committed_comparisons_are_what_their_trials_make() -> None:
    trials = rows("trials.csv")
    last = max(int(t["step"]) for t in trials)
    value = {(t["arm"], t["target"], t["seed"], t["metric"]): float(t["value"]) for t in trials if int(t["step"]) == last}
    for row in rows("comparisons.csv"):
        differences: dict[tuple[str, int], float] = {}
        for (arm, target, seed, metric), own in value.items():
            if (arm, metric) == (row["arm"], row["metric"]):
                differences[target, int(seed)] = own - value[row["baseline"], target, seed, metric]
        found = paired_difference(differences)
        assert float(row["difference"]) == pytest.approx(found.mean), row
        assert (float(row["low"]), float(row["high"])) == pytest.approx(found.interval) if row["low"] else found.is_constant, row
