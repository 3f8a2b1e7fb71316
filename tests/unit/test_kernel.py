"""The kernel distance against its definition, and what it is for: no bias where clips are few."""

from __future__ import annotations

import numpy as np
import pytest

from timbre_ray.evaluate.kernel import kernel_distance, median_distance


def gaussian(count: int, seed: int, dim: int = 8, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, dim))


def test_equals_the_definition_summed_pair_by_pair() -> None:
    a, b = gaussian(5, 0), gaussian(7, 1, shift=0.5)
    sigma = np.median([np.linalg.norm(b[i] - b[j]) for i in range(7) for j in range(i)])
    assert median_distance(b) == pytest.approx(sigma, rel=1e-12)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / (2 * sigma**2)))

    within_a = np.mean([k(a[i], a[j]) for i in range(5) for j in range(5) if i != j])
    within_b = np.mean([k(b[i], b[j]) for i in range(7) for j in range(7) if i != j])
    across = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(100 * (within_a + within_b - 2 * across), rel=1e-10)


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
