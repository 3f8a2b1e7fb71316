"""How well a classifier tells instruments apart: the figures of the paper's section 4.1. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support

NUM_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassMeasures:
    """One class. None: not defined, because no clip of it was tried (or, for precision, none was taken for it)."""

    name: str
    num_clips: int
    precision: float | None
    """Of the clips that are taken for it, the share that are it; a clip is taken for its most confident class."""
    recall: float | None
    """Of its clips, the share that are taken for it."""
    average_precision: float | None
    """Area under precision over recall, as the threshold on its confidence falls."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    classes: tuple[ClassMeasures, ...]
    accuracy: float
    """Share of clips whose most confident class is theirs."""
    accuracy_interval: tuple[float, float]
    """95 %, by drawing the sources (instruments, songs) anew: clips of one source are right or wrong together."""
    num_sources: int
    confusion: NDArray[np.int64]
    """(true class, class taken for) -> clips."""

    @property
    def num_clips(self) -> int:
        return int(self.confusion.sum())

    @property
    def mean_average_precision(self) -> float:
        """Over the classes that were tried."""
        return float(np.mean([c.average_precision for c in self.classes if c.average_precision is not None]))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that were tried."""
        return float(np.mean([c.recall for c in self.classes if c.recall is not None]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureMeasures:
    """Clips of two instruments."""

    num_clips: int
    both_on_top: float
    """Share of mixtures whose two instruments are the two most confident classes."""
    mean_average_precision: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that is known of a classifier on one split."""

    split: str
    measures: Measures
    mixtures: MixtureMeasures | None
    """None where only one class was there to mix."""
    training: dict[str, Any]
    """``training.json`` of the classifier."""
    about_data: str = ""
    """Markdown: what the data set says of itself."""


def measure(
    names: Sequence[str], true: NDArray[np.int64], confidences: NDArray[np.float64], sources: Sequence[str], seed: int = 0
) -> Measures:
    """true: (num_clips,) index of each clip's class; confidences: (num_clips, num_classes); sources: what clips come from."""
    taken, columns = confidences.argmax(1), np.arange(len(names))
    precision, recall, _, support = precision_recall_fscore_support(true, taken, labels=columns, zero_division=np.nan)
    classes = tuple(
        ClassMeasures(
            name=name, num_clips=int(support[i]), precision=_defined(precision[i]), recall=_defined(recall[i]),
            average_precision=float(average_precision_score(true == i, confidences[:, i])) if support[i] else None,
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    right = (taken == true).astype(np.float64)
    return Measures(
        classes=classes, accuracy=float(right.mean()), accuracy_interval=cluster_interval(right, sources, seed),
        num_sources=len(set(sources)), confusion=confusion_matrix(true, taken, labels=columns),
    )  # fmt: skip


def measure_mixtures(labels: NDArray[np.float64], confidences: NDArray[np.float64]) -> MixtureMeasures:
    """labels, confidences: (num_clips, num_classes), two labels a clip."""
    top = np.argsort(-confidences, axis=1, kind="stable")[:, :2]
    both = np.take_along_axis(labels, top, axis=1).sum(1) == 2
    return MixtureMeasures(
        num_clips=len(labels), both_on_top=float(both.mean()), mean_average_precision=mean_average_precision(labels, confidences)
    )


def mean_average_precision(labels: NDArray[np.float64], confidences: NDArray[np.float64]) -> float:
    """labels, confidences: (num_clips, num_classes) -> mean of average precision over the classes that have clips."""
    present = labels.sum(0) > 0
    return float(average_precision_score(labels[:, present], confidences[:, present], average="macro"))


def cluster_interval(values: NDArray[np.float64], sources: Sequence[str], seed: int) -> tuple[float, float]:
    """values: (num_clips,) -> 2.5th and 97.5th percentile of their mean when the sources are drawn with replacement."""
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    sums, counts = np.bincount(cluster, weights=values), np.bincount(cluster)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
