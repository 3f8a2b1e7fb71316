"""A few faults at random on stub trials, by the runner itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.__main__ import chaos
from tests.chaos.trials import STUB_TRIALS


@pytest.mark.slow
def test_seven_faults_are_survived(tmp_path: Path) -> None:
    run = chaos(3, {STUB_TRIALS.name: 7}, command="pytest")
    assert run.survived, run
    assert [one.planned.number for one in run.struck] == [1, 2, 3, 4, 5, 6, 7]
    report.write(run, tmp_path)
    told = json.loads((tmp_path / "faults.json").read_text())
    assert told["survived"] and sum(sweep["num_faults"] for sweep in told["sweeps"]) == len(told["struck"]) == 7
    assert "struck 7 of 7 faults" in (tmp_path / "README.md").read_text()
