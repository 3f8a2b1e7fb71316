"""Where a command computes."""

from __future__ import annotations

import torch


def resolve_device(wanted: str) -> str:
    """``auto`` -> cuda where there is one. Raises ValueError for a device that is not here."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device={wanted!r}: must be auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device='cuda': torch finds no GPU here; choose auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
