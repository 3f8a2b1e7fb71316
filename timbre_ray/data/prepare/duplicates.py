"""Clips that are the same one twice: another copy or encoding of a recording, a loop.

Copies are cut at the same places, so clips are compared as they lie, up to a small shift. A tune that comes back in the same song
and is cut at another point of it is not found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from timbre_ray.data.features import HOP, log_mel

#: Mel frames of 10 ms, and mel bands, that are averaged to one of a fingerprint.
_FRAMES, _BANDS = 2, 2
#: Frames of a fingerprint by which two clips may be shifted against each other: encoders add a delay.
_MAX_SHIFT = 10
#: Natural log below the loudest, 43 dB: under that lie the room and what an encoder left out.
_RANGE = 5.0


def fingerprint(waveform: Tensor, num_samples: int) -> Tensor:
    """(samples,) at 16 kHz -> (frames, 32): log-mel over 20 ms, each band's mean removed: neither gain nor an equaliser matters.

    num_samples: of the longest clip, to which shorter ones are filled up with nothing.
    """
    size = HOP * _FRAMES
    padded = torch.nn.functional.pad(waveform, (0, -len(waveform) % size))
    mel = log_mel(padded[None])[0]
    pooled = mel.clamp_min(float(mel.max()) - _RANGE).reshape(-1, _FRAMES, 64 // _BANDS, _BANDS).mean((1, 3))
    frames = -(-num_samples // size)
    return torch.nn.functional.pad(pooled - pooled.mean(0), (0, 0, 0, frames - len(pooled)))


def similarity(one: Tensor, others: Tensor) -> Tensor:
    """(frames, 32) and (num_others, frames, 32) -> (num_others,): largest cosine over shifts of up to 0.2 s either way."""
    norms = (one.norm() * others.flatten(1).norm(dim=1)).clamp_min(1e-8)
    widened = torch.nn.functional.pad(one, (0, 0, _MAX_SHIFT, _MAX_SHIFT))  # what is shifted out meets nothing
    shifted = widened.unfold(0, len(one), 1).transpose(1, 2)  # (shifts, frames, 32)
    return (others.flatten(1) @ shifted.flatten(1).T).amax(1) / norms


class Fingerprints:
    """The clips kept so far."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._prints = torch.empty(0)
        """(room, frames, 32); as many hold a print as there are names."""

    def nearest(self, print_: Tensor) -> tuple[str, float] | None:
        """Name of the clip most like it, and the cosine; None while there is none."""
        if not self._names:
            return None
        cosines = similarity(print_, self._prints[: len(self._names)])
        best = int(cosines.argmax())
        return self._names[best], float(cosines[best])

    def add(self, name: str, print_: Tensor) -> None:
        if len(self._names) == len(self._prints):  # twice the room, so that prints are seldom copied
            wider = print_.new_empty(max(16, 2 * len(self._prints)), *print_.shape)
            if self._names:
                wider[: len(self._names)] = self._prints
            self._prints = wider
        self._prints[len(self._names)] = print_
        self._names.append(name)
