"""The Frechet distance between two sets of embeddings: float64, symmetric, no complex numbers, no ``sqrtm``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What ``frechet_infinity`` needs at least: clips, and embeddings for each of their dimensions.
MIN_CLIPS, MIN_ROWS_PER_DIM = 32, 2
NUM_SIZES = 15  # of subsets, one of each, as Chong and Forsyth take


def frechet_distance(a: Array, b: Array) -> float:
    """Between Gaussians fitted to a (n, dim) and b (m, dim), n, m >= 2 (Heusel et al. 2017; Kilgour et al. 2019 for audio).

    The trace of the covariances' geometric mean is the nuclear norm of A B^T for centred, scaled samples A and B: exact also
    where there are fewer samples than dimensions. Raises ValueError on too few samples, other shapes or values not finite.
    """
    a, b = _checked(a, b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} embeddings: a covariance needs at least two of each")
    return _distance(a, b)


def clip_distances(clips: Array, reference: Array) -> Array:
    """Of each clip alone (num_clips, rows, dim) to the reference (m, dim) -> (num_clips,). Outliers stand out (Gui et al. 2024).

    A clip of one row is a point: the limit of a Gaussian without spread. Raises ValueError as ``frechet_distance`` does.
    """
    if np.ndim(clips) != 3:
        raise ValueError(f"clips' embeddings of shape {np.shape(clips)}: (num_clips, rows, dim) is needed")
    return np.array([_distance(*_checked(rows, reference)) for rows in clips])


def infinity_shortfall(num_clips: int, rows_per_clip: int, dim: int) -> str | None:
    """Why ``frechet_infinity`` cannot be had of so many embeddings; None where it can.

    Below about one row a dimension a covariance is so short of rank that the distance no longer falls in step with 1/n.
    """
    num_rows, needed = num_clips * rows_per_clip, MIN_ROWS_PER_DIM * dim
    if num_clips >= MIN_CLIPS and num_rows >= needed:
        return None
    return (
        f"{num_rows} embeddings of {num_clips} clips in {dim} dimensions: an extrapolation to infinitely many needs at least "
        f"{needed} embeddings, of at least {MIN_CLIPS} clips; generate more clips"
    )


def frechet_infinity(clips: Array, reference: Array, *, seed: int) -> float:
    """The distance that infinitely many clips (num_clips, rows, dim) would have to the reference (m, dim).

    A line through the distances of random subsets over 1/n, read at zero (Chong and Forsyth 2020). A clip's rows are drawn
    together, as they depend on one another; sizes run from half of the clips to all of them. The bias of the generated side
    goes; that of the reference's own size stays, the same in every row of a table. May lie a little below zero. Raises ValueError
    below the minimum (see ``infinity_shortfall``).
    """
    num_clips, rows_per_clip, dim = clips.shape
    if shortfall := infinity_shortfall(num_clips, rows_per_clip, dim):
        raise ValueError(shortfall)
    rng = np.random.default_rng(seed)
    sizes = np.linspace(num_clips / 2, num_clips, NUM_SIZES).round().astype(int)
    drawn = (clips[rng.choice(num_clips, size, replace=False)].reshape(-1, dim) for size in sizes)
    distances = [frechet_distance(rows, reference) for rows in drawn]
    return float(np.polynomial.Polynomial.fit(1 / sizes, distances, deg=1)(0.0))


def _checked(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings of shapes {a.shape} and {b.shape}: two matrices with as many columns are needed")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("embeddings that are not finite: the audio or the embedder is broken")
    return a, b


def _distance(a: Array, b: Array) -> float:
    mean_a, mean_b = a.mean(0), b.mean(0)
    a_scaled, b_scaled = (a - mean_a) / np.sqrt(max(len(a) - 1, 1)), (b - mean_b) / np.sqrt(max(len(b) - 1, 1))
    if min(len(a), len(b)) < a.shape[1]:
        geometric = np.linalg.svd(a_scaled @ b_scaled.T, compute_uv=False).sum()
    else:
        geometric = _trace_of_root(a_scaled.T @ a_scaled, b_scaled.T @ b_scaled)
    distance = ((mean_a - mean_b) ** 2).sum() + (a_scaled**2).sum() + (b_scaled**2).sum() - 2 * geometric
    return float(max(distance, 0.0))


def _trace_of_root(a: Array, b: Array) -> float:
    """trace((A B)^(1/2)) of two covariances (dim, dim), by symmetric eigenvalues of A^(1/2) B A^(1/2)."""
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return float(np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum())
