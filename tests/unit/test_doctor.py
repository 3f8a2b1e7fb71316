"""Each check of doctor with and without what it asks for. Machines are made up: no GPU, no hub and no full-size weights here."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.backbones import MINI, PUBLISHED_AUDIOMAE
from timbre_ray.data.prepare.run import prepare
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.doctor import CHECKS, machine
from timbre_ray.doctor.case import Case
from timbre_ray.model_sizes import PUBLISHED_SIZES, training_memory
from timbre_ray.sweep import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
GIB = 2**30
LARGE = {"name": "cvssp/audioldm2-large"}


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A sweep over the shipped flute and a machine with these GPUs, whose hub answers unless it is refused."""
    monkeypatch.chdir(tmp_path)

    def make(gpus: tuple[int, ...] = (), refusal: str = "", run: dict | None = None, arms: dict | None = None, **base) -> Case:
        body = {"name": "night", "base": {"clips": {"path": "mini:chinese_flute_v1"}, **base}, "arms": arms or {"a": {}}}
        (tmp_path / "night.yaml").write_text(yaml.safe_dump(body | ({"run": run} if run else {})))
        return Case(sweep=load_sweep(tmp_path / "night.yaml"), gpus=lambda: gpus, hub_refusal=lambda name, revision: refusal)

    return make


def level(name: str, case: Case) -> str:
    finding = CHECKS[name](case)
    assert finding.found and (finding.remedy != "") == (finding.level != "ok"), finding
    return finding.level


ONE_GPU = {"resources": {"train": {"gpu": 1}}}


def test_a_gpu_is_wanted_only_if_the_sweep_asks(case):
    assert level("GPU", case()) == "ok" and level("GPU", case(backbone=LARGE)) == "warning"
    assert level("GPU", case(run=ONE_GPU)) == "error" and level("GPU", case(gpus=(GIB,), run=ONE_GPU)) == "ok"
    two = {"resources": {"train": {"gpu": 2}}}
    assert level("GPU", case(gpus=(GIB,), run=two)) == "error" and level("GPU", case(gpus=(GIB, GIB), run=two)) == "ok"


def test_memory_follows_from_backbone_and_method(case):
    large = PUBLISHED_SIZES["cvssp/audioldm2-large"]
    needs = {}
    for method in ("direct", "prior", "lora"):
        made = case(backbone=LARGE, dreambooth={"method": method}, run=ONE_GPU)
        needs[method] = training_memory(made.trials[0].spec, large)
    # Two sets of gradients and two moments of the U-Net, less those of the adapter: what LoRA saves.
    assert needs["direct"] - needs["lora"] == 16 * (large.unet - large.lora["cross_attention"] * 4)
    # A clip of the class goes through the U-Net beside each of the instrument.
    assert needs["prior"] - needs["direct"] == 4 * 1.5 * large.unet
    arms = {"small": {"dreambooth": {"method": "lora"}}, "whole": {}}
    room = case(gpus=(2 * needs["direct"],), backbone=LARGE, arms=arms, run=ONE_GPU)
    assert level("GPU memory", room) == "ok" and "whole" in CHECKS["GPU memory"](room).found
    assert level("GPU memory", case(gpus=(needs["direct"] + 1,), backbone=LARGE, run=ONE_GPU)) == "warning"
    assert level("GPU memory", case(gpus=(needs["lora"],), backbone=LARGE, arms=arms, run=ONE_GPU)) == "error"
    four = case(gpus=(needs["lora"] + 1,), backbone=LARGE, dreambooth={"method": "lora"}, run=ONE_GPU | {"train_together": 4})
    assert level("GPU memory", four) == "error" and "4 trained at once" in CHECKS["GPU memory"](four).found
    assert "lower run.train_together" in CHECKS["GPU memory"](four).remedy
    halves = {"resources": {"train": {"gpu": 0.5}}}
    assert level("GPU memory", case(gpus=(2 * needs["direct"] - 1,), backbone=LARGE, run=halves)) == "error", "two share it"
    assert level("GPU memory", case(backbone=LARGE)) == "ok", "no GPU is asked for"
    nowhere = CHECKS["GPU memory"](case(backbone=LARGE, run=ONE_GPU))
    assert nowhere.level == "error" and "no GPU here" in nowhere.found
    assert level("GPU memory", case(gpus=(GIB,), backbone={"name": "someone/model"}, run=ONE_GPU)) == "warning"


