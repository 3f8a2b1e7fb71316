from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from timbre_ray.clip_sets import ClipError, find_files
from timbre_ray.data.clips import cut, load_target, load_windows, read_audio, read_clips, write_clips
from timbre_ray.specs import ClipsSpec

WINDOW = 40_960


def write(path: Path, seconds: float, rate_hz: int = 16_000, channels: int = 1, level: float = 0.3) -> Path:
    samples = level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, np.stack([samples] * channels, 1), rate_hz)
    return path


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1)])
def test_any_rate_becomes_16_khz_mono(tmp_path: Path, rate_hz: int, channels: int) -> None:
    audio = read_audio(write(tmp_path / "a.wav", 1.0, rate_hz, channels))
    assert audio.shape == (16_000,)
    assert int(torch.fft.rfft(audio).abs().argmax()) == 440


def test_windows_side_by_side_and_a_long_rest_padded() -> None:
    audio = torch.ones(int(2.6 * WINDOW))
    assert cut(audio, WINDOW).shape == (3, WINDOW)
    assert cut(torch.ones(int(2.4 * WINDOW)), WINDOW).shape == (2, WINDOW)
    short = cut(torch.ones(100), WINDOW)
    assert short.shape == (1, WINDOW) and float(short.sum()) == 100


def test_silent_windows_are_left_out() -> None:
    audio = torch.cat([torch.ones(WINDOW), torch.zeros(WINDOW), torch.ones(WINDOW)])
    assert len(cut(audio, WINDOW)) == 2


def test_a_file_of_silence_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "quiet.wav", 3, level=0.0)
    with pytest.raises(ClipError, match=r"quiet\.wav: only silence"):
        load_windows((path,), WINDOW)


@pytest.mark.parametrize(("seconds", "index"), [(5.12, 2), (1.5, 2), (2.56 + 1.3, 2)])
def test_silence_that_an_offset_hides_is_named(tmp_path: Path, seconds: float, index: int) -> None:
    """A rest is judged before zeros fill it up: with them, an offset would have a level about its mean, too."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * WINDOW) / 16_000)
    hiss = 2e-4 * np.random.default_rng(0).standard_normal(int(seconds * 16_000))
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone, hiss]) + 0.01, 16_000)
    words = rf"a\.wav: window {index}, from 5\.12 s on, is silence with a constant offset of \+0\.01 .*`timbre-ray data prepare`"
    with pytest.raises(ClipError, match=words):
        load_windows((tmp_path / "a.wav",), WINDOW)


def test_an_offset_beneath_sound_and_a_rest_that_is_left_out_are_nobodys_matter(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(2.6 * WINDOW)) / 16_000)
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone, np.zeros(int(0.8 * WINDOW))]) + 0.01, 16_000)
    assert load_windows((tmp_path / "a.wav",), WINDOW).shape == (3, WINDOW), "0.4 of a window at its end is left out"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not audio at all")
    with pytest.raises(ClipError, match=r"broken\.wav: cannot be read as audio"):
        read_audio(tmp_path / "broken.wav")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no recording in it"):
        find_files(ClipsSpec(path=str(tmp_path)))


def test_whole_files_are_held_out(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"{i}.wav", 5.2)
    files = find_files(ClipsSpec(path=str(tmp_path)))
    assert [p.name for p in files.train] == ["0.wav", "1.wav", "2.wav"]
    assert [p.name for p in files.held_out] == ["3.wav", "4.wav"]


def test_one_file_holds_out_its_end(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 2.56 * 8)
    train, held_out = load_target(ClipsSpec(path=str(tmp_path)), WINDOW)
    assert (len(train), len(held_out)) == (6, 2)


def test_shipped_sets_are_disjoint() -> None:
    for name in ("chinese_flute_v1", "chinese_flute_v2", "chinese_lute"):
        train, held_out = load_target(ClipsSpec(path=f"mini:{name}"), WINDOW)
        assert len(train) == len(held_out) == 24
        distance = torch.cdist(train, held_out)
        assert float(distance.min()) > 1.0


def test_clips_survive_the_disk(tmp_path: Path) -> None:
    waveform = 0.4 * torch.rand(3, 1000)
    assert write_clips(waveform, tmp_path) == ["clip_0000.flac", "clip_0001.flac", "clip_0002.flac"]
    assert torch.allclose(read_clips(tmp_path), waveform, atol=1 / 32_000)
