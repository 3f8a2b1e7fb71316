"""``timbre-ray classifier``: from notes and songs to a folder, from a folder to a report, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import soundfile
import timm
import torch
from instruments import HEARD, RATE_HZ, sound
from typer.testing import CliRunner

from timbre_ray.cli import app
from timbre_ray.identity import folder_digest
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.classifier import InstrumentClassifier


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["classifier", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for i in range(5):
        soundfile.write(folder / f"{i}.wav", sound("bass", 50 + i, 2 * HEARD), RATE_HZ)
    return folder


@pytest.fixture
def trained(nsynth: Path, songs: Path, audiomae: Path, tmp_path: Path) -> Path:
    out = tmp_path / "trained"
    code, said = run(
        "train", nsynth, "--out", out, "--work", tmp_path / "work", "--audiomae", audiomae, "--folder", f"chinese lute={songs}",
        "--rename", "mallet=marimba", "--epochs", "12", "--batch-size", "8", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, said
    assert "4 classes: bass, flute, marimba, chinese lute" in said
    return out


def test_from_notes_to_a_report(trained: Path, nsynth: Path, songs: Path, audiomae: Path, tmp_path: Path) -> None:
    model = InstrumentClassifier.from_pretrained(trained)
    assert model.classes == ("bass", "flute", "marimba", "chinese lute")
    assert folder_digest(trained / "audiomae") == folder_digest(audiomae)
    assert len((trained / "log.csv").read_text().splitlines()) == 13
    training = json.loads((trained / "training.json").read_text())
    assert training["windows"]["train"] == {"bass": 4, "chinese lute": 6, "flute": 4, "marimba": 4}
    assert training["spec"]["batch_size"] == 8
    assert sorted(training["songs"].values()) == ["test", "train", "train", "train", "valid"]
    (nsynth / "about.md").write_text("Three families that nobody can confuse.\n")
    folder, work = f"chinese lute={songs}", tmp_path / "work"
    code, said = run("evaluate", trained, nsynth, "--out", tmp_path / "report", "--folder", folder, "--work", work)
    assert code == 0, said
    with (tmp_path / "report" / "classes.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert [rows[name]["clips"] for name in model.classes] == ["2", "2", "2", "2"]
    with (tmp_path / "report" / "confusion.csv").open() as file:
        confusion = [[int(n) for n in row[1:]] for row in list(csv.reader(file))[1:]]
    right = sum(confusion[i][i] for i in range(4))
    report = (tmp_path / "report" / "report.md").read_text()
    assert f"| accuracy on test | {right / 8:.4f} |" in report and "0.7350" in report
    assert "Three families that nobody can confuse." in report
    assert "timbre-ray" in report and "![rows" in report and "accuracy on test" in said
    svg = (tmp_path / "report" / "confusion.svg").read_text()
    assert svg.count("<svg") == 1 and (tmp_path / "report" / "confusion.png").stat().st_size > 1000


def test_published_weights_are_listened_through(trained: Path, nsynth: Path, songs: Path, tmp_path: Path) -> None:
    """The original checkpoint's layout, rewritten once; the classifier is a judge by itself, whatever becomes of that."""
    torch.manual_seed(0)
    size = {"embed_dim": 64, "depth": 3, "num_heads": 1}
    vit = timm.models.VisionTransformer(img_size=(128, 128), patch_size=16, in_chans=1, num_classes=0, global_pool="avg", **size)
    torch.save({"model": vit.state_dict()}, tmp_path / "pretrained.pth")
    arguments = ("--work", tmp_path / "work", "--audiomae", tmp_path / "pretrained.pth", "--epochs", "2", "--device", "cpu")
    code, said = run("train", nsynth, "--out", tmp_path / "mine", *arguments)
    assert code == 0, said
    listens = AudioMAE.from_pretrained(tmp_path / "mine" / "audiomae")
    assert listens.config == {"num_frames": 128, **size}
    assert torch.equal(listens.vit.blocks[1].attn.qkv.weight, vit.blocks[1].attn.qkv.weight)
    (rewritten,) = (tmp_path / "work").glob("audiomae-*")
    before = rewritten.stat().st_mtime_ns
    assert run("train", nsynth, "--out", tmp_path / "again", *arguments)[0] == 0 and rewritten.stat().st_mtime_ns == before
    code, said = run("train", nsynth, "--out", tmp_path / "none", "--audiomae", tmp_path / "missing", "--work", tmp_path / "work")
    assert code == 2 and "--audiomae=" in said and not (tmp_path / "none").exists()


def test_nothing_is_written_over(trained: Path, nsynth: Path, audiomae: Path, tmp_path: Path) -> None:
    before = folder_digest.__wrapped__(trained)
    code, said = run("train", nsynth, "--out", trained, "--work", tmp_path / "work", "--audiomae", audiomae)
    assert code == 2 and "trained: is there already, and is not written over; choose another --out" in said
    assert folder_digest.__wrapped__(trained) == before


def test_a_failed_training_leaves_nothing_behind(nsynth: Path, audiomae: Path, tmp_path: Path) -> None:
    next((nsynth / "nsynth-valid" / "audio").glob("*.wav")).write_text("broken")
    code, said = run("train", nsynth, "--out", tmp_path / "out", "--work", tmp_path / "work", "--audiomae", audiomae)
    assert code == 2 and "cannot be read as audio" in said
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folder", "chinese lute"], "--folder 'chinese lute': must be CLASS=DIR"),
        (["--folder", "lute=absent"], "lute=absent: no such folder of recordings"),
        (["--rename", "keybord=piano"], "--rename keybord: no family of NSynth; nearest: keyboard"),
        (["--audiomae", "absent"], "--audiomae='absent': no such folder or file, and no hub id (owner/name)"),
        (["--epochs", "0"], "epochs=0: must be at least 1"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(nsynth: Path, tmp_path: Path, options: list[str], words: str) -> None:
    code, said = run("train", nsynth, "--out", tmp_path / "out", "--work", tmp_path / "work", *options)
    assert code == 2 and words in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "work").exists()


def test_evaluating_names_what_does_not_fit(trained: Path, nsynth: Path, songs: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "report", "--work", tmp_path / "work")
    code, said = run("evaluate", trained, nsynth, *options, "--folder", f"chinese flut={songs}")
    assert code == 2 and "class 'chinese flut' is none of" in said and "nearest: " in said
    code, said = run("evaluate", nsynth, nsynth, *options)
    assert code == 2 and "no training.json in it; a folder written by `timbre-ray classifier train` is needed" in said
    code, said = run("evaluate", trained, nsynth, *options, "--split", "tests")
    assert code == 2 and "--split tests: must be one of train, valid, test" in said
