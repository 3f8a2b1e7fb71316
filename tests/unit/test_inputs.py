"""A node that has other recordings or weights than the plan was made of computes nothing under the planned key."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import tune

from timbre_ray import inputs
from timbre_ray.cluster import notice, unfit
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.search import GridPlan, SearchPlan
from timbre_ray.cluster.trainable import LASTING_FAILURE, TrialContext, run_planned_trial
from timbre_ray.inputs import OtherInputsError
from timbre_ray.ledger import Ledger
from timbre_ray.specs import BackboneSpec
from timbre_ray.sweep import Sweep, load_sweep
from timbre_ray.trial_progress import Evaluation

SPACE = {"dreambooth.lr": {"type": "float", "low": 1e-6, "high": 1e-3, "log": True}}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "flute"
    folder.mkdir()
    for number in range(4):
        (folder / f"flute_{number}.wav").write_bytes(f"never read: {number}".encode())
    return folder


def load(recordings: Path, **parts: Any) -> Sweep:
    base = {"clips": {"path": str(recordings)}, "dreambooth": {"steps": 2}, "evaluate": {"at_steps": [0, 2]}}
    path = recordings.parent / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": base, **parts}))
    return load_sweep(path)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    monkeypatch.setattr(notice.Notice, "_watch_node", lambda self, done: None)  # there is no Ray here
    return told


def run(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """The record of the only trial, computed here by a stub as on a node."""

    def computed(spec: Any, **told: Any) -> Iterator[Evaluation]:
        yield Evaluation(step=0, num_clips=2, metrics={"fad_held_out": 1.0}, confidences={}, audio={}, losses=[])

    (trial,) = sweep.trials
    context = TrialContext(
        ledger_folder=folder / "results", worker=Worker(store_root=folder / "store", device="cpu", threads=1, patience_s=5.0),
        functions=Functions(trial=computed), scorers=ScorerPool([None]), plan=GridPlan({trial.trial_id: trial}),
    )  # fmt: skip
    try:
        run_planned_trial({"trial_id": trial.trial_id}, context=context)
    except OtherInputsError as error:
        assert str(error) == Ledger(context.ledger_folder).trial(trial.trial_id)["error"]["message"]
    return Ledger(context.ledger_folder).trial(trial.trial_id)


def test_other_recordings_fail_for_good_with_the_node_and_the_remedy(
    recordings: Path, tmp_path: Path, reports: list[dict[str, Any]]
) -> None:
    sweep = load(recordings)
    (recordings / "flute_0.wav").write_bytes(b"another recording")
    record = run(sweep, tmp_path)
    assert record["status"] == "failed" and not record["evaluations"] and reports == [{LASTING_FAILURE: True}]
    assert record["error"]["message"].startswith(f"node {socket.gethostname()}: the recordings (clips.path='{recordings}')")
    assert "run the same command again" in record["error"]["message"] and "backbone" not in record["error"]["message"]
    shutil.rmtree(recordings)
    assert "the recordings" in run(sweep, tmp_path)["error"]["message"], "none at all"


def test_another_version_of_the_code_is_refused(
    recordings: Path, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load(recordings)
    monkeypatch.setattr(inputs, "VERSIONS", {**inputs.VERSIONS, "teach": 99})
    message = run(sweep, tmp_path)["error"]["message"]
    assert "the version of timbre-ray there" in message and "install the same version" in message
    assert "the recordings (" not in message


def test_a_node_without_the_recordings_or_the_weights_is_at_fault_itself(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be given trial after trial, as it fails each within a second."""
    (trial,) = load(recordings).trials
    worker = Worker(store_root=tmp_path / "store", device="cpu", threads=1)
    assert unfit.fault_here(worker, unfit.Needs(trial=trial, weights=True)) is None
    spec = dataclasses.replace(trial.spec, backbone=BackboneSpec(name="nobody/has-this"))
    hub = dataclasses.replace(trial, spec=spec, inputs=None)
    assert unfit.fault_here(worker, unfit.Needs(trial=hub, weights=False)) is None
    told = unfit.fault_here(worker, unfit.Needs(trial=hub, weights=True))
    assert told is not None and "backbone.name='nobody/has-this' or its AudioMAE does not lie there whole" in told
    (recordings / "flute_0.wav").write_bytes(b"another recording")
    assert "the recordings (" in unfit.fault_here(worker, unfit.Needs(trial=trial, weights=False))


@pytest.mark.parametrize(("part", "words"), [("backbone", "the backbone (backbone.name='mini')"), ("judges", "what judges (")])
def test_other_weights_are_named(
    part: str, words: str, recordings: Path, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load(recordings)
    monkeypatch.setattr(inputs, {"backbone": "backbone_digest", "judges": "judges_digest"}[part], lambda *what: "others")
    message = run(sweep, tmp_path)["error"]["message"]
    assert words in message and "the recordings (" not in message


def test_the_same_files_elsewhere_are_the_same(recordings: Path, tmp_path: Path, reports: list[dict[str, Any]]) -> None:
    (trial,) = load(recordings).trials
    moved = shutil.copytree(recordings, tmp_path / "node" / "flute")
    trial.inputs.check(dataclasses.replace(trial.spec, clips=dataclasses.replace(trial.spec.clips, path=str(moved))))
    assert run(load(recordings), tmp_path)["status"] == "finished" and len(reports) == 1


def test_a_disk_that_fails_for_a_while_is_waited_for(
    recordings: Path, tmp_path: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, read, tries = load(recordings), inputs.recording_digests, []

    def stale(clips: Any) -> Any:
        tries.append(clips)
        if len(tries) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(clips)

    monkeypatch.setattr(inputs, "recording_digests", stale)
    assert run(sweep, tmp_path)["status"] == "finished" and len(tries) == 2


def test_a_search_keeps_the_recordings_that_it_began_with(recordings: Path) -> None:
    """One point has one id for as long as the run lasts, whatever happens to the folder."""
    sweep = load(recordings, search={"metric": "fad_held_out", "mode": "min", "num_trials": 3, "space": SPACE})
    plan, point = SearchPlan(sweep), {"dreambooth.lr": 1e-5}
    before = plan(point)
    (recordings / "zz_new.wav").write_bytes(b"a fifth")
    assert plan(point) == before
    with pytest.raises(OtherInputsError):
        before.inputs.check(before.spec)
    shutil.rmtree(recordings)
    assert plan(point) == before
