"""The manifest of a prepared folder: to disk and back, its errors, and a sweep that takes the folder. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from timbre_ray.cli import app
from timbre_ray.clip_sets import find_files
from timbre_ray.manifest import Clip, Dropped, Manifest, ManifestError, Song, forget_missing, read_manifest, write_manifest
from timbre_ray.specs import ClipsSpec
from timbre_ray.sweep import SweepError, load_sweep


def make(folder: Path) -> Manifest:
    """Two songs, one held out. A sweep's plan reads bytes, no audio."""
    clips = []
    for split, source in (("train", "a.mp3"), ("train", "a.mp3"), ("held_out", "b.wav")):
        (folder / split).mkdir(parents=True, exist_ok=True)
        file = f"{split}/{Path(source).stem}_{len(clips):03d}.flac"
        (folder / file).write_bytes(file.encode())
        clips.append(
            Clip(
                file=file,
                source=source,
                start_s=0.5,
                end_s=10.74,
                ratio=1.02,
                loudness_lufs=-21.5,
                sha256=hashlib.sha256(file.encode()).hexdigest(),
                split=split,
            )  # fmt: skip
        )
    songs = [
        Song(source=source, sha256=digest * 64, duration_s=30.0, sample_rate_hz=44_100, num_channels=2, ratio=1.1, split=split)
        for source, digest, split in (("a.mp3", "a", "train"), ("b.wav", "b", "held_out"), ("c.wav", "c", None))
    ]
    dropped = Dropped(source="c.wav", start_s=0.0, end_s=30.0, reason="not solo: ratio 2.31")
    manifest = Manifest(settings={"clip_s": 10.24}, songs=tuple(songs), clips=tuple(clips), dropped=(dropped,))
    write_manifest(manifest, folder)
    return manifest


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_manifest_survives_the_disk(tmp_path: Path) -> None:
    assert make(tmp_path) == read_manifest(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["schema"] == 1


def test_a_prepared_folder_has_its_own_split(tmp_path: Path) -> None:
    make(tmp_path)
    files = find_files(ClipsSpec(path=str(tmp_path)))
    assert [p.name for p in files.train] == ["a_000.flac", "a_001.flac"]
    assert [p.name for p in files.held_out] == ["b_002.flac"]


def test_another_held_out_folder_replaces_the_own_one(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.wav").write_bytes(b"x")
    files = find_files(ClipsSpec(path=str(tmp_path / "one"), held_out=str(tmp_path / "two")))
    assert len(files.train) == 2 and len(files.held_out) == 3
    files = find_files(ClipsSpec(path=str(tmp_path / "one"), held_out=str(tmp_path / "plain")))
    assert [p.name for p in files.held_out] == ["x.wav"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=2), r"manifest\.json: schema=2: this version of timbre-ray reads 1; prepare the folder again"),
        (lambda d: d.update(kind="other"), r"manifest\.json: kind='other': not a manifest of `timbre-ray data prepare`"),
        (lambda d: d.pop("songs"), r"manifest\.json: songs: missing; prepare"),
        (lambda d: d["clips"][1].update(start_s="soon"), r"manifest\.json: clips\.1\.start_s='soon': .*valid number.*; prepare"),
        (lambda d: d["clips"][1].update(gain=3), r"manifest\.json: clips\.1\.gain=3: unknown key; prepare"),
        (lambda d: d["clips"][0].update(split="test"), r"clips\.0\.split='test': .*'train' or 'held_out'; prepare"),
        (lambda d: d["clips"][0].update(split="held_out"), r"clips\.0\.split='held_out': its song a\.mp3 is in 'train'; prepare"),
        (lambda d: d["clips"][0].update(source="z.mp3"), r"clips\.0\.source='z\.mp3': no such song in songs; prepare"),
        (lambda d: d["clips"][0].update(file="train/gone.flac"), r"clips\.0\.file='train/gone\.flac': no such file; put it back"),
        (lambda d: d["clips"][0].update(file="../a.flac"), r"clips\.0\.file='\.\./a\.flac': must lie below the folder"),
        (lambda d: d.update(clips=[]), r"manifest\.json: clips: none has split='train'"),
    ],
)
def test_a_broken_manifest_is_named_by_file_key_value_and_remedy(
    tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    make(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(ManifestError, match=words):
        read_manifest(tmp_path)


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match=r"manifest\.json: cannot be read as JSON .*; prepare the folder again"):
        read_manifest(tmp_path)


def test_a_clip_that_has_changed_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "train" / "a_001.flac").write_bytes(b"edited")
    with pytest.raises(ManifestError, match=r"clips\.1\.sha256=[0-9a-f]{12}\.\.\.: train/a_001\.flac has changed .*put it back"):
        read_manifest(tmp_path)


