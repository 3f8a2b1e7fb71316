"""A small model on disk: ``config.json`` (its constructor's arguments) beside ``model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """-> the constructor's arguments and the weights in float32. Raises FileNotFoundError naming the missing file."""
    config = json.loads((folder / "config.json").read_text())
    return config, {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
