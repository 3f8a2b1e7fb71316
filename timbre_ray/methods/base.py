"""What a Dreambooth variant is: which audio preserves the prior, under which prompt, and which weights train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file
from torch import nn

from timbre_ray.specs import DreamboothSpec, PromptsSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorSet:
    """Prior audio as an artifact of the store, and the prompt it is trained under."""

    key: str
    stage: str
    prompt: str


class PriorAudio(Protocol):
    """Where a method gets its prior audio from; each call computes it once, whoever asks."""

    def generated(self, prompt: str) -> tuple[str, str]:
        """Stage and key of audio that the untouched backbone generates from ``prompt``."""

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        """Stage and key of target clips, each mixed with audio generated from ``partner_prompt``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One Dreambooth variant. ``prior`` None: no prior loss."""

    name: str
    prior: Callable[[PriorAudio, PromptsSpec, DreamboothSpec], PriorSet] | None
    attach: Callable[[nn.Module, DreamboothSpec], None]
    """Makes the weights that train require gradients, and no others; may inject an adapter."""
    save: Callable[[Path, nn.Module, DreamboothSpec], None]
    """Writes the weights that training changed into a folder, as safetensors."""
    load: Callable[[nn.Module, DreamboothSpec, Path], None]
    """Puts them back into an untouched copy of the U-Net."""
    merge: Callable[[nn.Module], nn.Module] = lambda unet: unet
    """What ``load`` made, as a plain U-Net without adapters."""


def attach_all(unet: nn.Module, spec: DreamboothSpec) -> None:
    """Full fine-tuning: every weight of the U-Net."""
    unet.requires_grad_(True)


def save_all(folder: Path, unet: nn.Module, spec: DreamboothSpec) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in unet.state_dict().items()}
    save_file(state, folder / "unet.safetensors")


def load_all(unet: nn.Module, spec: DreamboothSpec, folder: Path) -> None:
    unet.load_state_dict(load_file(folder / "unet.safetensors"))