def test_clips_that_were_deleted_are_forgotten(tmp_path: Path) -> None:
    before = make(tmp_path)
    assert forget_missing(tmp_path) == ()
    (tmp_path / "train" / "a_000.flac").unlink()
    remedy = f"put it back, or say that you took it out: `timbre-ray data forget {tmp_path}`"
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert f"clips.0.file='train/a_000.flac': no such file; {remedy}" in str(caught.value)
    assert forget_missing(tmp_path) == before.clips[:1]
    (tmp_path / "held_out" / "b_002.flac").unlink()
    result = CliRunner().invoke(app, ["data", "forget", str(tmp_path)])
    assert result.exit_code == 0 and "held_out/b_002.flac: forgotten" in result.output and "1 clip taken out of" in result.output
    left = read_manifest(tmp_path)
    assert left.clips == before.clips[1:2] and [song.split for song in left.songs] == ["train", None, None]
    assert left.dropped[0] == before.dropped[0]
    assert [(one.source, one.reason) for one in left.dropped[1:]] == [(s, "taken out by hand") for s in ("a.mp3", "b.wav")]


def test_nothing_is_forgotten_where_more_is_wrong(tmp_path: Path) -> None:
    make(tmp_path)
    written = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "train" / "a_000.flac").unlink()
    (tmp_path / "held_out" / "b_002.flac").write_bytes(b"edited")
    with pytest.raises(ManifestError, match=r"held_out/b_002\.flac has changed"):
        forget_missing(tmp_path)
    (tmp_path / "train" / "a_001.flac").unlink()
    with pytest.raises(ManifestError, match="none has split='train', so there is nothing to learn from"):
        forget_missing(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == written


def sweep(tmp_path: Path, **clips: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": {"clips": {"path": "my_flute", **clips}}}))
    return path


def test_a_sweep_takes_a_prepared_folder(tmp_path: Path) -> None:
    make(tmp_path / "my_flute")
    (trial,) = load_sweep(sweep(tmp_path)).trials
    assert trial.target == "my_flute"
    assert trial.spec.clips.path == str(tmp_path / "my_flute")


def test_the_key_is_that_of_the_same_recordings_in_plain_folders(tmp_path: Path) -> None:
    make(tmp_path / "my_flute")
    (prepared,) = load_sweep(sweep(tmp_path)).trials
    (tmp_path / "my_flute").rename(tmp_path / "moved")
    (tmp_path / "moved" / "manifest.json").unlink()
    (plain,) = load_sweep(sweep(tmp_path, path="moved/train", held_out="moved/held_out")).trials
    assert plain.key == prepared.key


def test_a_sweep_names_what_is_wrong_with_a_prepared_folder(tmp_path: Path) -> None:
    make(tmp_path / "my_flute")
    (tmp_path / "my_flute" / "train" / "a_000.flac").unlink()
    with pytest.raises(SweepError, match=r"base\.clips\.path='my_flute': .*clips\.0\.file='train/a_000\.flac': no such file"):
        load_sweep(sweep(tmp_path))
