"""What the report says each arm is, from the specs of its trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_report import write_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.report import arm_settings, markdown, summary
from timbre_ray.report.results import Results, load


def sweep(tmp_path: Path) -> Path:
    """Three arms of which one has another rate; a token of its own for each target; one target has not begun in the last arm."""
    folder, _ = write_sweep(tmp_path, arms=("base", "base-teacher", "base-lora"), seeds=(0, 1), targets=("one", "two"))
    ledger = Ledger(folder)
    for record in ledger.trials():
        spec = record["spec"]
        spec["clips"] |= {"path": f"mini:{record['target']}", "token": {"one": "sks", "two": "zyx"}[record["target"]]}
        spec["dreambooth"] |= {"lr": 1e-3 if record["arm"] == "base-lora" else 1e-5, "steps": 300}
        spec["seed"] = record["seed"]
        ledger.write_trial(record)
    return folder


def cells(results: Results) -> list[tuple[str, ...]]:
    return [setting.cells for setting in arm_settings.gather(results)]


def test_an_arm_is_told_by_what_differs_between_arms(tmp_path: Path) -> None:
    assert cells(load(sweep(tmp_path))) == [
        ("base", "–", "direct", "dreambooth.lr=1e-05"),
        ("base-teacher", "5 epochs", "direct", "dreambooth.lr=1e-05"),
        ("base-lora", "–", "lora", "dreambooth.lr=0.001"),
    ]


def test_a_target_that_has_not_begun_in_an_arm_is_no_setting_of_it(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    ledger = Ledger(folder)
    for record in ledger.trials():
        record["spec"]["clips"]["token"] = "sks"
        ledger.write_trial({**record, "orphaned": record["arm"] == "base-lora" and record["target"] == "two"})
    assert [row[3] for row in cells(load(folder))] == ["dreambooth.lr=1e-05", "dreambooth.lr=1e-05", "dreambooth.lr=0.001"]


@pytest.mark.parametrize("many", [False, True])
def test_a_search_and_a_crowd_of_arms_have_no_such_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool) -> None:
    folder = sweep(tmp_path)
    if many:
        monkeypatch.setattr(arm_settings, "MAX_ARMS", 2)
    else:
        Ledger(folder).write_sweep(Ledger(folder).sweep() | {"objectives": {"fad_held_out": "min"}})
    assert cells(load(folder)) == []


def test_a_claim_is_not_decided_where_arms_cannot_be_told_apart() -> None:
    assert summary.verdict_text("cannot be told apart") == "not decided" and summary.verdict_text("holds") == "holds"


def test_both_forms_of_the_report_have_the_table_before_the_claims(tmp_path: Path) -> None:
    from timbre_ray import report

    folder = sweep(tmp_path)
    page = report.build(folder, tmp_path / "store", tmp_path / "out").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    results = load(folder)
    assert "| base-teacher | 5 epochs | direct | dreambooth.lr=1e-05 |" in text[: text.index("## Claims")]
    before = page[: page.index('<section id="claims">')]
    assert "<td>5 epochs</td>" in before and "<td>dreambooth.lr=0.001</td>" in before
    assert "the place of the piano among" in arm_settings.reading(results) and arm_settings.reading(results) in before
    assert markdown.escape_markdown(arm_settings.reading(results)) in text[: text.index("## Claims")]
