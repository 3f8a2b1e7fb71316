"""Labelled windows and their mixtures as features: labels in memory, features in the cache on disk."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from timbre_ray.data.features import normalise_waveform
from timbre_ray.data.recordings import Window, read_window
from timbre_ray.train.feature_cache import FeatureCache

#: Windows that AudioMAE reads at once.
BATCH = 16
#: Two instruments of a mixture have equal RMS but for a gain drawn up to this, either way.
MAX_GAIN_DB = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Two instruments at once, ``second`` louder than ``first`` by ``gain_db`` of RMS."""

    first: Window
    second: Window
    gain_db: float

    def waveform(self, num_samples: int) -> Tensor:
        """-> (num_samples,), mean removed, peak 0.5."""
        first, second = (read_window(window, num_samples) for window in (self.first, self.second))
        return normalise_waveform(first / _rms(first) + 10 ** (self.gain_db / 20) * second / _rms(second))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """What a classifier learns from or is tried on."""

    labels: Tensor  # (num_examples, num_classes) of 0 and 1
    sources: tuple[str, ...]  # of each example: the instrument or song that it comes from
    keys: tuple[bytes, ...]
    cache: FeatureCache

    def __len__(self) -> int:
        return len(self.keys)

    def features(self, rows: Tensor) -> Tensor:
        """rows: (batch,) -> LOA (batch, 8, embed_dim)."""
        return self.cache.read([self.keys[row] for row in rows.tolist()])

    def joined(self, other: Examples) -> Examples:
        return Examples(
            labels=torch.cat([self.labels, other.labels]), sources=self.sources + other.sources, keys=self.keys + other.keys,
            cache=self.cache,
        )  # fmt: skip


def single_examples(windows: Sequence[Window], classes: Sequence[str], cache: FeatureCache, num_samples: int) -> Examples:
    """One example a window, labelled with its one class."""
    waveforms = (read_window(window, num_samples) for window in windows)
    labels = multi_hot([(window.label,) for window in windows], classes)
    return Examples(labels=labels, sources=tuple(w.source for w in windows), keys=_keys(waveforms, cache), cache=cache)


def mixture_examples(mixtures: Sequence[Mixture], classes: Sequence[str], cache: FeatureCache, num_samples: int) -> Examples:
    """One example a mixture, labelled with both classes."""
    waveforms = (mixture.waveform(num_samples) for mixture in mixtures)
    labels = multi_hot([(m.first.label, m.second.label) for m in mixtures], classes)
    sources = tuple(f"{m.first.source}+{m.second.source}" for m in mixtures)
    return Examples(labels=labels, sources=sources, keys=_keys(waveforms, cache), cache=cache)


def draw_mixtures(windows: Sequence[Window], num: int, seed: int) -> list[Mixture]:
    """Pairs of windows of two classes: the classes are drawn alike, so that a rare one is mixed as often as a common one."""
    by_class: dict[str, list[Window]] = {}
    for window in windows:
        by_class.setdefault(window.label, []).append(window)
    if num and len(by_class) < 2:
        raise ValueError(f"mixtures: needs two classes, and there is only {', '.join(by_class) or 'none'}; set mixtures to 0")
    names, rng = sorted(by_class), np.random.default_rng(seed)
    drawn = []
    for _ in range(num):
        first, second = (by_class[names[i]] for i in rng.choice(len(names), 2, replace=False))
        gain_db = float(rng.uniform(-MAX_GAIN_DB, MAX_GAIN_DB))
        drawn.append(Mixture(first=first[rng.integers(len(first))], second=second[rng.integers(len(second))], gain_db=gain_db))
    return drawn


def multi_hot(rows: Sequence[tuple[str, ...]], classes: Sequence[str]) -> Tensor:
    """Names of each example -> (num_examples, num_classes) of 0 and 1."""
    index = {name: column for column, name in enumerate(classes)}
    labels = torch.zeros(len(rows), len(classes))
    for row, names in enumerate(rows):
        for name in names:
            labels[row, index[name]] = 1.0
    return labels


def balanced_weights(labels: Tensor) -> Tensor:
    """labels: (num_examples, num_classes) -> (num_examples,) of mean 1, by which every class weighs alike in a sum over examples.

    An example weighs as the mean of 1 / count over its classes. The mean confidence stays that of a balanced set, where a
    weight on the positives alone would raise it.
    """
    shares = labels / labels.sum(0).clamp_min(1)
    weights = shares.sum(1) / labels.sum(1)
    return weights / weights.mean()


def _keys(waveforms: Iterator[Tensor], cache: FeatureCache) -> tuple[bytes, ...]:
    return tuple(key for batch in _batched(waveforms) for key in cache.keys(torch.stack(batch)))


def _batched(waveforms: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    waveforms = iter(waveforms)
    while batch := list(itertools.islice(waveforms, BATCH)):
        yield batch


def _rms(waveform: Tensor) -> Tensor:
    return waveform.square().mean().sqrt()
