"""Windows of labelled recordings: what they are, where they lie, and how one is read without the rest of its file."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
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
    """Indices of a file's windows that sound; a rest of at least half a window counts. Reads one window at a time.

    A constant offset is no sound: levels are measured about the mean.
    """
    with _opened(path) as file:
        length = file.frames * SAMPLE_RATE_HZ / file.samplerate
        num_windows = max(1, math.floor(length / num_samples + 0.5))
        frames = math.ceil(num_samples * file.samplerate / SAMPLE_RATE_HZ)
        loud = []
        for index in range(num_windows):
            samples = _mono(file, _start(index, num_samples, file.samplerate), frames)
            if not np.isfinite(samples).all():
                raise ClipError(f"{path}: window {index} has samples that are not finite; take the file out of the data set")
            if len(samples) and math.sqrt(float(np.square(samples - samples.mean()).sum()) / frames) >= SILENCE_RMS:
                loud.append(index)
    return loud


def _read(path: Path, index: int, num_samples: int, label: str) -> Tensor:
    with _opened(path) as file:
        rate_hz = file.samplerate
        samples = _mono(file, _start(index, num_samples, rate_hz), math.ceil(num_samples * rate_hz / SAMPLE_RATE_HZ))
    finite = np.isfinite(samples).all()
    if not finite or not len(samples) or not np.ptp(samples):
        state = "silent" if finite else "not finite"
        raise ClipError(f"{path}: window {index} of {label!r} is {state}; take the file out of the data set")
    waveform = torchaudio.functional.resample(torch.from_numpy(samples), rate_hz, SAMPLE_RATE_HZ)[:num_samples]
    return torch.nn.functional.pad(waveform, (0, num_samples - len(waveform)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file to read from. What is damaged behind its header shows only then: a ClipError that names it, too."""
    try:
        with open_audio(path) as file:
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        remedy = "convert it again from its source, or take it out of the data set"
        raise ClipError(f"{path}: cannot be read to its end ({error}); {remedy}") from error


def _mono(file: soundfile.SoundFile, start: int, num_frames: int) -> NDArray[np.float32]:
    """-> (num_frames,) at the file's own rate; fewer where it ends."""
    file.seek(start)
    return file.read(num_frames, dtype="float32", always_2d=True).mean(1)


def _start(index: int, num_samples: int, rate_hz: int) -> int:
    return round(index * num_samples * rate_hz / SAMPLE_RATE_HZ)
