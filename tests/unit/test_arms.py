"""Every score of every arm: means and intervals by hand, the references first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from tests.unit.test_report import ARMS, write_sweep
from timbre_ray import report
from timbre_ray.report import arms
from timbre_ray.report.results import load
from timbre_ray.report.tables import FLOOR_LABEL, UNTOUCHED_LABEL


def test_references_come_first_and_intervals_are_students(tmp_path: Path) -> None:
    lines = arms.gather(load(write_sweep(tmp_path)[0]))
    own = [line for line in lines if (line.target, line.metric) == ("chinese_flute_v1", "fad_held_out")]
    assert [line.label for line in own] == [FLOOR_LABEL, UNTOUCHED_LABEL, *ARMS]
    floor, untouched, base = own[:3]
    assert (floor.mean, floor.interval, floor.num_seeds, floor.num_clips) == (0.75, None, 0, 24)
    assert (untouched.mean, untouched.interval, untouched.num_seeds) == (9.0, None, 3)
    half = stats.t.ppf(0.975, 2) * 0.02 / 3**0.5  # 3.98, 4.00, 4.02
    assert base.mean == pytest.approx(4.0) and base.interval == pytest.approx((4 - half, 4 + half))
    assert base.cells == ("4.00", "3.95 to 4.05", "3", "24")
    scores = [line.metric for line in lines if line.target == "chinese_flute_v1"]
    assert list(dict.fromkeys(scores))[:3] == ["fad_held_out", "duet_partner_rank", "partner_confidence"]
    assert len(set(scores)) == 8


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    lines = arms.gather(load(write_sweep(tmp_path, seeds=(0,), targets=("mine",))[0]))
    assert {line.interval for line in lines} == {None}


def test_page_and_files_hold_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = write_sweep(tmp_path, targets=("mine",), arms=("base", "base-lora"))
    page = report.build(folder, store, tmp_path / "out").read_text()
    written = pd.read_csv(tmp_path / "out" / "tables" / "arms.csv")
    assert len(written) == 2 + 8 * (1 + 2)  # the floor has two scores
    assert f"<summary>{len(written)} means</summary>" in page
    kept = pd.read_parquet(tmp_path / "out" / "tables" / "arms.parquet")
    pd.testing.assert_frame_equal(written, kept, check_dtype=False)
    monkeypatch.setattr(arms, "MAX_LINES", 10)
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert f"tables/arms.csv ({len(written)} lines)" in page and "means</summary>" not in page
