"""The references' arithmetic, written out from their definitions: slow, plain numpy and SciPy, nothing of ours imported."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_by_sqrtm(a: Array, b: Array) -> float:
    """The textbook formula with SciPy's matrix square root. a: (n, dim), b: (m, dim)."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    with warnings.catch_warnings():  # SciPy warns of singular covariances, on which its root is inexact
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(root)))


def kernel_distance_by_pairs(a: Array, b: Array) -> float:
    """100 times the unbiased MMD^2, pair by pair; bandwidth: median distance between two rows of b. a: (n, dim), b: (m, dim)."""
    sigma = np.median([np.linalg.norm(b[i] - b[j]) for i in range(len(b)) for j in range(i)])

    def k(x: Array, y: Array) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * sigma**2)))

    def within(rows: Array) -> float:
        return float(np.mean([k(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j]))

    across = np.mean([k(x, y) for x in a for y in b])
    return float(100 * (within(a) + within(b) - 2 * across))


def spectrogram(samples: Array, frame: int, hop: int, n_fft: int) -> Array:
    """Magnitudes (frames, n_fft // 2 + 1) of frames that start at 0, hop, ...; each under a periodic Hann window."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    starts = range(0, len(samples) - frame + 1, hop)
    return np.stack([np.abs(np.fft.rfft(samples[start : start + frame] * window, n_fft)) for start in starts])


def audioldm_log_mel(samples: Array) -> Array:
    """AudioLDM's mel of 16 kHz audio -> (frames, 64): reflected margins, Slaney's bands of equal area, log of at least 1e-5."""
    margin = (1024 - 160) // 2
    magnitude = spectrogram(np.pad(samples, margin, mode="reflect"), 1024, 160, 1024)
    top = 15 + np.log(8.0) / (np.log(6.4) / 27)  # 8 kHz in Slaney's mel: linear to 1 kHz, which is 15, then logarithmic
    mel = np.linspace(0, top, 66)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    bins = np.arange(513) * 16_000 / 1024
    filters = np.stack([_triangle(bins, *edges[i : i + 3]) * 2 / (edges[i + 2] - edges[i]) for i in range(64)], axis=1)
    return np.log(np.maximum(magnitude @ filters, 1e-5))


def vggish_log_mel(samples: Array) -> Array:
    """VGGish's mel of 16 kHz audio -> (frames, 64): as Google's ``mel_features.py`` defines it, triangles over mel."""

    def mel(hz: Array) -> Array:
        return 1127.0 * np.log(1.0 + hz / 700.0)

    edges = np.linspace(mel(np.array(125.0)), mel(np.array(7500.0)), 66)
    bins = mel(np.arange(257) * 16_000 / 512)
    filters = np.stack([_triangle(bins, *edges[i : i + 3]) for i in range(64)], axis=1)
    return np.log(spectrogram(samples, 400, 160, 512) @ filters + 0.01)


def _triangle(x: Array, low: float, centre: float, high: float) -> Array:
    return np.maximum(0, np.minimum((x - low) / (centre - low), (high - x) / (high - centre)))


def pooled_loa(blocks: list[Array]) -> Array:
    """AudioLDM2's pooling. blocks: normed outputs (1 + patches, dim) of the blocks that count, cls first -> LOA (8, dim).

    Their mean without cls lies on a grid of time by 8 bands; token t is the mean of the mean and the maximum of its eighth.
    """
    patches = np.mean([block[1:] for block in blocks], axis=0)
    eighth = len(patches) // 8
    parts = [patches[t * eighth : (t + 1) * eighth] for t in range(8)]
    return np.stack([(part.mean(0) + part.max(0)) / 2 for part in parts])


def audiomae_normalised(bank: Array, num_frames: int) -> Array:
    """AudioMAE's order: zeros up to num_frames, then (x - mean) / (2 std), so that padding is not zero. bank: (frames, 128)."""
    padded = np.zeros((num_frames, bank.shape[1]))
    padded[: len(bank)] = bank[:num_frames]
    return (padded + 4.2677393) / (2 * 4.5689974)
