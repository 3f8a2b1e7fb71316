"""Files of any kind, rate and number of channels to samples: libsndfile first, PyAV (FFmpeg) for what it does not read."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from timbre_ray.audio_file import check_size, open_audio
from timbre_ray.clip_sets import SUFFIXES, ClipError, recordings_in
from timbre_ray.data.features import SAMPLE_RATE_HZ

#: Containers of AAC, ALAC and WMA, which libsndfile does not read.
FFMPEG_SUFFIXES = frozenset({".m4a", ".mp4", ".aac", ".wma", ".webm"})
SONG_SUFFIXES = SUFFIXES | FFMPEG_SUFFIXES


@dataclasses.dataclass(frozen=True)
class Recording:
    """A file as it is: judged for clipping before resampling rounds the flat tops off."""

    samples: NDArray[np.float32]
    """(num_samples, num_channels), full scale 1."""
    rate_hz: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz

    @property
    def num_channels(self) -> int:
        return self.samples.shape[1]

    def mono(self) -> NDArray[np.float32]:
        """(num_samples,) at the file's own rate, around zero: a constant offset of the recorder would pass for sound."""
        waveform = self.samples.mean(1)
        return waveform - waveform.mean(dtype=np.float64).astype(np.float32)

    def mono_16_khz(self) -> Tensor:
        return torchaudio.functional.resample(torch.from_numpy(self.mono()), self.rate_hz, SAMPLE_RATE_HZ)


def find_songs(paths: list[Path]) -> list[Path]:
    """Files, and the recordings that lie directly in folders, in the order given.

    Raises ClipError for what is no song, with a line for each file that cannot be opened: before an hour of work, not after it.
    """
    songs: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = recordings_in(path, SONG_SUFFIXES)
            if not found:
                raise ClipError(f"{path}: no recording in it ({', '.join(sorted(SONG_SUFFIXES))} are read)")
            songs += found
        elif not path.is_file():
            raise ClipError(f"{path}: no such file or folder")
        elif path.suffix.lower() not in SONG_SUFFIXES:
            known = ", ".join(sorted(SONG_SUFFIXES))
            raise ClipError(f"{path}: {path.suffix or 'no suffix'} is no kind of recording; {known} are read")
        else:
            songs.append(path)
    without_pyav = [song for song in songs if song.suffix.lower() in FFMPEG_SUFFIXES and not _has_pyav()]
    if without_pyav:
        raise ClipError(
            f"{without_pyav[0]}: {without_pyav[0].suffix} needs PyAV, which is not installed; "
            "pip install av, or convert the file to wav or flac"
        )
    distinct: dict[Path, Path] = {}
    for song in songs:
        distinct.setdefault(song.resolve(), song)
    if problems := [problem for song in distinct.values() if (problem := _header_problem(song))]:
        raise ClipError("\n".join(problems))
    return list(distinct.values())


def decode(path: Path) -> Recording:
    """Raises ClipError, which names the file and what to do, for one that is broken, empty or not finite."""
    with _naming(path):
        recording = _by_ffmpeg(path) if path.suffix.lower() in FFMPEG_SUFFIXES else _by_libsndfile(path)
    if recording.duration_s < 0.1:
        raise ClipError(f"{path}: shorter than 0.1 s; take it out")
    if not np.isfinite(recording.samples).all():
        raise ClipError(f"{path}: has samples that are not finite; take it out")
    return recording


def _header_problem(path: Path) -> str | None:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the manifest could not hold it, and is written last
        return f"{os.fsencode(path)!r}: the name is not UTF-8; rename it"
    try:
        with _naming(path):
            if path.suffix.lower() in FFMPEG_SUFFIXES:
                import av

                with av.open(str(path)) as container:
                    container.streams.audio[0]
            else:
                open_audio(path).close()
    except ClipError as error:
        return str(error)
    return None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What a library raises on a broken file, as a ClipError that names the file and what to do."""
    try:
        yield
    except ClipError:
        raise
    except (soundfile.LibsndfileError, OSError, ValueError, IndexError, RuntimeError) as error:
        raise ClipError(f"{path}: cannot be read as audio ({error}); convert it to wav or flac, or take it out") from error


def _by_libsndfile(path: Path) -> Recording:
    with open_audio(path) as file:
        return Recording(file.read(dtype="float32", always_2d=True), file.samplerate)


def _by_ffmpeg(path: Path) -> Recording:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")  # 32-bit float; rate and channels stay
        rate_hz, blocks, num_frames = stream.codec_context.sample_rate, [], 0
        for frame in itertools.chain(container.decode(stream), [None]):  # None: what the resampler still holds
            for part in resampler.resample(frame):
                num_frames += part.samples  # counted as it comes: such a header need not tell the length
                check_size(path, num_frames=num_frames, num_channels=len(part.layout.channels), rate_hz=rate_hz)
                blocks.append(part.to_ndarray().T)
        return Recording(np.concatenate(blocks).astype(np.float32), rate_hz)


def _has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None
