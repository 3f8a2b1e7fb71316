import numpy as np
import pytest

from timbre_ray.evaluate.frechet import clip_distances, frechet_distance, frechet_infinity
from timbre_ray.parity.references import frechet_by_sqrtm


@pytest.mark.parametrize(("n", "m", "dim"), [(200, 300, 16), (96, 96, 16), (20, 15, 40), (2, 3, 5)])
def test_equals_the_textbook_formula(n: int, m: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(dim, dim))
    a, b = rng.normal(size=(n, dim)) @ mixing, rng.normal(size=(m, dim)) * 2 + 1
    tolerance = 1e-6 if min(n, m) > dim else 1e-3  # sqrtm itself is inexact on singular covariances
    assert frechet_distance(a, b) == pytest.approx(frechet_by_sqrtm(a, b), rel=tolerance)


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


def gaussian_clips(num_clips: int, rows: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng([seed, 1]).normal(shift, 1.0, size=(num_clips, rows, dim))


@pytest.mark.parametrize(("num_clips", "rows", "dim", "shift"), [(32, 1, 8, 0.0), (64, 1, 16, 0.3), (64, 4, 64, 0.3)])
def test_infinity_is_nearer_to_the_true_distance(num_clips: int, rows: int, dim: int, shift: float) -> None:
    """Of Gaussians of one covariance the true distance is that of the means."""
    reference = np.random.default_rng(0).normal(size=(1000, dim))
    plain, extrapolated = [], []
    for seed in range(8):
        clips = gaussian_clips(num_clips, rows, dim, seed, shift)
        plain.append(frechet_distance(clips.reshape(-1, dim), reference) - dim * shift**2)
        extrapolated.append(frechet_infinity(clips, reference, seed=seed) - dim * shift**2)
    assert abs(np.mean(extrapolated)) < 0.4 * np.mean(plain)
    assert np.mean(np.abs(extrapolated) < np.abs(plain)) > 0.7


def test_infinity_repeats_by_its_seed() -> None:
    clips, reference = gaussian_clips(32, 2, 8, 0), np.random.default_rng(0).normal(size=(100, 8))
    assert frechet_infinity(clips, reference, seed=1) == frechet_infinity(clips, reference, seed=1)
    assert frechet_infinity(clips, reference, seed=1) != frechet_infinity(clips, reference, seed=2)


@pytest.mark.parametrize(("num_clips", "rows"), [(31, 4), (32, 1)])
def test_infinity_of_too_few_is_refused(num_clips: int, rows: int) -> None:
    message = f"{num_clips * rows} embeddings of {num_clips} clips in 20 dimensions.*at least 40 embeddings, of at least 32 clips"
    with pytest.raises(ValueError, match=message):
        frechet_infinity(gaussian_clips(num_clips, rows, 20, 0), np.zeros((50, 20)), seed=0)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_planted_outlier_is_the_farthest_clip(rows: int) -> None:
    clips, reference = gaussian_clips(20, rows, 16, 0), np.random.default_rng(3).normal(size=(200, 16))
    clips[7] += 3
    distances = clip_distances(clips, reference)
    assert distances.shape == (20,) and int(distances.argmax()) == 7
    expected = frechet_distance(np.repeat(clips[0], 2, axis=0), reference) if rows == 1 else frechet_distance(clips[0], reference)
    assert distances[0] == pytest.approx(expected)  # two equal rows have no spread, as one has none
    with pytest.raises(ValueError, match="num_clips, rows, dim"):
        clip_distances(clips[0], reference)
