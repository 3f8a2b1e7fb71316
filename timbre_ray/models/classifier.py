"""The instrument classifier of the paper's section 4.1: AudioMAE features, two fully connected layers, sigmoid."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from timbre_ray.models import saved


class InstrumentClassifier(nn.Module):
    """LOA (batch, 8, embed_dim) -> logits (batch, num_classes), one independent sigmoid a class (multi-label)."""

    def __init__(self, *, classes: tuple[str, ...], embed_dim: int, hidden_dim: int = 256, dropout: float = 0.2) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.config = {"classes": list(classes), "embed_dim": embed_dim, "hidden_dim": hidden_dim, "dropout": dropout}
        self.layers = nn.Sequential(
            nn.Linear(2 * embed_dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, len(classes))
        )

    def forward(self, loa: Tensor) -> Tensor:
        return self.layers(torch.cat([loa.mean(1), loa.amax(1)], dim=-1))

    def confidences(self, loa: Tensor) -> Tensor:
        """LOA (batch, 8, embed_dim) -> probabilities (batch, num_classes) in [0, 1]."""
        return self(loa).sigmoid()

    def save_pretrained(self, folder: Path) -> None:
        saved.write(folder, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path) -> InstrumentClassifier:
        config, state = saved.read(folder)
        model = cls(**config)
        model.load_state_dict(state)
        return model.eval()
