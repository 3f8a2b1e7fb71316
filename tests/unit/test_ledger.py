"""The ledger: records replaced whole, and the difference between a sweep and its records."""

from __future__ import annotations

import json

import pytest

from timbre_ray.ledger import Ledger
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.sweep import PlannedTrial


def planned(arm: str, seed: int = 0, key: str = "aaaaaaaa") -> PlannedTrial:
    spec = TrialSpec(clips=ClipsSpec(path="mini:chinese_lute"), seed=seed)
    trial_id = f"{arm}-chinese_lute-s{seed}-{key}"
    return PlannedTrial(trial_id=trial_id, arm=arm, target="chinese_lute", point={"seed": seed}, spec=spec, key=key)


def record(trial: PlannedTrial, status: str = "finished") -> dict:
    return {"trial_id": trial.trial_id, "trial_key": trial.key, "arm": trial.arm, "point": trial.point, "status": status}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path / "results" / "demo")


def test_records_come_back(ledger):
    assert ledger.trials() == [] and ledger.trial("absent") is None and ledger.baselines() == {}
    trial = record(planned("direct"))
    ledger.write_trial({**trial, "status": "running"})
    ledger.write_trial(trial)
    assert ledger.trials() == [trial] == [ledger.trial(trial["trial_id"])]
    assert [p.name for p in (ledger.folder / "trials").iterdir()] == [f"{trial['trial_id']}.json"]
    ledger.write_baseline("my flute/é", {"num_clips": 24})
    assert ledger.baselines() == {"my flute/é": {"num_clips": 24, "target": "my flute/é"}}
    ledger.write_sweep({"name": "demo", "arms": ["direct"]})
    assert ledger.sweep() == {"name": "demo", "arms": ["direct"]}


def test_a_write_that_breaks_leaves_the_old_record(ledger):
    trial = record(planned("direct"))
    ledger.write_trial(trial)
    with pytest.raises(TypeError):
        ledger.write_trial({**trial, "status": object()})
    assert ledger.trials() == [trial]


def test_a_missing_sweep_and_a_broken_record_are_named(ledger):
    with pytest.raises(FileNotFoundError, match=r"sweep\.json: no sweep was run into this folder"):
        ledger.sweep()
    (ledger.folder / "trials").mkdir(parents=True)
    (ledger.folder / "trials" / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not a record of timbre-ray"):
        ledger.trials()


def test_difference_of_an_edited_sweep(ledger):
    done, failed, running, edited, dropped = (planned(arm) for arm in ("done", "failed", "running", "edited", "dropped"))
    for trial in (done, edited, dropped):
        ledger.write_trial(record(trial))
    ledger.write_trial(record(failed, "failed"))
    ledger.write_trial(record(running, "running"))
    anew, new = planned("edited", key="bbbbbbbb"), planned("done", seed=1)
    difference = ledger.difference([done, new, failed, running, anew])
    assert difference.keep == (done,)
    assert difference.run == (new, failed, running)
    assert difference.changed == (anew,)
    assert difference.superseded == (edited.trial_id,)
    assert difference.orphaned == (dropped.trial_id,)


def test_marks_follow_the_plan(ledger):
    first, second = planned("direct"), planned("prior")
    for trial in (first, second):
        ledger.write_trial(record(trial))
    before = json.dumps(ledger.trials())
    difference = ledger.difference([first])
    assert json.dumps(ledger.trials()) == before, "comparing writes nothing"
    ledger.mark(difference)
    assert [trial.get("orphaned", False) for trial in ledger.trials()] == [False, True]
    again = ledger.difference([first, second])
    assert again.keep == (first, second) and not again.orphaned
    ledger.mark(again)
    assert not any(trial.get("orphaned", False) for trial in ledger.trials())


def test_an_edit_taken_back_keeps_the_first_record(ledger):
    old, new = planned("direct"), planned("direct", key="bbbbbbbb")
    for trial in (old, new):
        ledger.write_trial(record(trial))
    difference = ledger.difference([old])
    assert difference.keep == (old,) and not difference.changed
    assert difference.superseded == (new.trial_id,) and not difference.orphaned
