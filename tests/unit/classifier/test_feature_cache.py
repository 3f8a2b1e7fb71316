"""AudioMAE's features: computed once for a content, the same from the disk as from the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from instruments import sound

from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.train.feature_cache import FeatureCache


def waveforms(*seeds: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(sound("flute", seed)) for seed in seeds])


def test_features_are_computed_once_and_kept(tmp_path: Path, audiomae: Path) -> None:
    cache = FeatureCache(tmp_path, audiomae)
    keys = cache.keys(waveforms(0, 1, 0))
    assert keys[0] == keys[2] != keys[1] and cache.num_computed == 2
    expected = AudioMAE.from_pretrained(audiomae).loa_of_waveform(waveforms(0, 1)).detach()
    assert torch.equal(cache.read(keys), expected[[0, 1, 0]])
    cache.close()
    again = FeatureCache(tmp_path, audiomae)
    assert again.keys(waveforms(1, 0)) == [keys[1], keys[0]] and again.num_computed == 0
    assert torch.equal(again.read([keys[1]]), expected[1:])


def test_another_audiomae_has_another_file(tmp_path: Path, audiomae: Path) -> None:
    other = AudioMAE(num_frames=128, embed_dim=16, depth=3, num_heads=2)
    other.save_pretrained(tmp_path / "other")
    (key,) = FeatureCache(tmp_path / "work", audiomae).keys(waveforms(0))
    cache = FeatureCache(tmp_path / "work", tmp_path / "other")
    assert len(list((tmp_path / "work").glob("loa-*.sqlite"))) == 2
    with pytest.raises(KeyError, match="no features under this key"):
        cache.read([key])
    assert cache.keys(waveforms(0)) == [key] and cache.num_computed == 1
