import warnings

import numpy as np
import pytest
import scipy.linalg

from timbre_ray.evaluate.frechet import frechet_distance


def reference(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula, with SciPy's matrix square root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    with warnings.catch_warnings():  # SciPy warns of singular covariances; the tolerance below allows for them
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(root)))


@pytest.mark.parametrize(("n", "m", "dim"), [(200, 300, 16), (96, 96, 16), (20, 15, 40), (2, 3, 5)])
def test_equals_the_textbook_formula(n: int, m: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(dim, dim))
    a, b = rng.normal(size=(n, dim)) @ mixing, rng.normal(size=(m, dim)) * 2 + 1
    tolerance = 1e-6 if min(n, m) > dim else 1e-3  # sqrtm itself is inexact on singular covariances
    assert frechet_distance(a, b) == pytest.approx(reference(a, b), rel=tolerance)


def test_known_values() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(50, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 3) == pytest.approx(4 * 9)  # a shift alone: the squared distance of the means
    centred = a - a.mean(0)
    assert frechet_distance(centred, 2 * centred) == pytest.approx(np.trace(np.cov(a, rowvar=False)))  # (2 - 1)^2 * trace


def test_is_symmetric() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(40, 8)) * 3
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


@pytest.mark.parametrize(
    ("a", "message"),
    [(np.ones((1, 3)), "at least two"), (np.ones((5, 4)), "as many columns"), (np.full((5, 3), np.nan), "not finite")],
)
def test_refuses_what_it_cannot_score(a: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, np.random.default_rng(3).normal(size=(5, 3)))
