"""A data set in NSynth's layout of three families that nobody can confuse, and a small AudioMAE to hear them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from timbre_ray.models.audiomae import AudioMAE

RATE_HZ = 16_000
#: Samples that the small AudioMAE hears at once: 128 frames.
HEARD = 20_480


def sound(family: str, seed: int, num_samples: int = HEARD) -> np.ndarray:
    """A steady tone (flute), a low buzz (bass) or a burst of noise (mallet) -> (num_samples,)."""
    rng, time_s = np.random.default_rng(seed), np.arange(num_samples) / RATE_HZ
    frequency_hz = rng.uniform(0.9, 1.1)
    shapes = {
        "flute": np.sin(2 * np.pi * 900 * frequency_hz * time_s),
        "bass": np.sign(np.sin(2 * np.pi * 70 * frequency_hz * time_s)),
        "mallet": rng.normal(size=num_samples) * np.exp(-6 * time_s),
    }
    return (0.3 * shapes[family]).astype(np.float32)


def write_split(folder: Path, notes: list[tuple[str, str]], seed: int = 0) -> Path:
    """(family, instrument) of each note -> a split's folder."""
    (folder / "audio").mkdir(parents=True)
    examples = {}
    for i, (family, instrument) in enumerate(notes):
        name = f"{instrument}-{60 + i:03d}-100"
        soundfile.write(folder / "audio" / f"{name}.wav", sound(family, seed + i), RATE_HZ)
        examples[name] = {"note_str": name, "instrument_str": instrument, "instrument_family_str": family, "pitch": 60 + i}
    (folder / "examples.json").write_text(json.dumps(examples, indent=4))
    return folder


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
