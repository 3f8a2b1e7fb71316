"""The Frechet distance between two sets of embeddings: float64, symmetric, no complex numbers, no ``sqrtm``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(a: Array, b: Array) -> float:
    """Between Gaussians fitted to a (n, dim) and b (m, dim), n, m >= 2 (Heusel et al. 2017; Kilgour et al. 2019 for audio).

    The trace of the covariances' geometric mean is the nuclear norm of A B^T for centred, scaled samples A and B: exact also
    where there are fewer samples than dimensions. Raises ValueError on too few samples, other shapes or values not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings of shapes {a.shape} and {b.shape}: two matrices with as many columns are needed")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} embeddings: a covariance needs at least two of each")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("embeddings that are not finite: the audio or the embedder is broken")
    mean_a, mean_b = a.mean(0), b.mean(0)
    a_scaled, b_scaled = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
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
