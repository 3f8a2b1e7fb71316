"""Published AudioMAE weights under the names of our encoder: timm's layout, and the original checkpoints'."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from timbre_ray.models.pickled import load_pickled

#: Of the original checkpoint, what the encoder has no part in: the decoder of pretraining, the head of fine-tuning.
_FOREIGN = ("decoder_", "mask_token", "head.", "head_drop.")
_HEAD_DIM = 64  # of every published ViT


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """-> (AudioMAE's constructor arguments, its weights in float32).

    path: a folder with ``model.safetensors`` in timm's names (``gaunernst/vit_base_patch16_1024_128.audiomae_as2m``), such a
    file, or an original ``.pth`` (facebookresearch/AudioMAE: the weights under ``model``). Both name their parts alike; a
    checkpoint that was fine-tuned with mean pooling calls its last norm ``fc_norm``. Raises ValueError naming the file and what
    it lacks.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file; an AudioMAE is a folder with model.safetensors, or an original .pth checkpoint")
    state = load_file(file) if file.suffix == ".safetensors" else _read_original(file)
    state = {name.replace("fc_norm.", "norm."): value.float() for name, value in state.items() if not name.startswith(_FOREIGN)}
    for name in ("patch_embed.proj.weight", "pos_embed", "norm.weight"):
        if name not in state:
            raise ValueError(f"{file}: has no {name}, so it is no AudioMAE encoder (it has {', '.join(sorted(state)[:3])}, ...)")
    embed_dim, num_channels, *patch = state["patch_embed.proj.weight"].shape
    if (num_channels, *patch) != (1, 16, 16):
        raise ValueError(f"{file}: patches of {(num_channels, *patch)}; an AudioMAE reads one channel in patches of 16 by 16")
    config = {
        "num_frames": (state["pos_embed"].shape[1] - 1) // 8 * 16,  # cls, then 8 patches of 16 bands for every 16 frames
        "embed_dim": embed_dim,
        "depth": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        "num_heads": max(1, embed_dim // _HEAD_DIM),
    }
    return config, state


def _read_original(file: Path) -> dict[str, Tensor]:
    with torch.serialization.safe_globals([argparse.Namespace]):  # its training options lie beside the weights
        try:
            checkpoint = load_pickled(file)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{file}: cannot be read as weights alone ({reason}); save it as safetensors") from None
    return checkpoint.get("model", checkpoint)
