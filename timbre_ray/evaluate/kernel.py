"""The kernel audio distance (Chung et al. 2025): squared MMD, unbiased also where clips are few. The Frechet distance is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

Array = NDArray[np.float64]

SCALE = 100.0  # as the authors' toolkit prints it
NUM_RESAMPLES = 1000


def kernel_distance(generated: Array, reference: Array, bandwidth: float | None = None) -> float:
    """100 times the unbiased MMD^2 of generated (n, dim) and reference (m, dim), n, m >= 2, under a Gaussian kernel.

    bandwidth: None for the median distance between two rows of the reference (the paper's choice). Zero in expectation for two
    samples of one distribution, so single values may be negative. Raises ValueError on too few rows, other shapes, values not
    finite, or a reference whose rows are all alike.
    """
    generated, reference = _checked(generated), _checked(reference)
    if generated.shape[1] != reference.shape[1]:
        raise ValueError(f"embeddings of {generated.shape[1]} and {reference.shape[1]} dimensions cannot be compared")
    bandwidth = median_distance(reference) if bandwidth is None else bandwidth
    within = [_mean_off_diagonal(_kernel(rows, rows, bandwidth)) for rows in (generated, reference)]
    return float(SCALE * (sum(within) - 2 * _kernel(generated, reference, bandwidth).mean()))


def kernel_interval(clips: Array, reference: Array, *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Where ``kernel_distance`` lies for other clips (num_clips, rows, dim) of the same model: a bootstrap over clips.

    A clip that is drawn twice is not paired with its own copy: such pairs are alike without the model being so, and would lift
    every resample above the distance itself. The reference (m, dim) stays as it is. Raises ValueError on fewer than two clips.
    """
    num_clips, rows_per_clip, dim = clips.shape
    if num_clips < 2:
        raise ValueError(f"{num_clips} clips: an interval over clips needs at least two")
    reference, rows = _checked(reference), _checked(clips.reshape(-1, dim))
    bandwidth = median_distance(reference)
    pairs = _kernel(rows, rows, bandwidth).reshape(num_clips, rows_per_clip, num_clips, rows_per_clip).sum((1, 3))
    own = pairs.diagonal() - rows_per_clip  # a clip's different rows
    across = _kernel(rows, reference, bandwidth).reshape(num_clips, -1).mean(1)
    counts = np.random.default_rng(seed).multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=NUM_RESAMPLES)
    squares = counts.astype(np.float64) ** 2
    total = (counts @ pairs * counts).sum(1) - squares @ pairs.diagonal() + counts @ own
    num_pairs = (num_clips**2 - squares.sum(1)) * rows_per_clip**2 + num_clips * rows_per_clip * (rows_per_clip - 1)
    kept = num_pairs > 0  # of few clips of one row a resample may hold one clip alone
    within = _mean_off_diagonal(_kernel(reference, reference, bandwidth))
    distances = SCALE * (total[kept] / num_pairs[kept] + within - 2 * (counts[kept] @ across) / num_clips)
    low, high = np.quantile(distances, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def median_distance(rows: Array) -> float:
    distance = float(np.median(pdist(rows)))
    if not distance > 0:
        raise ValueError("the reference's embeddings are all alike: no bandwidth can be had from them")
    return distance


def _kernel(a: Array, b: Array, bandwidth: float) -> Array:
    return np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2))


def _mean_off_diagonal(kernel: Array) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _checked(rows: Array) -> Array:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"embeddings of shape {rows.shape}: a matrix of at least two rows is needed")
    if not np.isfinite(rows).all():
        raise ValueError("embeddings that are not finite: the audio or the embedder is broken")
    return rows
