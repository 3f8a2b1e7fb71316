"""Recordings on disk to equal windows of 16 kHz mono, and back to FLAC."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from timbre_ray.audio_file import open_audio, write_flac
from timbre_ray.clip_sets import ClipError, find_files
from timbre_ray.data.features import SAMPLE_RATE_HZ, normalise_waveform
from timbre_ray.specs import ClipsSpec

#: A window whose RMS lies below this share of full scale (-60 dB) is silence.
SILENCE_RMS = 1e-3


def read_audio(path: Path) -> Tensor:
    """Any rate, any number of channels -> (samples,) float32 mono at 16 kHz."""
    try:
        with open_audio(path) as file:
            samples, rate_hz = file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise ClipError(f"{path}: cannot be read as audio ({error}); convert it to wav or flac, or take it out") from error
    if len(samples) == 0 or not np.isfinite(samples).all():
        raise ClipError(f"{path}: {'empty' if len(samples) == 0 else 'has samples that are not finite'}; take it out")
    return torchaudio.functional.resample(torch.from_numpy(samples.mean(1)), rate_hz, SAMPLE_RATE_HZ)


def cut(waveform: Tensor, num_samples: int) -> Tensor:
    """(samples,) -> (num_windows, num_samples), side by side; a rest of at least half a window is padded with zeros.

    A recording shorter than one window is one padded window. Silent windows are left out.
    """
    keep = _num_windows(waveform, num_samples)
    padded = torch.nn.functional.pad(waveform, (0, max(0, keep * num_samples - len(waveform))))
    windows = padded[: keep * num_samples].reshape(keep, num_samples)
    return windows[windows.square().mean(1).sqrt() >= SILENCE_RMS]


def _num_windows(waveform: Tensor, num_samples: int) -> int:
    whole, rest = divmod(len(waveform), num_samples)
    return whole + (1 if rest >= num_samples / 2 or whole == 0 else 0)


def load_windows(files: tuple[Path, ...], num_samples: int) -> Tensor:
    """Files -> (num_windows, num_samples), mean removed, peak 0.5. A file of silence is an error, silence with an offset too."""
    windows = []
    for path in files:
        waveform = read_audio(path)
        found = cut(waveform, num_samples)
        if not len(found):
            raise ClipError(f"{path}: only silence in it (RMS below {SILENCE_RMS:g}); take it out")
        _check_offset(path, waveform, num_samples)
        windows.append(found)
    return normalise_waveform(torch.cat(windows))


def _check_offset(path: Path, waveform: Tensor, num_samples: int) -> None:
    """Raises ClipError for a silent window that a constant offset lifts above ``SILENCE_RMS``.

    ``cut`` keeps it, because keys are of recordings and the same recordings must give the same windows; its mean removed, it
    would be learnt from as noise at full level.
    """
    for index, part in enumerate(waveform.split(num_samples)[: _num_windows(waveform, num_samples)]):
        kept = float((part.square().sum() / num_samples).sqrt()) >= SILENCE_RMS
        offset = float(part.mean())
        if kept and float((part - offset).square().mean().sqrt()) < SILENCE_RMS:
            start_s = index * num_samples / SAMPLE_RATE_HZ
            raise ClipError(
                f"{path}: window {index}, from {start_s:g} s on, is silence with a constant offset of {offset:+.2g} of full "
                "scale, which passes for sound; `timbre-ray data prepare` removes it"
            )


def load_target(spec: ClipsSpec, num_samples: int) -> tuple[Tensor, Tensor]:
    """-> training windows and held-out windows, each (num_windows, num_samples)."""
    files = find_files(spec)
    train = load_windows(files.train, num_samples)
    if files.held_out:
        return train, load_windows(files.held_out, num_samples)
    if len(train) < 4:
        raise ClipError(
            f"{spec.path}: one recording of {len(train)} windows is too little to hold out a quarter; set clips.held_out"
        )
    num_held_out = math.ceil(len(train) / 4)
    return train[:-num_held_out], train[-num_held_out:]


def recorded_samples(clip: Tensor) -> int:
    """(samples,) -> how many of them were recorded: ``cut`` pads with zeros, which are one value still once the mean is removed.
    Less than a tenth of a second of one value is no padding.
    """
    changes = (clip != clip[-1]).nonzero()
    recorded = int(changes[-1]) + 1 if len(changes) else 0
    return recorded if len(clip) - recorded >= SAMPLE_RATE_HZ / 10 else len(clip)


def write_clips(waveform: Tensor, folder: Path, prefix: str = "clip") -> list[str]:
    """(num_clips, samples) -> ``prefix_0000.flac`` ... in ``folder``, 16 bit; returns the names."""
    names = [f"{prefix}_{i:04d}.flac" for i in range(len(waveform))]
    for name, samples in zip(names, waveform, strict=True):
        write_flac(folder / name, samples.clamp(-1, 1).numpy(), SAMPLE_RATE_HZ)
    return names


def read_clips(folder: Path, prefix: str = "clip") -> Tensor:
    """What ``write_clips`` wrote -> (num_clips, samples)."""
    files = sorted(folder.glob(f"{prefix}_*.flac"))
    if not files:
        raise FileNotFoundError(f"{folder}: no {prefix}_*.flac in it")
    return torch.stack([torch.from_numpy(_samples(path)) for path in files])


def _samples(path: Path) -> np.ndarray:
    with open_audio(path) as file:
        return file.read(dtype="float32")
