"""AudioMAE's view of windows of sound, computed once: an SQLite file of LOA keyed by the samples' content."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from timbre_ray.identity import folder_digest
from timbre_ray.models.audiomae import AudioMAE


class FeatureCache:
    """LOA of any number of windows on disk. One process writes at a time; a killed one loses its last batch alone."""

    def __init__(self, folder: Path, audiomae: Path, device: str = "cpu") -> None:
        """folder: where ``loa-DIGEST.sqlite`` lies. audiomae: folder of the model, whose content is in the name."""
        folder.mkdir(parents=True, exist_ok=True)
        self._model = AudioMAE.from_pretrained(audiomae).to(device).requires_grad_(False)
        self._device = device
        self._database = sqlite3.connect(folder / f"loa-{folder_digest(audiomae)}.sqlite")
        self._database.execute("CREATE TABLE IF NOT EXISTS loa (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.num_computed = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(8, embed_dim) of one window."""
        return AudioMAE.NUM_TOKENS, self._model.config["embed_dim"]

    @torch.no_grad()
    def keys(self, waveform: Tensor) -> list[bytes]:
        """waveform: (batch, samples) -> a key for each; what was not there yet is computed now."""
        keys = [hashlib.sha256(samples.numpy().tobytes()).digest()[:16] for samples in waveform]
        missing = {key: row for row, key in enumerate(keys) if not self._has(key)}
        if missing:
            loa = self._model.loa_of_waveform(waveform[list(missing.values())].to(self._device)).cpu().contiguous()
            rows = [(key, value.numpy().tobytes()) for key, value in zip(missing, loa, strict=True)]
            with self._database:  # a transaction: all of the batch or none
                self._database.executemany("INSERT OR REPLACE INTO loa VALUES (?, ?)", rows)
            self.num_computed += len(missing)
        return keys

    def read(self, keys: Sequence[bytes]) -> Tensor:
        """Keys -> LOA (batch, 8, embed_dim), float32. Raises KeyError for a key that ``keys`` did not give."""
        values = bytearray()
        for key in keys:
            found = self._database.execute("SELECT value FROM loa WHERE key = ?", (key,)).fetchone()
            if found is None:
                raise KeyError(f"{key.hex()}: no features under this key; give the window to keys() first")
            values += found[0]
        return torch.frombuffer(values, dtype=torch.float32).reshape(len(keys), *self.shape)

    def _has(self, key: bytes) -> bool:
        return self._database.execute("SELECT 1 FROM loa WHERE key = ?", (key,)).fetchone() is not None

    def close(self) -> None:
        self._database.close()
