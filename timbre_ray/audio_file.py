"""Opens a recording only if its header promises what fits: a small file may decode to more than a machine holds; and writes one
whole, or says why not. No torch."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import soundfile

from timbre_ray.clip_sets import ClipError

#: Longest recording that is read.
MAX_DURATION_S = 3 * 3600
#: Most samples over all channels: 2 GiB as 32-bit floats, which is three hours of 48 kHz in mono.
MAX_SAMPLES = 2**29
#: The resampler's filters grow with both rates over their common divisor: to 16 kHz the product is 70 thousand for 44.1 kHz and
#: 700 million for 44101 Hz.
MAX_RATE_PRODUCT = 10**6
_MODEL_RATE_HZ = 16_000


def open_audio(path: Path) -> soundfile.SoundFile:
    """A context manager. Raises ClipError, which names the file and what to do, for one that is no audio or beyond the limits."""
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ClipError(f"{path}: cannot be read as audio ({error}); convert it to wav or flac, or take it out") from error
    try:
        check_size(path, num_frames=file.frames, num_channels=file.channels, rate_hz=file.samplerate)
    except ClipError:
        file.close()
        raise
    return file


def write_flac(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    """16 bit. Encoded in memory: on a full disk libsndfile may close a file that is cut off, and report nothing."""
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate_hz, format="FLAC", subtype="PCM_16")
    path.write_bytes(encoded.getvalue())


def check_size(path: Path, *, num_frames: int, num_channels: int, rate_hz: int) -> None:
    """Raises ClipError for more than may be held, or a rate that cannot be resampled within it."""
    common = math.gcd(rate_hz, _MODEL_RATE_HZ)
    if rate_hz // common * (_MODEL_RATE_HZ // common) > MAX_RATE_PRODUCT:
        raise ClipError(
            f"{path}: a sample rate of {rate_hz} Hz, which nothing records at; convert it to 16 or 48 kHz, or take it out"
        )
    if (duration_s := num_frames / rate_hz) > MAX_DURATION_S:
        raise ClipError(
            f"{path}: says that it is {duration_s:.0f} s long; at most {MAX_DURATION_S} s are read. "
            "Cut it into songs, or take it out"
        )
    if (num_samples := num_frames * num_channels) > MAX_SAMPLES:
        raise ClipError(
            f"{path}: says that it has {num_samples} samples ({num_channels} channels); at most {MAX_SAMPLES} are read. "
            "Cut it, mix it to fewer channels, or take it out"
        )
