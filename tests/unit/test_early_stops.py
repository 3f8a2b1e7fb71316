"""Trials that ASHA stopped early: the report says how many there are and at which step each of its scores was taken."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit import test_importances
from tests.unit.test_report import ARMS, table_of, write_sweep
from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report import pareto, summary, tables, textforms
from timbre_ray.report.results import load
from timbre_ray.status import read_status
from timbre_ray.store import Store

NUM_TRIALS, NUM_STOPPED = 6, 5


def write_search(folder: Path) -> Path:
    """A search of two objectives whose trials but the last were stopped at step 25."""
    written = test_importances.write(folder, test_importances.TWO, num_trials=NUM_TRIALS)
    ledger = Ledger(written)
    for trial in ledger.trials()[:NUM_STOPPED]:
        ledger.write_trial({**trial, "evaluations": trial["evaluations"][:2], "stopped_early": True})
    return written


def test_they_are_counted_as_status_counts_them(tmp_path: Path) -> None:
    folder = write_search(tmp_path)
    told = summary.completeness(load(folder))
    assert told.startswith("6 of 6 planned trials finished, of which 5 stopped early, 0 failed, 0 not finished;"), told
    assert read_status(folder).count("stopped early") == NUM_STOPPED
    ledger = Ledger(folder)
    ledger.write_sweep({**ledger.sweep(), "planned": None})
    assert summary.completeness(load(folder)).startswith("6 of 6 recorded trials finished, of which 5 stopped early, 0 failed (")
    assert "stopped" not in summary.completeness(load(write_sweep(tmp_path / "ablation", seeds=(0,))[0]))


def test_every_score_of_a_search_stands_with_its_step(tmp_path: Path) -> None:
    folder = write_search(tmp_path)
    results = load(folder)
    steps = {results.labels[trial["trial_id"]]: str(trial["evaluations"][-1]["step"]) for trial in results.trials}
    assert sorted(steps.values()) == ["25"] * NUM_STOPPED + ["300"]
    front = pareto.front(results)
    assert front is not None and {row[0].rsplit("-", 1)[-1]: row[3] for row in front.rows}.items() <= steps.items()
    for number in ("3", "6", "7"):
        table = table_of(results, number)
        place = textforms.margin_headers(table).index("at step")
        rows = [row for row in table.sections[0].rows if row.kind == "arm"]
        assert {row.label: textforms.margin_texts(table, row)[place] for row in rows} == steps
        assert all(len(line.split("|")) == 1 + len(table.columns) + 5 for line in textforms.markdown(table).splitlines())
        body = [line for line in textforms.latex(table).splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
        assert {line.count("&") for line in body} == {len(table.columns) + 3}
    page = report.build(folder, tmp_path / "store", tmp_path / "out").read_text()
    section = page[page.index('id="table-3-fad"') : page.index('id="table-5-duet-rank"')]
    heads, first = re.findall(r"<tr><th scope.*?</tr>", section)[:2]
    assert "at step</th>" in heads and heads.count("<th") == first.count("<th") + first.count("<td")
    assert " at step " in summary.answer(report.build_tables(folder, Store(tmp_path / "store"), tmp_path / "t"), [])[0]


def test_arms_that_end_alike_need_no_such_column(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path, seeds=(0, 1), targets=("mine",))
    assert not any(table.has_steps for table in tables.build_all(load(folder), None))
    ledger = Ledger(folder)
    trial = next(t for t in ledger.trials() if (t["arm"], t["seed"]) == ("base-lora", 1))
    ledger.write_trial({**trial, "evaluations": trial["evaluations"][:2]})
    made = tables.build_all(load(folder), None)
    assert {table.number for table in made if table.has_steps} == {"3", "6", "7"}
    rows = {row.label: row.at_step for row in made[1].sections[0].rows}
    assert rows["base-lora"] == "25 to 300" and {rows[arm] for arm in ARMS if arm != "base-lora"} == {"300"}
    assert (rows[tables.FLOOR_LABEL], rows[tables.UNTOUCHED_LABEL]) == ("", "0")
