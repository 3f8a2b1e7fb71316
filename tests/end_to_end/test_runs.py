"""The command line on the real miniature, as a user types it: few steps, few clips, real processes, real faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from diffusers import AudioLDM2Pipeline

import timbre_ray
from timbre_ray.backbones import MINI
from timbre_ray.ledger import Ledger
from timbre_ray.store import Store

COMMAND = Path(sys.executable).parent / "timbre-ray"
SHARED_AUDIO = Path(__file__).parents[3] / "shared" / "audio"

BASE = {
    "backbone": {"name": "mini"},
    "clips": {"path": "mini:chinese_flute_v1"},
    "dreambooth": {"steps": 2, "lr": 1e-4, "batch_size": 1, "gradient_accumulation": 1, "num_class_clips": 2},
    "evaluate": {"at_steps": [0, 2], "num_clips": 2, "sampler": {"num_inference_steps": 2, "mel_inversion": "griffin_lim"}},
}
ARMS = {"direct": {}, "taught": {"teacher": {"epochs": 1}}, "mixed": {"dreambooth": {"method": "mixclass-prior"}}}


def write_sweep(folder: Path, **changes: Any) -> Path:
    sweep = {"name": "small", "base": BASE, "arms": ARMS, "grid": {"seed": [0]}, **changes}
    path = folder / "small.yaml"
    path.write_text("# Question: does it run?\n" + yaml.safe_dump(sweep))
    return path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "run", folder / "small.yaml", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def scores(folder: Path) -> dict[str, Any]:
    """Everything measured, without what depends on the clock."""
    records = Ledger(folder / "results" / "small").trials()
    return {r["trial_id"]: (r["status"], r["evaluations"], r["losses"]) for r in records}


def tables(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted((folder / "reports" / "small" / "tables").glob("table-*.csv"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_sweep(folder)
    result = run(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_a_sweep_ends_in_its_tables(undisturbed: Path) -> None:
    records = Ledger(undisturbed / "results" / "small").trials()
    assert {r["arm"]: r["status"] for r in records} == dict.fromkeys(ARMS, "finished")
    for record in records:
        assert [e["step"] for e in record["evaluations"]] == [0, 2]
        assert all(np.isfinite(value) for e in record["evaluations"] for value in e["metrics"].values())
    page = (undisturbed / "reports" / "small" / "index.html").read_text()
    assert "does it run?" in page and "<audio" in page


def test_shared_stages_are_computed_once(undisturbed: Path) -> None:
    computed = Counter((e["stage"], e["key"]) for e in Store(undisturbed / "store").log() if e["event"] == "computed")
    assert set(computed.values()) == {1}
    stages = Counter(stage for stage, _ in computed)
    assert stages["encode"] == stages["teach"] == stages["class_audio"] == stages["mixture_audio"] == 1
    assert stages["dreambooth"] == 3
    # Step 0 of direct and mixed is the same untouched model; the taught one has another GPT-2.
    assert stages["generate"] == (2 + 3) * 3


def test_the_same_command_again_keeps_everything(undisturbed: Path) -> None:
    before = len([e for e in Store(undisturbed / "store").log() if e["event"] == "computed"])
    result = run(undisturbed)
    assert result.returncode == 0 and "3 kept, 0 to run" in result.stdout
    assert len([e for e in Store(undisturbed / "store").log() if e["event"] == "computed"]) == before


def test_a_killed_run_goes_on_and_ends_in_the_same_tables(undisturbed: Path, tmp_path: Path) -> None:
    write_sweep(tmp_path)
    process = subprocess.Popen(
        [COMMAND, "run", "small.yaml"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "store" / "artifacts").glob("generate/*")):  # in the middle of a trial
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {r["trial_id"] for r in Ledger(tmp_path / "results" / "small").trials() if r["status"] == "finished"}
    assert len(done) < len(ARMS)

    result = run(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert scores(tmp_path) == scores(undisturbed)
    assert tables(tmp_path) == tables(undisturbed)
    computed = Counter((e["stage"], e["key"]) for e in Store(tmp_path / "store").log() if e["event"] == "computed")
    assert set(computed.values()) == {1}, "a stage was computed twice"


def test_a_loss_that_is_not_finite_fails_its_trial_alone(tmp_path: Path) -> None:
    arms = {
        "direct": {},
        "diverging": {"dreambooth": {"lr": 1e30, "max_grad_norm": 1e30, "steps": 3}, "evaluate": {"at_steps": [0, 3]}},
    }
    write_sweep(tmp_path, arms=arms)
    result = run(tmp_path)
    assert result.returncode == 1
    found = {r["arm"]: r for r in Ledger(tmp_path / "results" / "small").trials()}
    assert found["direct"]["status"] == "finished"
    assert found["diverging"]["status"] == "failed"
    assert "dreambooth: the loss is" in found["diverging"]["error"]["message"]
    assert "lower dreambooth.lr" in result.stderr
    assert "lower dreambooth.lr" in (tmp_path / "reports" / "small" / "report.md").read_text()


@pytest.mark.parametrize(
    ("samples", "message"),
    [(b"no audio", "a.wav: cannot be read as audio"), (np.zeros(80_000), "a.wav: only silence in it")],
)
def test_a_bad_recording_is_named(tmp_path: Path, samples: bytes | np.ndarray, message: str) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    if isinstance(samples, bytes):
        (folder / "a.wav").write_bytes(samples)
    else:
        soundfile.write(folder / "a.wav", samples, 16_000)
    soundfile.write(folder / "b.wav", 0.3 * np.sin(np.arange(80_000) / 9), 16_000)
    write_sweep(tmp_path, base={**BASE, "clips": {"path": "clips"}}, arms={"direct": {}})
    result = run(tmp_path)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base": {**BASE, "dreambooth": {"stepz": 3}}}, ["small.yaml", "base.dreambooth.stepz", "steps"]),
        ({"base": {**BASE, "clips": {"path": "nowhere"}}}, ["small.yaml", "base.clips.path", "nowhere", "no such folder"]),
    ],
)
def test_bad_input_stops_before_anything_starts(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    write_sweep(tmp_path, **changes)
    result = run(tmp_path)
    assert result.returncode == 2
    assert all(part in result.stderr for part in expected), result.stderr
    assert not (tmp_path / "store").exists() and not (tmp_path / "results").exists()


@pytest.mark.skipif(not SHARED_AUDIO.is_dir(), reason="the real recordings are not beside this checkout")
def test_real_recordings_as_the_target(tmp_path: Path) -> None:
    folder = tmp_path / "flute"
    folder.mkdir()
    for path in SHARED_AUDIO.glob("chinese_flute_*.wav"):  # 10 s each, 16 and 44.1 kHz
        (folder / path.name).symlink_to(path)
    write_sweep(tmp_path, arms={"direct": {}})
    result = run(tmp_path, "--clips", str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    (record,) = Ledger(tmp_path / "results" / "small").trials()
    assert record["target"] == "flute" and np.isfinite(record["evaluations"][-1]["metrics"]["fad_held_out"])


def test_a_finished_trial_plays(undisturbed: Path) -> None:
    command = [COMMAND, "generate", "--from", "mixed", "A recording of a piano with sks flute.", "-n", "2", "-o", "out"]
    result = subprocess.run(command, cwd=undisturbed, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    about = json.loads((undisturbed / "out" / "clip_0001.json").read_text())
    assert about["prompt"] == "A recording of a piano with sks flute."
    assert (about["clip"], about["method"]) == (1, "mixclass_prior")
    samples, rate_hz = soundfile.read(undisturbed / "out" / "clip_0001.wav")
    assert (len(samples), rate_hz) == (40_960, 16_000) and np.abs(samples).max() > 0.1
    stored, _ = soundfile.read(undisturbed / "store" / "artifacts" / about["artifact"] / "clip_0001.flac")
    assert np.array_equal(samples, stored)
    again = subprocess.run(command, cwd=undisturbed, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 2 and "out: is there already, and is not written over" in again.stderr


def test_a_finished_trial_loads_as_a_pipeline(undisturbed: Path) -> None:
    # The store's folder stands relative in the sweep: to where the run was started.
    places = {"results": undisturbed / "results", "storage": undisturbed / "store"}
    trained = timbre_ray.load("mixed", **places)
    assert type(trained) is AudioLDM2Pipeline
    untouched = AudioLDM2Pipeline.from_pretrained(MINI)
    assert all(torch.equal(p, q.float()) for p, q in zip(trained.vae.parameters(), untouched.vae.parameters(), strict=True))
    moved = [not torch.equal(p, q.float()) for p, q in zip(trained.unet.parameters(), untouched.unet.parameters(), strict=True)]
    assert any(moved)
    with pytest.raises(ValueError, match="mixd: no finished trial and no arm of that name"):
        timbre_ray.load("mixd", **places)
