"""VGGish's weights from a file in torchvggish's names, at their published size or another."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from timbre_ray.models.pickled import load_pickled
from timbre_ray.vggish_choice import name_problem


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A ``.pth`` or ``.safetensors`` -> (VGGish's constructor arguments, its weights in float32).

    Raises ValueError naming the file and the names that are missing or unexpected, and where the file
    is no plain state dict.
    """
    if not path.is_file():
        raise ValueError(f"evaluate.vggish={str(path)!r}: no such file on this node; every node needs it at the same path")
    state = load_file(path) if path.suffix == ".safetensors" else _read_pth(path)
    if problem := name_problem(state):
        raise ValueError(f"evaluate.vggish={str(path)!r}: {problem}")
    widths = tuple(state[f"features.{layer}.weight"].shape[0] for layer in (0, 3, 6, 8, 11, 13))
    hidden_dim, embed_dim = (state[f"embeddings.{layer}.weight"].shape[0] for layer in (0, 4))
    config = {"widths": widths, "hidden_dim": hidden_dim, "embed_dim": embed_dim}
    return config, {name: value.float() for name, value in state.items()}


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        state = load_pickled(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"evaluate.vggish={str(path)!r}: cannot be read as weights alone ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"evaluate.vggish={str(path)!r}: holds no plain state dict of names and tensors")
    return state
