"""Files of others: none runs code, climbs out of its folder, or fills the memory."""

from __future__ import annotations

import ast
import json
import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from diffusers.models.model_loading_utils import load_state_dict

import timbre_ray
from timbre_ray.clip_sets import ClipError
from timbre_ray.data.clips import read_audio, read_clips
from timbre_ray.data.prepare.decode import decode
from timbre_ray.data.recordings import sounding_windows
from timbre_ray.manifest import ManifestError, read_manifest
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.vggish import VGGish
from timbre_ray.store import DamagedArtifactError, Store
from timbre_ray.sweep import load_sweep
from timbre_ray.sweep_yaml import SweepError, read_yaml
from timbre_ray.train import checkpoint

PACKAGE = Path(timbre_ray.__file__).parent


class Crafted:
    """Unpickled by plain pickle it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


READERS = {
    "the checkpoint of a training": checkpoint.reached,
    "an AudioMAE": AudioMAE.from_pretrained,
    "a VGGish": VGGish.from_pretrained,
    "a part of a diffusers folder": load_state_dict,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_crafted_pickle_runs_nothing(tmp_path, reader):
    store, trace = Store(tmp_path / "store"), tmp_path / "trace"
    path = store.scratch("dreambooth", "k") / "resume.pth"
    torch.save({"step": 3, "model": Crafted(trace)}, path)
    with pytest.raises((ValueError, OSError), match=str(path)):
        reader(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # and it is not harmless
    assert trace.is_dir()


def bomb(path: Path, num_bytes: int = 200_000_000) -> Path:
    """Weights of zeros as torch writes them, packed by another hand to a thousandth."""
    torch.save({"step": 3, "model": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, bytes(num_bytes) if "/data/" in name else content)
    assert path.stat().st_size < num_bytes / 100
    return path


@pytest.mark.parametrize(
    "reader", [READERS[name] for name in READERS if "diffusers" not in name], ids=lambda reader: reader.__qualname__
)
def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch, reader):
    path = bomb(tmp_path / "resume.pth")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match=rf"{path}.*would unpack to 200\d\d\d\d\d\d"):
        reader(path)


def test_a_yaml_bomb_is_refused_at_once(tmp_path):
    path, began = tmp_path / "sweep.yaml", time.monotonic()
    levels = [f"{chr(97 + i)}: &{chr(97 + i)} [{', '.join([f'*{chr(96 + i)}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(["a: &a [x, x]", *levels, "name: x\n"]))
    with pytest.raises(SweepError, match="stand for more than 100000 values"):
        load_sweep(path)
    for text in ("base: &me {below: *me}\n", "base: " + "[" * 2_000):
        path.write_text(text)
        with pytest.raises(SweepError, match="nested too deeply, or an anchor|not plain YAML"):
            load_sweep(path)
    path.write_text("base: &b {seed: 1}\nname: x\narms: {one: *b, two: {<<: *b}}\n")  # as anchors are meant
    assert read_yaml(path)[0]["arms"]["two"] == {"seed": 1}
    assert time.monotonic() - began < 60, "written out it would be two hundred thousand million values"


@pytest.mark.parametrize("name", ["../../../outside", "/dev/zero", "link"])
def test_an_artifact_whose_manifest_climbs_out_is_not_used(tmp_path, name):
    store = Store(tmp_path / "store")
    folder = store.get_or_compute("encode", "k", lambda folder: (folder / "a.bin").write_bytes(b"1"), description={}).folder
    (tmp_path / "outside").write_bytes(b"1")
    (folder / "link").symlink_to(tmp_path / "outside")
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["files"] = {name: manifest["files"]["a.bin"]}
    (folder / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifactError, match="leads out of the artifact's folder; it was not read"):
        Store(tmp_path / "store").get("encode", "k")


def test_no_reader_in_the_package_takes_more_than_weights():
    calls = [
        (path, node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    loads = [(path, node) for path, node in calls if ast.unparse(node.func) == "torch.load"]
    assert loads
    for path, node in loads:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
    forbidden = {"pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "joblib.load", "eval", "exec"}
    assert [f"{path}:{node.lineno}" for path, node in calls if ast.unparse(node.func) in forbidden] == []


@pytest.mark.parametrize("tag", ["object/apply:os.mkdir [{}]", "name:os.mkdir", "object/new:os.mkdir [{}]"])
def test_a_python_tag_in_yaml_runs_nothing(tmp_path, tag):
    trace, path = tmp_path / "trace", tmp_path / "sweep.yaml"
    path.write_text("name: x\nbase: !!python/" + tag.format(trace) + "\n")
    with pytest.raises(SweepError, match="not plain YAML"):
        load_sweep(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["../outside.flac", "/etc/hostname", "train/../../outside.flac"])
def test_a_clip_that_climbs_out_of_its_prepared_folder_is_refused(tmp_path, name):
    folder = tmp_path / "clips"
    folder.mkdir()
    (tmp_path / "outside.flac").write_bytes(b"of somebody else")
    clip = {
        "file": name, "source": "s.wav", "start_s": 0.0, "end_s": 1.0, "ratio": None, "loudness_lufs": -20.0, "sha256": "0" * 64,
        "split": "train",
    }  # fmt: skip
    song = {
        "source": "s.wav", "sha256": "0" * 64, "duration_s": 1.0, "sample_rate_hz": 16000, "num_channels": 1, "ratio": None,
        "split": "train",
    }  # fmt: skip
    manifest = {"kind": "timbre-ray clips", "schema": 1, "settings": {}, "songs": [song], "clips": [clip], "dropped": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"clips\.0\.file=.*must lie below the folder"):
        read_manifest(folder)


def flac_that_claims(path: Path, num_frames: int) -> Path:
    """A flute's header over a moment of sound: 36 bits of STREAMINFO count the samples."""
    soundfile.write(path, np.zeros(1600, np.float32), 16_000)
    data = bytearray(path.read_bytes())
    assert data[:4] == b"fLaC"
    data[21] = data[21] & 0xF0 | num_frames >> 32
    data[22:26] = struct.pack(">I", num_frames & 0xFFFF_FFFF)
    path.write_bytes(data)
    return path


