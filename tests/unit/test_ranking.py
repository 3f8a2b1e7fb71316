import numpy as np
import pytest

from timbre_ray.evaluate.ranking import mean_confidences, rank


def test_rank_among_sorted_means() -> None:
    means = mean_confidences(["piano", "flute", "organ"], np.array([[0.2, 0.9, 0.1], [0.4, 0.7, 0.0]]))
    assert means == pytest.approx({"piano": 0.3, "flute": 0.8, "organ": 0.05})
    assert (rank("flute", means), rank("piano", means), rank("organ", means)) == (1, 2, 3)


def test_ties_count_against_the_class() -> None:
    assert rank("piano", {"piano": 0.0, "flute": 0.0, "organ": 0.0}) == 3


def test_unknown_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="'dizi'.*piano, flute"):
        rank("dizi", {"piano": 0.1, "flute": 0.2})
