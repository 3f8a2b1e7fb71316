"""Songs made here, for what reads recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 16_000


def melody(seed: int, seconds: float, level: float = 0.3) -> NDArray[np.float32]:
    """Random tones of 0.32 s with an attack and a decay: no two seeds sound the same."""
    rng, time = np.random.default_rng(seed), np.arange(int(0.32 * RATE_HZ)) / RATE_HZ
    tones = [np.exp(-3 * time) * np.sin(2 * np.pi * hz * time) for hz in rng.uniform(200, 2000, int(seconds / 0.32) + 1)]
    return (level * np.concatenate(tones)[: int(seconds * RATE_HZ)]).astype(np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * RATE_HZ), dtype=np.float32)


def write(path: Path, samples: NDArray[np.float32], rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)
    return path


def damage(path: Path) -> Path:
    """Its header stays, so that it opens; what follows cannot be decoded to the end."""
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 3000] = bytes(3000)
    path.write_bytes(content)
    return path
