"""Notes to the solo ratio: sum of the notes' durations over the time in which any note sounds.

1 is one voice, 2 are two voices all the time. Rests do not count; a note that rings into the next counts twice while it does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

_HOP_S = 0.1


@dataclasses.dataclass(frozen=True)
class Activity:
    """How many notes sound when, as two integrals over time that are straight lines between ``times_s``."""

    times_s: NDArray[np.float64]
    """(points,): every start and end of a note, ascending."""
    summed_s: NDArray[np.float64]
    """(points,): durations of all notes up to there."""
    sounding_s: NDArray[np.float64]
    """(points,): time up to there in which any note sounds."""

    def ratio(self, start_s: ArrayLike, end_s: ArrayLike) -> NDArray[np.float64]:
        """The ratio between two times, or arrays of them; NaN where no note sounds."""
        summed = np.interp(end_s, self.times_s, self.summed_s) - np.interp(start_s, self.times_s, self.summed_s)
        sounding = np.interp(end_s, self.times_s, self.sounding_s) - np.interp(start_s, self.times_s, self.sounding_s)
        heard = sounding > 1e-9
        return np.where(heard, summed / np.where(heard, sounding, 1.0), np.nan)


def activity(notes: ArrayLike) -> Activity:
    """notes: (num_notes, 2), start and end of each in seconds; none at all is an empty list."""
    intervals = np.asarray(notes, dtype=np.float64).reshape(-1, 2)
    if (intervals[:, 1] < intervals[:, 0]).any():
        raise ValueError("a note ends before it starts")
    times = np.unique(np.concatenate([[0.0], intervals.ravel()]))
    starts, ends = (np.searchsorted(np.sort(intervals[:, i]), times[:-1], side="right") for i in (0, 1))
    counts = starts - ends  # of the notes that sound between one time and the next
    lengths = np.diff(times)
    return Activity(times, *(np.concatenate([[0.0], np.cumsum(lengths * part)]) for part in (counts, counts > 0)))


def solo_ratio(notes: ArrayLike) -> float | None:
    """The paper's ratio of a whole song, from (num_notes, 2) seconds; None where there is no note."""
    ratio = float(activity(notes).ratio(-np.inf, np.inf))
    return None if np.isnan(ratio) else ratio


def solo_parts(heard: Activity, duration_s: float, *, max_ratio: float, window_s: float) -> list[tuple[float, float]]:
    """Start and end, in seconds, of each longest stretch that no window with a ratio above ``max_ratio`` touches.

    A song not longer than the window is judged as a whole. A window in which nothing sounds is no reason to end a part: a
    rest belongs to the solo around it.
    """
    starts, ends = _windows(0.0, duration_s, window_s)
    crowded = heard.ratio(starts, ends) > max_ratio + 1e-9  # one voice stays one voice, whatever the rounding
    parts, free_from = [], 0.0
    for start_s, end_s in zip(starts[crowded], ends[crowded], strict=True):
        if start_s > free_from:
            parts.append((free_from, float(start_s)))
        free_from = float(end_s)
    return parts + ([(free_from, duration_s)] if free_from < duration_s else [])


def highest_ratio(heard: Activity, start_s: float, end_s: float, *, window_s: float) -> float:
    """The ratio of the most crowded window between two times; NaN where no note sounds."""
    ratios = heard.ratio(*_windows(start_s, end_s, window_s))
    return float(np.nanmax(ratios)) if np.isfinite(ratios).any() else np.nan


def _windows(start_s: float, end_s: float, window_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends of the windows between two times; one shorter window where they lie too near."""
    last = max(start_s, end_s - window_s)
    starts = np.append(np.arange(start_s, last, _HOP_S), last)
    return starts, np.minimum(starts + window_s, end_s)
