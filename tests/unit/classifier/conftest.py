"""A small data set in NSynth's layout, and a small AudioMAE to hear it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from instruments import write_split

from timbre_ray.models.audiomae import AudioMAE


@pytest.fixture
def nsynth(tmp_path: Path) -> Path:
    """4 training notes, 2 for validation and 2 for the test of each of bass, flute and mallet."""
    root = tmp_path / "nsynth"
    for seed, (split, num) in enumerate((("train", 4), ("valid", 2), ("test", 2))):
        notes = [(family, f"{family}_{split}_{i:03d}") for family in ("mallet", "flute", "bass") for i in range(num)]
        write_split(root / f"nsynth-{split}", notes, seed=100 * seed)
    return root


@pytest.fixture(scope="session")
def audiomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AudioMAE(num_frames=128, embed_dim=16, depth=3, num_heads=2)
    folder = tmp_path_factory.mktemp("small") / "audiomae"
    model.save_pretrained(folder)
    return folder
