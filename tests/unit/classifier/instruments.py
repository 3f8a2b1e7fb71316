"""Four families that nobody can confuse, as sound and as a split in NSynth's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000
#: Samples that the small AudioMAE hears at once: 128 frames.
HEARD = 20_480


def sound(family: str, seed: int, num_samples: int = HEARD) -> np.ndarray:
    """A steady tone (flute), a low buzz (bass), a burst of noise (mallet), a dying chord (keyboard) -> (num_samples,)."""
    rng, time_s = np.random.default_rng(seed), np.arange(num_samples) / RATE_HZ
    frequency_hz = rng.uniform(0.9, 1.1)
    shapes = {
        "flute": np.sin(2 * np.pi * 900 * frequency_hz * time_s),
        "bass": np.sign(np.sin(2 * np.pi * 70 * frequency_hz * time_s)),
        "mallet": rng.normal(size=num_samples) * np.exp(-6 * time_s),
        "keyboard": sum(np.sin(2 * np.pi * hz * frequency_hz * time_s) for hz in (220, 277, 330)) / 3 * np.exp(-2 * time_s),
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
