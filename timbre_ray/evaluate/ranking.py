"""The piano's ranking: its place among the classifier's classes, sorted by mean confidence (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def mean_confidences(classes: Sequence[str], confidences: NDArray[np.float64]) -> dict[str, float]:
    """confidences: (num_clips, num_classes) in [0, 1] -> mean of each class."""
    return {name: float(value) for name, value in zip(classes, confidences.mean(0), strict=True)}


def rank(name: str, means: Mapping[str, float]) -> int:
    """1 = the most confident class. Ties count against ``name``. Raises KeyError-like ValueError for an unknown class."""
    if name not in means:
        raise ValueError(f"class {name!r}: the classifier knows {', '.join(means)}")
    return 1 + sum(value >= means[name] for other, value in means.items() if other != name)
