"""What the kernel distance is for: no bias where clips are few. Its definition: ``tests/contract/test_parity.py``."""

from __future__ import annotations

import numpy as np
import pytest

from timbre_ray.evaluate import kernel
from timbre_ray.evaluate.kernel import kernel_distance, kernel_interval


def gaussian(count: int, seed: int, dim: int = 8, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, dim))


def test_has_no_bias_where_rows_are_few() -> None:
    values = [kernel_distance(gaussian(10, 2 * i), gaussian(200, 2 * i + 1)) for i in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert kernel_distance(gaussian(10, 0, shift=1.0), gaussian(200, 1)) > max(values)


@pytest.mark.parametrize(
    ("generated", "reference", "message"),
    [
        (gaussian(1, 0), gaussian(5, 1), "at least two rows"),
        (gaussian(5, 0), gaussian(5, 1, dim=7), "8 and 7 dimensions"),
        (np.full((5, 8), np.nan), gaussian(5, 1), "not finite"),
        (gaussian(5, 0), np.ones((5, 8)), "all alike"),
    ],
)
def test_what_cannot_be_scored_is_an_error(generated: np.ndarray, reference: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_distance(generated, reference)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Twenty clips of four rows that depend on one another; the truth is the mean over many other such samples."""
    reference = gaussian(150, 0)

    def clips(seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, 1])
        return 0.5 + np.sqrt(0.7) * rng.normal(size=(20, 1, 8)) + np.sqrt(0.3) * rng.normal(size=(20, 4, 8))

    truth = np.mean([kernel_distance(clips(1000 + i).reshape(-1, 8), reference) for i in range(400)])
    intervals = np.array([kernel_interval(clips(i), reference, seed=i) for i in range(200)])
    covered = np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1]))
    assert 0.89 < covered < 0.99  # 0.95, less and more four standard errors of 200 draws
    narrower = np.array([kernel_interval(clips(i), reference, seed=i, level=0.5) for i in range(200)])
    assert 0.36 < np.mean((narrower[:, 0] <= truth) & (truth <= narrower[:, 1])) < 0.64


def test_the_interval_holds_its_distance_and_repeats_by_its_seed() -> None:
    clips, reference = gaussian(40, 0, shift=0.7).reshape(10, 4, 8), gaussian(50, 1)
    low, high = kernel_interval(clips, reference, seed=0)
    assert low < kernel_distance(clips.reshape(-1, 8), reference) < high
    assert kernel_interval(clips, reference, seed=0) == (low, high) != kernel_interval(clips, reference, seed=1)
    with pytest.raises(ValueError, match="1 clips"):
        kernel_interval(clips[:1], reference, seed=0)


def test_the_interval_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair of rows of every resample, one by one; no row is paired with itself or with a copy of its clip."""
    monkeypatch.setattr(kernel, "NUM_RESAMPLES", 40)
    clips, reference = gaussian(15, 0, dim=4).reshape(5, 3, 4), gaussian(9, 1, dim=4)
    bandwidth = kernel.median_distance(reference)

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * bandwidth**2)))

    def distance(counts: np.ndarray) -> float:
        drawn = [clip for clip, count in enumerate(counts) for _ in range(count)]
        rows = [(place, clip, row) for place, clip in enumerate(drawn) for row in range(3)]
        pairs = [
            alike(clips[i, r], clips[j, s]) for p, i, r in rows for q, j, s in rows if (p == q and r != s) or (p != q and i != j)
        ]
        across = [alike(clips[i, r], other) for _, i, r in rows for other in reference]
        return float(100 * (np.mean(pairs) + within - 2 * np.mean(across)))

    within = np.mean([alike(reference[i], reference[j]) for i in range(9) for j in range(9) if i != j])
    drawn = np.random.default_rng(7).multinomial(5, np.full(5, 0.2), size=40)
    expected = np.quantile([distance(counts) for counts in drawn], [0.025, 0.975])
    assert kernel_interval(clips, reference, seed=7) == pytest.approx(tuple(expected), rel=1e-9)
