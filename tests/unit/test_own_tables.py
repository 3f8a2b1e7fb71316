"""A report written over an earlier one: what that one had and this has not is gone, what a user laid there stays."""

from __future__ import annotations

from pathlib import Path

from tests.unit import test_effects, test_importances
from tests.unit.test_report import write_sweep
from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report import own_tables

TARGETS = ("chinese_flute_v1", "chinese_flute_v2", "lute.v3")
OF_LUTE = {f"table-4-fad-lute.v3{suffix}" for suffix in own_tables.SUFFIXES}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def plan(folder: Path, *targets: str) -> None:
    """Keeps these targets alone."""
    ledger = Ledger(folder)
    ledger.write_sweep({**ledger.sweep(), "planned": [t["trial_id"] for t in ledger.trials() if t["target"] in targets]})


def test_tables_of_targets_that_are_gone_are_removed(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,), arms=("base",), targets=TARGETS)
    tables = tmp_path / "out" / "tables"
    report.build(folder, store, tmp_path / "out")
    assert OF_LUTE <= names(tables)
    mine = {
        "notes.csv", "table-4-fad-notes.csv", "table-4-fad-notes.tex", "table-3-fad.xlsx", "arms.tex", "trials.csv.bak",
        "importances.csv",
    }  # fmt: skip
    for name in mine:
        (tables / name).write_text("mine")
    (tables / "effects.csv").mkdir()  # no file of ours, whatever its name
    plan(folder, "chinese_flute_v1", "chinese_flute_v2")
    report.build(folder, store, tmp_path / "out")
    assert not OF_LUTE & names(tables) and "table-4-fad.csv" in names(tables)
    plan(folder, "chinese_flute_v1")
    report.build(folder, store, tmp_path / "out")
    assert not {name for name in names(tables) if name.startswith("table-4-fad")} - mine
    assert mine <= names(tables) and all((tables / name).read_text() == "mine" for name in mine)
    report.build(folder, store, tmp_path / "fresh")
    assert names(tables) - mine - {"effects.csv"} == names(tmp_path / "fresh" / "tables")


def test_a_report_that_cannot_be_made_removes_nothing(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,), arms=("base",))
    report.build(folder, store, tmp_path / "out")
    before = names(tmp_path / "out" / "tables")
    try:
        report.build(folder, store, tmp_path / "out", baseline="no-such-arm")
    except ValueError:
        assert names(tmp_path / "out" / "tables") == before
    else:
        raise AssertionError("a baseline that is no arm is refused")


def test_every_table_of_every_kind_of_sweep_is_known(tmp_path: Path) -> None:
    design = test_effects.design_of("factorial")
    kinds = {
        "ablation": write_sweep(tmp_path / "a", seeds=(0,), targets=TARGETS)[0],
        "factors": test_effects.write(tmp_path / "f", design, test_effects.planted(design)),
        "search": test_importances.write(tmp_path / "s", test_importances.ONE, num_trials=15),
    }
    made = set()
    for kind, folder in kinds.items():
        report.build(folder, tmp_path / "store", tmp_path / kind)
        tables = tmp_path / kind / "tables"
        assert {path.name for path in own_tables.find(tables)} == names(tables)
        made |= names(tables)
    optional = {name for name in made if Path(name).stem in own_tables.HEADERS}
    assert made - OF_LUTE - optional == own_tables.NAMES and {Path(name).stem for name in optional} == set(own_tables.HEADERS)
