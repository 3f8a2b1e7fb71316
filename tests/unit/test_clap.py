"""CLAP-T and CLAP-A: on vectors of known angles, and on the miniature's own CLAP."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows
from timbre_ray.evaluate.clap import clap_a, clap_t
from timbre_ray.models.backbone import Backbone
from timbre_ray.models.embedders import ClapEmbedder, load_embedder
from timbre_ray.specs import ClipsSpec


def test_known_angles() -> None:
    audio = np.array([[2.0, 0.0], [0.0, 3.0]])  # lengths do not count
    assert clap_t(audio, np.array([1.0, 0.0])) == pytest.approx(0.5)
    assert clap_t(-audio, np.array([5.0, 5.0])) == pytest.approx(-np.sqrt(0.5))
    assert clap_a(audio[:1], np.array([[9.0, 0.0], [0.0, 1.0]])) == pytest.approx(np.sqrt(0.5)), "each recording counts alike"
    assert clap_a(audio[:1], audio[:1]) == pytest.approx(1)


@pytest.mark.parametrize("broken", [np.zeros((2, 3)), np.full((2, 3), np.nan)])
def test_what_has_no_direction_is_an_error(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no length, or not finite"):
        clap_t(broken, np.ones(3))


def test_text_is_embedded_as_the_pipeline_embeds_it(backbone: Backbone) -> None:
    prompts = ["A recording of a piano.", "A recording of a flute solo."]
    ours = load_embedder("clap").embed_text(prompts)
    pipe = backbone.pipeline
    tokens = pipe.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        theirs = pipe.text_encoder.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
    assert torch.allclose(ours, theirs / theirs.norm(dim=1, keepdim=True), atol=1e-5)


def test_recordings_are_nearer_to_their_own_timbre() -> None:
    embedder = load_embedder("clap")
    assert isinstance(embedder, ClapEmbedder)

    def rows(name: str, split: str) -> np.ndarray:
        clips = load_windows(getattr(find_files(ClipsSpec(path=f"mini:{name}")), split)[:8], 40_960)
        return embedder(clips).flatten(0, 1).double().numpy()

    held_out = rows("chinese_flute_v1", "held_out")
    assert clap_a(rows("chinese_flute_v1", "train"), held_out) > clap_a(rows("chinese_lute", "train"), held_out)