def wav_that_claims(path: Path, num_channels: int, rate_hz: int, num_seconds: float) -> Path:
    """Zeros that take no room on the disk."""
    num_bytes = int(num_seconds * rate_hz) * num_channels
    form = struct.pack("<HHIIHH", 1, num_channels, rate_hz, rate_hz * num_channels, num_channels, 8)
    header = b"RIFF" + struct.pack("<I", 36 + num_bytes) + b"WAVEfmt " + struct.pack("<I", 16) + form
    path.write_bytes(header + b"data" + struct.pack("<I", num_bytes))
    os.truncate(path, 44 + num_bytes)
    return path


AUDIO_READERS = {
    "a sweep": read_audio,
    "prepare": decode,
    "the classifier": lambda path: sounding_windows(path, 40_960),
    "the store": lambda path: read_clips(path.parent, path.stem.rpartition("_")[0]),
}


@pytest.mark.parametrize("reader", AUDIO_READERS.values(), ids=AUDIO_READERS)
def test_an_audio_bomb_is_refused_by_its_header(tmp_path, reader):
    began = time.monotonic()
    with pytest.raises(ClipError, match=r"long_0000\.flac: says that it is 4294967 s long; at most 10800 s are read"):
        reader(flac_that_claims(tmp_path / "long_0000.flac", 2**36 - 2**10))
    wide = wav_that_claims(tmp_path / "wide_0000.flac", num_channels=64, rate_hz=16_000, num_seconds=1000)
    with pytest.raises(ClipError, match=r"wide_0000\.flac: .*1024000000 samples \(64 channels\); at most 536870912 are read"):
        reader(wide)
    odd = wav_that_claims(tmp_path / "odd_0000.flac", num_channels=1, rate_hz=44_101, num_seconds=1)
    with pytest.raises(ClipError, match=r"odd_0000\.flac: a sample rate of 44101 Hz, which nothing records at; convert it"):
        reader(odd)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000])
def test_what_is_recorded_at_is_read(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(rate_hz // 10, np.float32), rate_hz)
    assert len(read_audio(tmp_path / "a.wav")) == pytest.approx(1600, abs=2)
