"""Where to cut: at silences where it can, at the full length where music goes on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Levels are measured over frames of 10 ms, the mel's own hop.
FRAME_S = 0.01
#: Frames of the shortest silence to cut at, and of the shortest sound to start a piece with after a cut inside it.
_SHORT = 8
#: Frames kept before a sound (its attack) and after it (its end below the threshold).
_BEFORE, _AFTER = 2, 5

Span = tuple[int, int]
"""First frame, and the one after the last."""


def runs(mask: NDArray[np.bool_]) -> list[Span]:
    """(frames,) -> each stretch of true ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def sounds(sounding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(frames,) -> the same with room for attack and end, and with silences too short to cut at filled."""
    widened = sounding.copy()
    for start, end in runs(sounding):
        widened[max(0, start - _BEFORE) : end + _AFTER] = True
    for start, end in runs(~widened):
        if end - start < _SHORT and start > 0 and end < len(widened):
            widened[start:end] = True
    return widened


def cut_part(audible: NDArray[np.bool_], part: Span, *, longest: int, shortest: int) -> list[Span]:
    """One part of a song -> pieces of at most ``longest`` frames, without the silence at their ends.

    audible: (frames,) of the whole song, from ``sounds``. A piece ends at the last silence that leaves it at least ``shortest``
    long. Where music goes on through all of that, it ends at the full length. Only one that nothing follows at once may be
    shorter.
    """
    left = [(start + part[0], end + part[0]) for start, end in runs(audible[part[0] : part[1]])]
    pieces: list[Span] = []
    while left:
        start, limit = left[0][0], left[0][0] + longest
        ends = [end for _, end in left if end <= limit]
        goes_on = any(begin < limit < end for begin, end in left)
        end = ends[-1] if ends and (ends[-1] - start >= shortest or not goes_on) else limit
        pieces.append((start, end))
        left = [(max(begin, end), stop) for begin, stop in left if stop - end >= _SHORT]
    return pieces


def silences(audible: NDArray[np.bool_], part: Span, *, shortest: int) -> list[Span]:
    """The silences of a part that are long enough for a clip of their own."""
    found = [(start + part[0], end + part[0]) for start, end in runs(~audible[part[0] : part[1]])]
    return [(start, end) for start, end in found if end - start >= shortest]
