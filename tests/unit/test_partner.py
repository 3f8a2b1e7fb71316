"""A report names the known instrument that its trials measured, whichever that is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.test_report import write_sweep
from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report.results import load
from timbre_ray.status import read_status


def with_partners(folder: Path, *names: str) -> Path:
    """The records of a sweep whose trials measured these partners, in turn."""
    ledger = Ledger(folder)
    for number, record in enumerate(ledger.trials()):
        record["spec"]["clips"]["partner"] = names[number % len(names)]
        ledger.write_trial(record)
    return folder


def texts(folder: Path, store: Path, out: Path) -> dict[str, str]:
    """Each file of the report without its sounds and pictures, and without the names of its own files."""
    report.build(folder, store, out)
    found = {path.name: path.read_text(encoding="utf-8") for path in out.rglob("*") if path.suffix in (".html", ".md", ".tex")}
    return {name: re.sub(r"data:[^\"]*|table-7-solo-piano", "", text) for name, text in found.items()}


def test_every_text_names_the_partner_of_the_trials(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0, 1), targets=("mine",))
    for name, text in texts(with_partners(folder, "guitar"), store, tmp_path / "guitar").items():
        assert not re.search("piano", text, re.IGNORECASE), name
    page = (tmp_path / "guitar" / "index.html").read_text(encoding="utf-8")
    for said in ("Direct Dreambooth loses the guitar.", "guitar’s rank in the duet", "confidence in the solo guitar",
                 "Solo guitar over steps, mine", "Rank of the guitar in the duet", "guitar, seed 0"):  # fmt: skip
        assert said in page, said


def test_trials_with_different_partners_have_a_partner_without_a_name(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path, seeds=(0,), targets=("mine",))
    assert load(folder).partner == read_status(folder).partner == "piano"
    with_partners(folder, "guitar", "piano")
    assert load(folder).partner == read_status(folder).partner == "partner"


def test_a_partner_of_any_name_is_text(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,), arms=("base", "base-prior"), targets=("mine",))
    found = texts(with_partners(folder, "<i>|*lute*"), store, tmp_path / "out")
    assert "<i>" not in found["index.html"] and "<i>" not in found["report.md"] and "|*lute*" not in found["report.md"]
    assert "&lt;i&gt;|*lute*" in found["index.html"] and r"&lt;i&gt;\|\*lute\*" in found["report.md"]
