"""A checkpoint in the hub's own layout at base size, random weights: one trial of each method, two steps, from the command line.

About 16 GB of memory in all and 20 GB of disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from diffusers import AudioLDM2Pipeline

from benchmarks.published import write_audiomae, write_checkpoint
from timbre_ray.clip_sets import find_files
from timbre_ray.ledger import Ledger
from timbre_ray.specs import ClipsSpec
from timbre_ray.store import Store

COMMAND = Path(sys.executable).parent / "timbre-ray"
METHODS = ("direct", "prior", "mixclass-prior", "chineseclass-prior", "lora")


def run(folder: Path, *arguments: str) -> None:
    done = subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def write_recordings(folder: Path) -> None:
    """Two to learn from, two to score against: each is ten seconds for the encoders, most of it silence."""
    shipped = find_files(ClipsSpec(path="mini:chinese_flute_v1"))
    for split, files in (("train", shipped.train), ("held_out", shipped.held_out)):
        (folder / split).mkdir()
        for file in files[:2]:
            shutil.copy(file, folder / split)


def write_sweep(folder: Path) -> None:
    sampler = {"num_inference_steps": 1, "guidance_scale": 1.0, "batch_size": 2}
    sweep = {
        "name": "base-size",
        "base": {
            "backbone": {"name": "audioldm2", "audiomae": "audiomae"},
            "clips": {"path": "train", "held_out": "held_out"},
            "teacher": {"epochs": 1, "batch_size": 2},
            "dreambooth": {"steps": 2, "batch_size": 1, "gradient_accumulation": 1, "num_class_clips": 2},
            "evaluate": {"at_steps": [2], "num_clips": 2, "sampler": sampler},
        },
        "arms": {method: {"dreambooth": {"method": method}} for method in METHODS},
        "run": {"max_concurrent": 1, "threads": 2, "resources": {"train": {"cpu": 1}, "score": {"cpu": 0}}},
    }
    (folder / "sweep.yaml").write_text("# Question: does every method run at base size?\n" + yaml.safe_dump(sweep))


@pytest.mark.slow
def test_each_method_runs_for_two_steps_and_its_export_plays(tmp_path: Path) -> None:
    num_parameters = write_checkpoint(tmp_path / "audioldm2")
    write_audiomae(tmp_path / "audiomae")
    assert 1.0e9 < num_parameters < 1.2e9, "published: 1.1B in all"
    assert '"GPT2Model"' in (tmp_path / "audioldm2" / "model_index.json").read_text()
    write_recordings(tmp_path)
    write_sweep(tmp_path)
    run(tmp_path, "run", "sweep.yaml")
    trials = Ledger(tmp_path / "results" / "base-size").trials()
    assert {t["arm"] for t in trials} == set(METHODS) and {t["status"] for t in trials} == {"finished"}
    for trial in trials:
        (evaluation,) = trial["evaluations"]
        assert evaluation["step"] == 2 and np.isfinite(list(evaluation["metrics"].values())).all()
        assert len(trial["losses"]) == 2 and np.isfinite([row["loss"] for row in trial["losses"]]).all()
    for manifest in Store(tmp_path / "store").manifests():
        if manifest["stage"] == "dreambooth":  # what a trial leaves: the adapter alone, or the changed component alone
            num_bytes = sum(file["bytes"] for file in manifest["files"].values())
            adapter = manifest["description"]["method"] == "lora"
            assert (num_bytes < 4e6) if adapter else (1.3e9 < num_bytes < 1.5e9), json.dumps(manifest)
    for method in ("direct", "lora"):
        run(tmp_path, "export", method, "--out", f"mine-{method}")
        pipeline = AudioLDM2Pipeline.from_pretrained(tmp_path / f"mine-{method}")
        audio = pipeline(
            "A recording of a sks flute solo.", num_inference_steps=1, guidance_scale=1.0, audio_length_in_s=2.56
        ).audios
        assert np.isfinite(audio).all()
        del pipeline
