"""Windows of labelled recordings: what they are, where they lie, and how one is read without the rest of its file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from timbre_ray.audio_file import open_audio
from timbre_ray.clip_sets import ClipError
from timbre_ray.data.clips import SILENCE_RMS
from timbre_ray.data.features import SAMPLE_RATE_HZ, normalise_waveform


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file, the key, the value and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One instrument's sound, somewhere in a file."""

    path: Path
    label: str
    source: str
    """What must not be split: NSynth's instrument, or the song."""
    index: int = 0
    """Which window of the file, counted in windows of the length that is read."""


def read_window(window: Window, num_samples: int) -> Tensor:
    """-> (num_samples,) mono at 16 kHz, mean removed, peak 0.5; a shorter rest is padded with zeros. Silence is an error."""
    return normalise_waveform(_read(window.path, window.index, num_samples, window.label))


def sounding_windows(path: Path, num_samples: int) -> list[int]:
    """Indices of a file's windows that sound; a rest of at least half a window counts. Reads one window at a time."""
    with open_audio(path) as file:
        length = file.frames * SAMPLE_RATE_HZ / file.samplerate
        num_windows = max(1, math.floor(length / num_samples + 0.5))
        frames = math.ceil(num_samples * file.samplerate / SAMPLE_RATE_HZ)
        loud = []
        for index in range(num_windows):
            file.seek(_start(index, num_samples, file.samplerate))
            samples = file.read(frames, dtype="float32", always_2d=True).mean(1)
            if len(samples) and math.sqrt(float(np.square(samples).sum()) / frames) >= SILENCE_RMS:
                loud.append(index)
    return loud


def _read(path: Path, index: int, num_samples: int, label: str) -> Tensor:
    with open_audio(path) as file:
        rate_hz = file.samplerate
        file.seek(_start(index, num_samples, rate_hz))
        samples = file.read(math.ceil(num_samples * rate_hz / SAMPLE_RATE_HZ), dtype="float32", always_2d=True).mean(1)
    if not np.isfinite(samples).all() or not samples.any():
        state = "silent" if np.isfinite(samples).all() else "not finite"
        raise ClipError(f"{path}: window {index} of {label!r} is {state}; take the file out of the data set")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate_hz, SAMPLE_RATE_HZ)[:num_samples]
    return torch.nn.functional.pad(waveform, (0, num_samples - len(waveform)))


def _start(index: int, num_samples: int, rate_hz: int) -> int:
    return round(index * num_samples * rate_hz / SAMPLE_RATE_HZ)
