"""``compare`` on the synthetic sweep, against arithmetic done here; and the tables as Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from tests.unit.test_report import planted, write_sweep
from timbre_ray import cli, report
from timbre_ray.report import compare
from timbre_ray.report.results import load
from timbre_ray.store import Store


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["compare", *words])
    return done.exit_code, done.output


def test_two_arms_are_paired_by_target_and_seed(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, targets=("chinese_flute_v1",))
    sides = compare.compare(load(folder), "base-lora", "base-teacher", Store(store))
    found = next(score for score in sides.scores if score.metric == "fad_held_out")
    lora, taught = ([planted(arm, "chinese_flute_v1", seed, 300)["fad_held_out"] for seed in range(3)]
                    for arm in ("base-lora", "base-teacher"))  # fmt: skip
    assert (found.left, found.right) == (pytest.approx(sum(lora) / 3), pytest.approx(sum(taught) / 3))
    assert found.difference.num_pairs == 3
    expected = stats.ttest_rel(lora, taught).confidence_interval(0.95)
    assert found.difference.interval == pytest.approx(tuple(expected))
    assert sides.settings == (("dreambooth.method", "lora", "direct"), ("teacher.epochs", "0", "5"))
    assert len(sides.audio) == 2 * 3 * 3 and all(sound.folder and any(sound.folder.glob("*.flac")) for sound in sides.audio)


def test_two_trials_are_one_pair_whatever_their_seeds(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    sides = compare.compare(load(folder), "base-chinese_flute_v1-s0", "base-chinese_flute_v2-s2", Store(store))
    assert all(score.difference.num_pairs == 1 and score.difference.interval is None for score in sides.scores)
    assert [(sound.target, sound.seed) for sound in sides.audio[::3]] == [("chinese_flute_v1", 0), ("chinese_flute_v2", 2)]


def test_only_shared_seeds_are_compared(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    for path in (folder / "trials").glob("base-lora-*-s[12].json"):
        path.unlink()
    sides = compare.compare(load(folder), "base", "base-lora", Store(store))
    assert {score.difference.num_pairs for score in sides.scores} == {2}  # seed 0 on two targets


def test_the_command_prints_all_three_and_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, said = run("base", "base-lora", "--storage", str(store))
    assert code == 0 and "dreambooth.method" in said and "partner_confidence" in said and "−0.40" in said, said
    assert "base − base-lora" in said, said
    assert str(store / "artifacts" / "generate" / "base-lora-chinese_flute_v1-300-duet") in said
    code, said = run("base", "base-lore", "--storage", str(store))
    assert code == 2 and "base-lore: no arm with a finished trial" in said and "nearest: base-lora" in said, said
    (tmp_path / "results" / "other" / "trials").mkdir(parents=True)
    code, said = run("base", "base-lora", "--storage", str(store))
    assert code == 2 and "--sweep" in said, said


def test_parquet_holds_the_lines_of_the_csv_with_types(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    report.build(folder, store, tmp_path / "out")
    tables = sorted((tmp_path / "out" / "tables").glob("*.csv"))
    assert len(tables) == 10  # six of the paper, trials, arms, comparisons, clips
    for path in tables:
        frame = pd.read_parquet(path.with_suffix(".parquet"))
        with path.open() as file:
            lines = list(csv.DictReader(file))
        assert list(frame.columns) == path.read_text().splitlines()[0].split(",") and len(frame) == len(lines)
        for name in {"mean", "value", "std", "low", "high"} & set(frame.columns):
            assert frame[name].dtype == "float64"
            assert [float(line[name]) for line in lines if line[name]] == frame[name].dropna().tolist()
        for name in {"row", "arm", "metric", "step"} & set(frame.columns):
            assert ["" if pd.isna(value) else str(value) for value in frame[name]] == [line[name] for line in lines]
    text = json.loads(pd.read_parquet(tmp_path / "out" / "tables" / "trials.parquet").to_json(orient="records"))
    assert {row["arm"] for row in text} >= {"base", "base-lora"}
