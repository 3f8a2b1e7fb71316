"""How a sweep stands, read from its ledger while it runs, after it was killed, and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import filelock
import pytest
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.ledger import Ledger
from timbre_ray.status import read_status

SCORES = {"step": 25, "metrics": {"fad_held_out": 61.25, "duet_partner_rank": 2.0, "partner_confidence": 0.5}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five planned trials: one finished, one failed, one begun; and one that is no longer planned."""
    folder = tmp_path / "results" / "small"
    ledger = Ledger(folder)
    ledger.write_sweep({"name": "small", "planned": ["a", "b", "c", "d", "e"], "run": {"storage": "store"}})
    blank = {"error": None, "evaluations": [], "started": 100.0, "wall_s": None}
    ledger.write_trial({**blank, "trial_id": "a", "status": "finished", "evaluations": [SCORES], "wall_s": 83.0})
    error = {"type": "ValueError", "message": "clip 3 is silent", "stage": "score"}
    ledger.write_trial({**blank, "trial_id": "b", "status": "failed", "error": error, "wall_s": 5.0})
    ledger.write_trial({**blank, "trial_id": "c", "status": "running"})
    ledger.write_trial({**blank, "trial_id": "old", "status": "finished", "wall_s": 1.0})
    (folder / "progress").mkdir()
    (folder / "progress" / "c.json").write_text(json.dumps({"stage": "dreambooth", "done": 40, "total": 300}))
    return folder


def test_while_it_runs(folder: Path) -> None:
    with filelock.FileLock(folder / ".lock", is_singleton=False):
        status = read_status(folder)
    assert status.line == "small (running): 1 running, 1 failed, 1 finished, 2 not begun, 5 planned"
    assert [(t.trial_id, t.state, t.stage) for t in status.trials][0] == ("c", "running", "dreambooth 40/300")


def test_after_it_was_killed(folder: Path) -> None:
    (folder / ".lock").touch()
    status = read_status(folder)
    assert status.line == "small (not running): 1 interrupted, 1 failed, 1 finished, 2 not begun, 5 planned"
    assert (status.count("interrupted"), status.trials[0].stage) == (1, "")


def test_the_command_shows_scores_and_reasons(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parents[1])
    result = CliRunner().invoke(cli.app, ["status", "small"])
    assert result.exit_code == 0, result.output
    assert "61.25" in result.output and "1 min 23 s" in result.output
    assert "failed b: ValueError in score: clip 3 is silent" in result.output
    assert "old" not in result.output
    told = json.loads(CliRunner().invoke(cli.app, ["status", "small", "--json"]).output)
    assert [(one["name"], one["num_planned"], one["is_running"]) for one in told] == [("small", 5, False)]
    first = next(trial for trial in told[0]["trials"] if trial["trial_id"] == "a")
    assert (first["state"], first["step"], first["metrics"]["fad_held_out"]) == ("finished", 25, 61.25)
    missing = CliRunner().invoke(cli.app, ["status", "smal"])
    assert missing.exit_code == cli_errors.BAD_INPUT and "Did you mean small?" in missing.output
