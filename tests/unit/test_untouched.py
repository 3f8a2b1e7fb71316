"""The untouched backbone stays in the report as long as any arm without teacher has its clips of step 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_report import fail, table_of, write_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.report import arms, figures, listening, summary
from timbre_ray.report.results import Results, load
from timbre_ray.report.tables import UNTOUCHED_LABEL, Row
from timbre_ray.store import Store


def row_of(results: Results, number: str) -> Row | None:
    return next((row for row in table_of(results, number).sections[0].rows if row.kind == "untouched"), None)


def columns(folder: Path, store: Path) -> list[bool]:
    """Whether it can be heard, by target."""
    return [listening.UNTOUCHED in table.columns for table in listening.gather(load(folder), Store(store))]


def test_another_arm_stands_in_for_failed_trials(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    for trial_id in ("base-chinese_flute_v1-s0", *(f"base-chinese_flute_v2-s{seed}" for seed in range(3))):
        fail(folder, trial_id, "out of memory")
    results = load(folder)
    for number, mean in (("3", 9.0), ("4", 10.0)):
        row = row_of(results, number)
        assert row is not None and (row.cells[0].mean, row.cells[0].std, row.num_seeds) == (mean, None, 3)
    assert columns(folder, store) == [True, True]
    drawn = [drawing for drawing in figures.draw_all(results) if drawing.title.startswith("The trade-off")]
    assert len(drawn) == 2 and all(f"{UNTOUCHED_LABEL}: FAD" in drawing.svg for drawing in drawn)
    assert all("(0.90 before training)" in sentence for sentence in summary._trade_off(results))
    lines = [line for line in arms.gather(results) if (line.label, line.metric) == (UNTOUCHED_LABEL, "fad_held_out")]
    assert [(line.target, line.mean, line.num_seeds) for line in lines] == [
        ("chinese_flute_v1", 9.0, 3), ("chinese_flute_v2", 10.0, 3),
    ]  # fmt: skip


def test_it_is_heard_at_the_first_seed_that_has_it(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, arms=("base", "base-teacher"))
    for target in ("chinese_flute_v1", "chinese_flute_v2"):
        fail(folder, f"base-{target}-s0", "out of memory")
    heard = listening.gather(load(folder), Store(store))[0]
    place = heard.columns.index(listening.UNTOUCHED)
    assert [row.clips[place] is not None for row in heard.rows] == [True, False, False] * 3


def test_an_arm_of_another_backbone_does_not_stand_in(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, arms=("base", "base-prior"))
    ledger = Ledger(folder)
    for trial in ledger.trials():
        if trial["arm"] == "base-prior":
            first = trial["evaluations"][0]
            first |= {"audio": {prompt: f"other-{key}" for prompt, key in first["audio"].items()}}
            first["metrics"]["fad_held_out"] = 77.0
            ledger.write_trial(trial)
    fail(folder, "base-chinese_flute_v1-s1", "out of memory")
    row = row_of(load(folder), "3")
    assert row is not None and (row.cells[0].mean, row.num_seeds) == (9.0, 2)
    for seed in (0, 2):
        fail(folder, f"base-chinese_flute_v1-s{seed}", "out of memory")
    assert row_of(load(folder), "3") is None and row_of(load(folder), "4") is not None
    assert columns(folder, store) == [False, True]


@pytest.mark.parametrize("arms_run", [("base-teacher",), ("base-teacher", "base-teacher-mixclass-prior")])
def test_taught_arms_have_none(tmp_path: Path, arms_run: tuple[str, ...]) -> None:
    folder, store = write_sweep(tmp_path, arms=arms_run)
    assert load(folder).untouched.empty and row_of(load(folder), "3") is None and columns(folder, store) == [False, False]
