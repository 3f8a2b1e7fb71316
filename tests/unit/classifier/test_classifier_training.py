"""Labels, weights, mixtures and the training loop of the instrument classifier."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from instruments import HEARD

from timbre_ray.classifier_specs import ClassifierSpec
from timbre_ray.data.nsynth import read_notes
from timbre_ray.data.recordings import Window, read_window
from timbre_ray.train.classifier import confidences, train_classifier, weighted_bce
from timbre_ray.train.classifier_examples import (
    Examples,
    Mixture,
    balanced_weights,
    draw_mixtures,
    mixture_examples,
    multi_hot,
    single_examples,
)
from timbre_ray.train.feature_cache import FeatureCache

CLASSES = ("bass", "flute", "mallet")


@pytest.fixture
def examples(nsynth: Path, audiomae: Path, tmp_path: Path) -> tuple[Examples, Examples]:
    cache = FeatureCache(tmp_path / "work", audiomae)
    return tuple(single_examples(list(read_notes(nsynth, s)), CLASSES, cache, HEARD) for s in ("train", "valid"))


def windows(**counts: int) -> list[Window]:
    return [Window(path=Path("x"), label=name, source=f"{name}{i}") for name, num in counts.items() for i in range(num)]


def test_labels_of_singles_and_mixtures() -> None:
    assert multi_hot([("flute",), ("bass", "mallet")], CLASSES).tolist() == [[0, 1, 0], [1, 0, 1]]


def test_weights_make_classes_count_alike() -> None:
    labels = multi_hot([("bass",)] * 6 + [("flute",)] * 2 + [("mallet",)], CLASSES)
    weights = balanced_weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert (weights @ labels).tolist() == pytest.approx([3, 3, 3])
    mixed = balanced_weights(multi_hot([("bass",), ("bass",), ("bass", "flute")], CLASSES))
    # 1/3, 1/3 and the mean of 1/3 and 1, over their mean of 4/9.
    assert mixed.tolist() == pytest.approx([0.75, 0.75, 1.5])


def test_loss_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, 0.0], [100.0, -100.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = weighted_bce(logits, labels, torch.tensor([0.5, 1.5]))
    assert float(loss) == pytest.approx(0.5 * torch.log(torch.tensor(2.0)).item() / 2)


def test_mixtures_are_of_two_classes_drawn_alike() -> None:
    drawn = draw_mixtures(windows(bass=1000, flute=10, mallet=2), 3000, seed=0)
    assert all(m.first.label != m.second.label and abs(m.gain_db) <= 3 for m in drawn)
    named = Counter(w.label for m in drawn for w in (m.first, m.second))
    assert all(1900 < count < 2100 for count in named.values()), "each class is in two thirds of the mixtures"
    again, other = (draw_mixtures(windows(bass=1000, flute=10, mallet=2), 3000, seed) for seed in (0, 1))
    assert drawn == again != other
    with pytest.raises(ValueError, match="needs two classes, and there is only bass"):
        draw_mixtures(windows(bass=3), 1, seed=0)
    assert draw_mixtures(windows(bass=3), 0, seed=0) == []


def test_a_mixture_is_the_sum_at_the_drawn_ratio(nsynth: Path, audiomae: Path, tmp_path: Path) -> None:
    first, *_, second = read_notes(nsynth, "train")
    mixture = Mixture(first=first, second=second, gain_db=2.0)
    mixed = mixture.waveform(HEARD)
    alone = torch.stack([read_window(w, HEARD) for w in (first, second)])
    shares = torch.linalg.lstsq(alone.double().T, mixed.double()[:, None]).solution[:, 0]
    rms = shares.float() * alone.square().mean(1).sqrt()
    assert 20 * torch.log10(rms[1] / rms[0]) == pytest.approx(2.0, abs=1e-3)
    assert float(mixed.abs().max()) == pytest.approx(0.5)
    cache = FeatureCache(tmp_path / "work", audiomae)
    examples = mixture_examples([mixture], CLASSES, cache, HEARD)
    assert examples.labels.tolist() == [[1, 0, 1]]
    assert torch.equal(examples.features(torch.tensor([0])), cache.read(cache.keys(mixed[None])))


def test_training_is_repeatable_and_leaves_the_callers_random_numbers_alone(examples: tuple[Examples, Examples]) -> None:
    train, valid = examples
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, log = train_classifier(CLASSES, train, valid, ClassifierSpec(epochs=3, batch_size=5))
    assert torch.equal(torch.rand(3), expected)
    second, again = train_classifier(CLASSES, train, valid, ClassifierSpec(epochs=3, batch_size=5))
    assert log == again and all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other, _ = train_classifier(CLASSES, train, valid, ClassifierSpec(epochs=3, batch_size=5, seed=1))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_it_learns_and_keeps_the_best_epoch(examples: tuple[Examples, Examples]) -> None:
    train, valid = examples
    rows = []
    model, log = train_classifier(CLASSES, train, valid, ClassifierSpec(epochs=30, batch_size=4, lr=0.01), on_epoch=rows.append)
    assert rows == log and [row["epoch"] for row in log] == list(range(1, 31))
    assert not model.training and log[-1]["loss"] < log[0]["loss"] / 2
    found = confidences(model, valid)
    assert (found.argmax(1) == valid.labels.argmax(1)).all()
    best = max(log, key=lambda row: row["valid_map"])
    again = torch.nn.functional.binary_cross_entropy(found, valid.labels)
    assert float(again) == pytest.approx(best["valid_loss"]), "the weights are those of the best epoch"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"epochs": 0}, "epochs=0: must be at least 1"), ({"mixtures": -1}, "mixtures=-1"), ({"lr": 0}, "lr=0")],
)
def test_settings_are_checked(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassifierSpec(**change)
