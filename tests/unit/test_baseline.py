"""The benchmarks' peers' way does the same arithmetic as ours: what is faster gives the same losses, audio and distances."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import generation, scoring, teacher, training_step
from timbre_ray.backbones import MINI
from timbre_ray.models.backbone import Backbone
from timbre_ray.models.vggish import VGGish
from timbre_ray.specs import TeacherSpec


def test_dreambooth_losses_are_the_same(backbone: Backbone, tmp_path: Path) -> None:
    """Four accumulated items, instance and class together and texts padded, against cached latents and prompts."""
    spec = dataclasses.replace(training_step.SPEC, steps=2, gradient_accumulation=2)
    losses = {}
    for mode in ("theirs", "ours-one-by-one"):
        (tmp_path / mode).mkdir()
        losses[mode] = list(training_step.losses_of(mode, backbone, tmp_path / mode, spec))
    assert losses["ours-one-by-one"] == pytest.approx(losses["theirs"], rel=1e-3)
    assert losses["theirs"][0] != pytest.approx(losses["theirs"][1], rel=1e-2), "two steps see different clips and noise"


def test_teacher_forcing_has_the_same_loss_curve(backbone: Backbone, tmp_path: Path) -> None:
    spec = TeacherSpec(epochs=3, lr=1e-3, batch_size=3)  # eight clips: the last batch is smaller
    files = teacher.write_target(backbone, tmp_path)
    ours, theirs = teacher.ours(backbone, tmp_path, spec), teacher.theirs(backbone, files, spec)
    assert len(ours) == 9 and ours == pytest.approx(theirs, rel=1e-3)
    assert ours[-1] < ours[0]


def test_distances_are_the_same(tmp_path: Path) -> None:
    target, models = scoring.write_folders(tmp_path, 2)
    theirs = scoring.theirs(target, models, VGGish.from_pretrained(MINI / "vggish"))
    assert scoring.ours(target, models) == pytest.approx(theirs, rel=1e-4)
    assert theirs[0] != pytest.approx(theirs[1], rel=1e-2)


def test_generated_clips_are_the_same(backbone: Backbone) -> None:
    ours, theirs = generation.ours(backbone, 2), generation.theirs(backbone, 2)
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=2e-3)
    assert not np.allclose(ours[0], ours[1], atol=2e-3)