def snapshot(cache: Path, name: str, files: tuple[str, ...]) -> Path:
    """A model in the hub's cache, as its client lays it out."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    for file in files:
        (root / "snapshots" / "abc" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "snapshots" / "abc" / file).write_text("{}")
    return root / "snapshots" / "abc"


def test_weights_from_folder_cache_or_hub(case, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert level("weights", case()) == "ok"
    assert level("weights", case(backbone=LARGE)) == "warning"
    assert level("weights", case(backbone=LARGE, refusal="HF_HUB_OFFLINE is set")) == "error"
    parts = tuple(f"{part}/model.safetensors" for part in machine.WEIGHED)
    found = snapshot(tmp_path / "cache", LARGE["name"], ("model_index.json", *parts))
    assert level("weights", case(backbone=LARGE, refusal="offline")) == "error", "AudioMAE is not there yet"
    snapshot(tmp_path / "cache", PUBLISHED_AUDIOMAE, ("model.safetensors", "config.json"))
    assert level("weights", case(backbone=LARGE, refusal="offline")) == "ok"
    (found / parts[0]).unlink()
    cut_short = CHECKS["weights"](case(backbone=LARGE, refusal="offline"))
    assert cut_short.level == "error" and f"{LARGE['name']} lacks {machine.WEIGHED[0]}" in cut_short.found


def test_a_folder_without_a_part_is_an_error(case, tmp_path):
    folder = tmp_path / "model"
    for part in ("audiomae", *machine.WEIGHED):
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").touch()
    (folder / "model_index.json").write_text("{}")
    assert level("weights", case(backbone={"name": "model"})) == "ok"
    (folder / "vae" / "model.safetensors").unlink()
    assert level("weights", case(backbone={"name": "model"})) == "error"


@pytest.mark.parametrize(("free", "expected"), [(10**15, "ok"), (10**6, "error")])
def test_disk_against_the_estimate(case, monkeypatch, free, expected):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(free, 0, free))
    assert level("disk", case()) == expected


def test_a_tight_disk_and_one_that_cannot_be_judged(case, monkeypatch):
    need = case().estimate.num_bytes.known + case().estimate.checkpoint_bytes
    room = {"max_concurrent": 1}
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(need, 0, need * 1.05))
    assert level("disk", case(run=room)) == "warning"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**15, 0, 10**15))
    assert level("disk", case(backbone={"name": "someone/model"})) == "warning"


def test_folders_that_can_and_cannot_be_written(case, tmp_path):
    assert level("folders", case(run={"storage": "new/store"})) == "ok"
    assert not (tmp_path / "new").exists() and not (tmp_path / "store").exists(), "doctor leaves nothing behind"
    (tmp_path / "file").touch()
    refused = CHECKS["folders"](case(run={"storage": "file"}))
    assert refused.level == "error" and "run.storage='file'" in refused.found


def test_classes_of_the_judge(case):
    assert level("classes", case()) == "ok" and level("classes", case(backbone=LARGE)) == "warning"
    made = case()
    trial = made.sweep.trials[0]
    clips = dataclasses.replace(trial.spec.clips, partner="pianno")
    planned = dataclasses.replace(trial, spec=dataclasses.replace(trial.spec, clips=clips))
    unknown = Case(sweep=dataclasses.replace(made.sweep, trials=(planned,)))
    assert level("classes", unknown) == "error" and "nearest: piano" in CHECKS["classes"](unknown).found


def test_a_token_that_is_a_word_already(case):
    def clips(word: str) -> dict:
        return {"path": "mini:chinese_flute_v1", "token": word}

    assert level("token", case(clips=clips("zyxqv"))) == "ok" and level("token", case(clips=clips("piano"))) == "warning"
    elsewhere = CHECKS["token"](case(clips=clips("piano"), backbone=LARGE))
    assert elsewhere.level == "ok" and "not checked" in elsewhere.found


def write(path: Path, rate_hz: int = 16_000, seconds: float = 3.0, gain: float = 0.1) -> None:
    path.parent.mkdir(exist_ok=True)
    own = np.random.default_rng(list(str(path).encode()))  # no recording is another
    soundfile.write(path, gain * own.standard_normal(round(rate_hz * seconds)), rate_hz)


def test_recordings_are_read_as_a_run_will_read_them(case, tmp_path):
    folder = tmp_path / "flute"
    for number in range(4):
        write(folder / f"{number}.wav")
    clips = {"path": "flute"}
    fine = CHECKS["recordings"](case(clips=clips))
    assert fine.level == "ok" and "4 files, 16000 Hz, 12 s, 3 clips to learn from, 1 held out" in fine.found
    write(folder / "1.wav", rate_hz=8000)
    write(folder / "2.wav", seconds=0.5)
    doubtful = CHECKS["recordings"](case(clips=clips))
    assert doubtful.level == "warning" and "1.wav: 8000 Hz" in doubtful.found and "2.wav: 0.5 s" in doubtful.found
    write(folder / "0.wav", gain=0.0)
    (folder / "3.wav").write_bytes(b"no sound at all")
    broken = CHECKS["recordings"](case(clips=clips))
    assert broken.level == "error" and "0.wav: only silence" in broken.found and "3.wav: cannot be read" in broken.found


def test_much_padding_is_doubted(case, tmp_path):
    for number in range(4):
        write(tmp_path / "flute" / f"{number}.wav", seconds=2.56 * 1.55)
    found = CHECKS["recordings"](case(clips={"path": "flute"}))
    assert found.level == "warning" and "22% of their windows of 2.56 s is padding, learnt as silence" in found.found


def test_recordings_that_no_run_reads_are_named(case, tmp_path):
    folder = tmp_path / "flute"
    for number in range(4):
        write(folder / f"{number}.wav")
    (folder / "notes.txt").write_text("no recording")
    write(folder / "held_out" / "a.wav")
    assert level("recordings", case(clips={"path": "flute", "held_out": "flute/held_out"})) == "ok", "they are read"
    for name in ("4.m4a", "5.M4A", "6.wma"):
        (folder / name).write_bytes(f"never read: {name}".encode())
    found = CHECKS["recordings"](case(clips={"path": "flute"}))
    assert found.level == "warning" and "4 files, 16000 Hz" in found.found
    assert "flute: 4 recordings are not read (4.m4a, 5.M4A, 6.wma and 1 more): only .aif, .aiff, .flac" in found.found


def test_recordings_that_a_manifest_does_not_name_are_told(case, tmp_path):
    for number in range(4):
        noise = np.random.default_rng(number).standard_normal(40_960)
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise, 16_000)
    songs = [tmp_path / f"{number}.wav" for number in range(4)]
    prepare(songs, tmp_path / "flute", PrepareSettings(clip_s=2.56, solo_filter=False), transcriber=None)
    assert level("recordings", case(clips={"path": "flute"})) == "ok"
    write(tmp_path / "flute" / "train" / "mine.wav")
    (tmp_path / "flute" / "new.m4a").write_bytes(b"never read")
    found = CHECKS["recordings"](case(clips={"path": "flute"}))
    assert found.level == "warning" and "4 files, 16000 Hz" in found.found
    assert "flute: 2 recordings are not read (new.m4a, train/mine.wav): only what its manifest.json names is" in found.found


def test_one_short_recording_has_nothing_to_hold_out(case, tmp_path):
    write(tmp_path / "flute" / "a.wav", seconds=3.0)
    assert level("recordings", case(clips={"path": "flute"})) == "error"
    write(tmp_path / "flute" / "a.wav", seconds=11.0)
    assert "3 clips to learn from, 1 held out" in CHECKS["recordings"](case(clips={"path": "flute"})).found


def test_few_clips_bias_a_distance(case, tmp_path):
    few = CHECKS["distances"](case(evaluate={"num_clips": 20}))
    assert few.level == "warning" and "80 rows of generated clips in 128 dimensions, 128 clips wanted" in few.found
    for number in range(3):
        write(tmp_path / "flute" / f"{number}.wav")
    write(tmp_path / "held_out" / "a.wav", seconds=128 * 2.56)
    clips = {"path": "flute", "held_out": "held_out"}
    assert level("distances", case(clips=clips, evaluate={"num_clips": 128})) == "ok"
    shutil.rmtree(tmp_path / "held_out")
    write(tmp_path / "held_out" / "a.wav", seconds=10.24)
    assert "16 rows of held-out clips" in CHECKS["distances"](case(clips=clips, evaluate={"num_clips": 128})).found


def test_doctor_passes_the_demo_and_its_exit_code_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = CliRunner().invoke(cli.app, ["doctor", str(SWEEPS / "demo.yaml")])
    assert demo.exit_code == cli_errors.OK, demo.output
    assert all(name in demo.output for name in CHECKS) and "0 errors" in demo.output
    assert not list(tmp_path.iterdir())
    missing = CliRunner().invoke(cli.app, ["doctor", str(SWEEPS / "ablation.yaml")])
    assert missing.exit_code == cli.ERROR_FOUND and "data/flute_v1" in missing.output


@pytest.mark.parametrize("name", ["ablation", "search"])
def test_the_full_size_sweeps_fit_the_gpus_of_the_clouds_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An A10G and an L4 have 23,028 MiB; the page's own figure of what is needed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for flute in ("flute_v1", "flute_v2"):
        for i in range(3):
            write(tmp_path / "data" / flute / f"{i}.wav", seconds=10.24)
    made = Case(sweep=load_sweep(SWEEPS / f"{name}.yaml"), gpus=lambda: (23_028 * 2**20,))
    finding = CHECKS["GPU memory"](made)
    worst = "dreambooth.method=prior" if name == "search" else "large-gpt2-prior"
    assert finding.level == "ok" and f"about 20.5 GB for 1 trial(s) of {worst} (" in finding.found
    tight = CHECKS["GPU memory"](dataclasses.replace(made, gpus=lambda: (16 * GIB,)))
    assert tight.level == "error" and "evaluate.sampler.batch_size" in tight.remedy and "use method lora" in tight.remedy
    assert "dreambooth.batch_size" not in tight.remedy and "bfloat16" not in tight.remedy, "it is at its least already"


def test_a_search_is_judged_by_its_worst_trial(case):
    sweep = load_sweep(SWEEPS / "mini-search.yaml")
    methods = {trial.spec.dreambooth.method for trial in Case(sweep=sweep).trials}
    assert methods == {"direct", "prior", "mixclass_prior", "chineseclass_prior", "lora"}


def test_the_miniature_is_measured_by_its_own_files():
    from timbre_ray.model_sizes import clip_seconds, model_size
    from timbre_ray.specs import BackboneSpec

    assert clip_seconds(BackboneSpec()) == 2.56 and clip_seconds(BackboneSpec(name="cvssp/audioldm2")) == 10.24
    found = model_size(BackboneSpec())
    num_bytes = (MINI / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert found.unet * 2 <= num_bytes <= found.unet * 4 * 1.1, "half or single precision"
