"""One song to judged pieces: its solo parts, cut at silences, each kept or dropped with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from timbre_ray.data.features import SAMPLE_RATE_HZ
from timbre_ray.data.prepare import cutting, notes, quality
from timbre_ray.data.prepare.decode import Recording
from timbre_ray.data.prepare.duplicates import Fingerprints, fingerprint
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.transcribe import Transcriber

_FRAME = round(cutting.FRAME_S * SAMPLE_RATE_HZ)
#: The standard's gating block of 0.4 s.
_BLOCK = round(0.4 * SAMPLE_RATE_HZ)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a song. Times are in seconds from its start."""

    start_s: float
    end_s: float
    ratio: float | None
    loudness_lufs: float | None = None
    """Integrated loudness, ITU-R BS.1770-4; None where it was not measured."""
    reason: str | None = None
    """Why it was dropped; None: it is a clip."""

    @property
    def samples(self) -> slice:
        """Its place in the song at 16 kHz."""
        return slice(round(self.start_s * SAMPLE_RATE_HZ), round(self.end_s * SAMPLE_RATE_HZ))


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedSong:
    path: Path
    waveform: Tensor
    """(samples,) at 16 kHz."""
    heard: notes.Activity | None
    """None: the solo filter was off."""
    ratio: float | None
    pieces: tuple[Piece, ...]
    """In the order of time."""

    @property
    def kept(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.reason is None)

    @property
    def dropped(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.reason is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sound:
    """What a piece is judged by."""

    waveform: Tensor
    """(samples,) at 16 kHz."""
    loud: NDArray[np.bool_]
    """(frames,) of 10 ms: not silent."""
    clipped: NDArray[np.bool_]
    """(samples,) at the file's own rate."""
    rate_hz: int
    heard: notes.Activity | None

    def ratio(self, start_s: float, end_s: float) -> float | None:
        ratio = np.nan if self.heard is None else float(self.heard.ratio(start_s, end_s))
        return None if np.isnan(ratio) else ratio


def judge_song(path: Path, recording: Recording, settings: PrepareSettings, transcriber: Transcriber | None) -> JudgedSong:
    """Everything that can be said of a song alone. transcriber: None switches the solo filter off."""
    heard, ratio = None, None
    parts = [(0.0, recording.duration_s)]
    if transcriber:
        found = transcriber(recording.mono(), recording.rate_hz)
        heard, ratio = notes.activity(found), notes.solo_ratio(found)
        parts = _solo_parts(heard, recording.duration_s, settings) if ratio is not None else []
    waveform = recording.mono_16_khz()
    levels = quality.frame_levels(waveform.numpy(), _FRAME)
    sound = _Sound(
        waveform=waveform, loud=levels > quality.silence_threshold(levels, settings.silence_db),
        clipped=quality.clipped(recording.samples), rate_hz=recording.rate_hz, heard=heard,
    )  # fmt: skip
    pieces = [_judge(piece, sound, settings) for piece in _pieces(parts, sound, settings)]
    pieces += _between(parts, recording.duration_s, sound, settings)
    pieces.sort(key=lambda piece: piece.start_s)
    return JudgedSong(path=path, waveform=waveform, heard=heard, ratio=ratio, pieces=tuple(pieces))


def drop_duplicates(song: JudgedSong, name: str, known: Fingerprints, settings: PrepareSettings) -> JudgedSong:
    """The song without clips that sound like one in ``known``; its other clips are added there, as ``name`` and their time."""
    pieces = []
    for piece in song.pieces:
        if piece.reason is None:
            mark = fingerprint(song.waveform[piece.samples], round(settings.clip_s * SAMPLE_RATE_HZ))
            nearest = known.nearest(mark)
            if nearest and nearest[1] > settings.max_similarity:
                piece = dataclasses.replace(piece, reason=f"duplicate: of {nearest[0]}, cosine {nearest[1]:.3f}")
            else:
                known.add(f"{name} at {piece.start_s:.2f} s", mark)
        pieces.append(piece)
    return dataclasses.replace(song, pieces=tuple(pieces))


def _solo_parts(heard: notes.Activity, duration_s: float, settings: PrepareSettings) -> list[tuple[float, float]]:
    return notes.solo_parts(heard, duration_s, max_ratio=settings.max_ratio, window_s=settings.solo_window_s)


def _pieces(parts: list[tuple[float, float]], sound: _Sound, settings: PrepareSettings) -> list[Piece]:
    """The solo parts cut at silences; silences long enough for a clip are pieces as well, dropped."""
    audible = cutting.sounds(sound.loud)
    longest, shortest = (round(seconds / cutting.FRAME_S) for seconds in (settings.clip_s, settings.shortest_s))
    found = []
    for start_s, end_s in parts:
        part = (round(start_s / cutting.FRAME_S), min(round(end_s / cutting.FRAME_S), len(audible)))
        spans = [(span, None) for span in cutting.cut_part(audible, part, longest=longest, shortest=shortest)]
        spans += [(span, "silence: nothing sounds in it") for span in cutting.silences(audible, part, shortest=shortest)]
        for (first, last), reason in spans:
            start, end = round(first * cutting.FRAME_S, 2), round(min(last * cutting.FRAME_S, end_s), 4)
            found.append(Piece(start_s=start, end_s=end, ratio=sound.ratio(start, end), reason=reason))
    return found


def _between(solo: list[tuple[float, float]], duration_s: float, sound: _Sound, settings: PrepareSettings) -> list[Piece]:
    """What lies between the solo parts, dropped."""
    edges = [0.0, *(edge for part in solo for edge in part), duration_s]
    pieces = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start > cutting.FRAME_S:
            pieces.append(
                Piece(
                    start_s=round(start, 4),
                    end_s=round(end, 4),
                    ratio=sound.ratio(start, end),
                    reason=_crowd(sound.heard, start, end, settings),
                )  # fmt: skip
            )
    return pieces


def _crowd(heard: notes.Activity | None, start_s: float, end_s: float, settings: PrepareSettings) -> str:
    """Why a stretch is no solo."""
    assert heard is not None  # without notes every stretch counts as solo
    highest = notes.highest_ratio(heard, start_s, end_s, window_s=settings.solo_window_s)
    if np.isnan(highest):
        return "no note: Basic Pitch hears none"
    over_s = min(settings.solo_window_s, end_s - start_s)
    return f"not solo: ratio up to {highest:.2f} over {over_s:.4g} s, limit {settings.max_ratio:g}"


def _judge(piece: Piece, sound: _Sound, settings: PrepareSettings) -> Piece:
    """With its loudness, and with the first reason to drop it, if there is any."""
    length_s = piece.end_s - piece.start_s
    if piece.reason:
        return piece
    if length_s < settings.shortest_s - cutting.FRAME_S / 2:
        return dataclasses.replace(piece, reason=f"too short: {length_s:.2f} s, below {settings.shortest_s:g} s")
    silent = 1 - float(sound.loud[round(piece.start_s / cutting.FRAME_S) : round(piece.end_s / cutting.FRAME_S)].mean())
    clipped = float(sound.clipped[round(piece.start_s * sound.rate_hz) : round(piece.end_s * sound.rate_hz)].mean())
    loudness = _loudness(sound.waveform[piece.samples])
    reason = None
    if not np.isfinite(loudness):  # the standard's gate leaves nothing
        reason = "silence: below -70 LUFS"
    elif silent > settings.max_silence:
        reason = f"silence: {silent:.0%} of it, above {settings.max_silence:.0%}"
    elif clipped > settings.max_clipped:
        reason = f"clipping: {clipped:.3%} of its samples, above {settings.max_clipped:.3%}"
    return dataclasses.replace(piece, loudness_lufs=loudness, reason=reason)


def _loudness(waveform: Tensor) -> float:
    """(samples,) -> LUFS. Ends of frames are rounded, so the shortest pieces may lack half a frame of a block: zeros fill it."""
    filled = torch.nn.functional.pad(waveform, (0, max(0, _BLOCK - len(waveform))))
    return float(torchaudio.functional.loudness(filled[None], SAMPLE_RATE_HZ))
