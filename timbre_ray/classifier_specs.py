"""What an instrument classifier is trained on and how (paper, section 4.1). Standard library only."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstrumentDataSpec:
    nsynth: Path
    """Folder with ``nsynth-train``, ``nsynth-valid``, ``nsynth-test`` (or ``train``, ``valid``, ``test``)."""
    folders: tuple[tuple[str, Path], ...] = ()
    """(class, folder of songs): instruments beside NSynth's, split by song; a class may have several folders."""
    rename: tuple[tuple[str, str], ...] = ()
    """(family, class): what the classifier calls a family of NSynth, such as ("keyboard", "piano")."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    epochs: int = 120
    """Passes over the examples (paper: 120)."""
    batch_size: int = 64
    """Examples a step (paper: 64)."""
    lr: float = 1e-3
    """Adam's step size (paper: 0.001)."""
    hidden_dim: int = 256
    """Width between the two fully connected layers."""
    dropout: float = 0.2
    mixtures: float = 1.0
    """Mixtures of two instruments, labelled with both, for each single example; 0 for none."""
    class_weights: bool = True
    """Weigh examples so that every class counts alike, however few examples it has."""
    seed: int = 0
    """Seeds the first weights, the order, dropout and the mixtures."""

    def __post_init__(self) -> None:
        for name, bound in (("epochs", 1), ("batch_size", 1), ("hidden_dim", 1), ("mixtures", 0)):
            if getattr(self, name) < bound:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {bound}")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must lie in [0, 1)")
