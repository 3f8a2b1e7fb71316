"""Level and clipping of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Below this share of full scale a window counts as silence everywhere in timbre-ray (``data.clips.SILENCE_RMS``).
FLOOR_DBFS = -60.0
#: Cut-off tops are flat: this many samples in a row at (almost) full scale. A single peak may touch it.
_FULL_SCALE, _FLAT = 0.999, 3


def frame_levels(waveform: NDArray[np.float32], frame: int) -> NDArray[np.float64]:
    """(samples,) -> (frames,) RMS of each ``frame`` samples in dB of full scale; the last may be a part of one."""
    starts = np.arange(0, len(waveform), frame)
    means = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / np.diff(np.append(starts, len(waveform)))
    return 10 * np.log10(np.maximum(means, 1e-20))


def silence_threshold(levels_db: NDArray[np.float64], silence_db: float) -> float:
    """dBFS below which a frame is silent, relative to the song's loud moments: quiet recordings are music too."""
    return max(float(np.percentile(levels_db, 95)) - silence_db, FLOOR_DBFS)


def clipped(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(num_samples, num_channels), full scale 1 -> (num_samples,), true where any channel is cut off."""
    full = np.abs(samples) >= _FULL_SCALE
    flat = full[: max(0, len(full) - _FLAT + 1)].copy()
    for shift in range(1, _FLAT):
        flat &= full[shift : shift + len(flat)]
    found = np.zeros_like(full)
    for shift in range(_FLAT):
        found[shift : shift + len(flat)] |= flat
    return found.any(1)
