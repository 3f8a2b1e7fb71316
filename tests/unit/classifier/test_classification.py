"""The classifier's figures against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from timbre_ray.evaluate.classification import cluster_interval, mean_average_precision, measure, measure_mixtures

NAMES = ("a", "b", "c", "d")
TRUE = np.array([0, 0, 0, 1, 1, 2])
CONFIDENCES = np.array(
    [
        [0.9, 0.1, 0.2, 0.0],  # a, right
        [0.6, 0.7, 0.1, 0.0],  # a, taken for b
        [0.8, 0.2, 0.3, 0.0],  # a, right
        [0.1, 0.9, 0.0, 0.0],  # b, right
        [0.7, 0.3, 0.0, 0.0],  # b, taken for a
        [0.2, 0.1, 0.1, 0.0],  # c, taken for a
    ]
)


def test_measures_by_hand() -> None:
    measures = measure(NAMES, TRUE, CONFIDENCES, list("uuvwwx"))
    a, b, c, d = measures.classes
    assert measures.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert measures.accuracy == pytest.approx(3 / 6) and measures.num_clips == 6 and measures.num_sources == 4
    assert (a.num_clips, a.precision, a.recall) == (3, pytest.approx(2 / 4), pytest.approx(2 / 3))
    assert (b.precision, b.recall) == (pytest.approx(1 / 2), pytest.approx(1 / 2))
    assert (c.precision, c.recall) == (None, 0.0), "nothing was taken for it: its precision is not defined"
    assert (d.num_clips, d.precision, d.recall, d.average_precision) == (0, None, None, None)
    # By confidence in a: a, a, b, a, c, b -> precision 1 and 1 and 3/4 where an a comes up.
    assert a.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    # By confidence in b: b, a, b, ... -> 1 and 2/3.
    assert b.average_precision == pytest.approx((1 + 2 / 3) / 2)
    # By confidence in c: a, a, then a tie of a and c -> 1/4 at the tie.
    assert c.average_precision == pytest.approx(1 / 4)
    assert measures.mean_average_precision == pytest.approx((11 / 12 + 5 / 6 + 1 / 4) / 3)
    assert measures.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_mixtures_by_hand() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], float)
    confidences = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.1, 0.5, 0.4]])
    found = measure_mixtures(labels, confidences)
    assert (found.num_clips, found.both_on_top) == (3, pytest.approx(2 / 3))
    assert found.mean_average_precision == pytest.approx(mean_average_precision(labels, confidences))


def test_absent_classes_are_left_out_of_the_mean() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0]], float)
    assert mean_average_precision(labels, np.array([[0.9, 0.1, 0.5], [0.2, 0.8, 0.5]])) == 1.0


def test_the_interval_draws_sources_not_clips() -> None:
    values = np.array([1.0] * 50 + [0.0] * 50)
    assert cluster_interval(values, ["right"] * 50 + ["wrong"] * 50, seed=0) == (0.0, 1.0), "two sources: all or nothing"
    low, high = cluster_interval(values, [str(i) for i in range(100)], seed=0)
    assert 0.38 < low < 0.44 and 0.56 < high < 0.62, "a hundred sources: close to the binomial's 0.40 and 0.60"
    assert cluster_interval(np.ones(4), list("aabb"), seed=0) == (1.0, 1.0)


def test_an_interval_is_drawn_over_sources_whatever_their_size() -> None:
    assert cluster_interval(np.array([1.0] * 9 + [0.0]), ["a"] * 9 + ["b"], seed=0) == (0.0, 1.0)
