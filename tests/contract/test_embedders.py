"""What every embedder must do, and what the table must hold."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import torch

from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.kernel import kernel_distance
from timbre_ray.evaluate.scorer import embed_clips, embed_recordings
from timbre_ray.models.embedders import EMBEDDERS, load_embedder
from timbre_ray.specs import ClipsSpec, EmbedderName, EvaluateSpec


def shipped(name: str, split: str = "train") -> torch.Tensor:
    return load_windows(getattr(find_files(ClipsSpec(path=f"mini:{name}")), split)[:12], 40_960)


def test_the_table_holds_what_a_sweep_may_name() -> None:
    assert set(EMBEDDERS) == set(typing.get_args(EmbedderName))


@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_clips_rows_are_its_alone(name: str) -> None:
    clips = shipped("chinese_flute_v1")[:3]
    rows = load_embedder(name)(clips)
    assert rows.dtype == torch.float32 and rows.ndim == 3 and len(rows) == 3 and torch.isfinite(rows).all()
    assert torch.equal(rows, load_embedder(name)(clips)), "no draw enters"
    assert torch.allclose(rows[1], load_embedder(name)(clips[1:2])[0], atol=1e-5), "nor do the other clips of a batch"
    assert embed_clips(name, clips, batch_size=2).shape == (rows.shape[0] * rows.shape[1], rows.shape[2])


@pytest.mark.parametrize("name", EMBEDDERS)
def test_longer_clips_have_more_rows(name: str) -> None:
    clip = shipped("chinese_flute_v1")[:1]
    once, twice = load_embedder(name)(clip), load_embedder(name)(torch.cat([clip, clip], dim=1))
    assert twice.shape[1] >= 2 * once.shape[1] and torch.allclose(twice[0, : once.shape[1] - 1], once[0, :-1], atol=1e-4)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_other_recordings_of_the_timbre_lie_nearer_than_another_timbre(name: str) -> None:
    flute, held_out, lute = shipped("chinese_flute_v1"), shipped("chinese_flute_v1", "held_out"), shipped("chinese_lute")
    reference = embed_clips(name, held_out)
    for distance in (frechet_distance, kernel_distance):
        assert distance(embed_clips(name, flute), reference) < 0.5 * distance(embed_clips(name, lute), reference), (
            distance.__name__
        )


@pytest.mark.parametrize("fad", [(), ("vggish", "vggish")])
def test_embedders_are_distinct_and_there_is_one(fad: tuple[EmbedderName, ...]) -> None:
    with pytest.raises(ValueError, match="must be distinct embedders, at least one"):
        EvaluateSpec(fad=fad)


@pytest.mark.parametrize("name", EMBEDDERS)
@pytest.mark.parametrize("seconds", [1.5, 2.3])
def test_a_recording_that_does_not_fill_its_window_is_heard(name: str, seconds: float) -> None:
    whole = shipped("chinese_flute_v1")
    padded = whole.clone()
    padded[::2, round(seconds * 16_000) :] = 0.01  # what zeros became once the mean was removed
    rows = embed_recordings(name, padded)
    assert np.isfinite(rows).all() and rows.shape[1] == embed_clips(name, whole).shape[1]
    assert np.array_equal(embed_recordings(name, whole), embed_clips(name, whole)), "nothing is cut off what was recorded"
    other = embed_clips(name, shipped("chinese_lute"))
    assert frechet_distance(rows, embed_clips(name, whole)) < 0.5 * frechet_distance(other, embed_clips(name, whole))
