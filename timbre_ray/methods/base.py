"""What a Dreambooth variant is: which weights train, and (by ``priors.py``) which audio preserves the prior."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from timbre_ray.priors import PRIORS, Prior
from timbre_ray.specs import DreamboothSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attached:
    """One of several arms over one U-Net."""

    parameters: Mapping[str, nn.Parameter]
    """That train, by the names that ``train`` gives them where the arm trains alone."""
    save: Callable[[Path], None]
    """Writes them as ``Method.save`` does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One Dreambooth variant."""

    name: str
    attach: Callable[[nn.Module, DreamboothSpec], None]
    """Makes the weights that train require gradients, and no others; may inject an adapter."""
    save: Callable[[Path, nn.Module, DreamboothSpec], None]
    """Writes the weights that training changed into a folder, as safetensors."""
    load: Callable[[nn.Module, DreamboothSpec, Path], None]
    """Puts them back into an untouched copy of the U-Net."""
    merge: Callable[[nn.Module], nn.Module] = lambda unet: unet
    """What ``load`` made, as a plain U-Net without adapters."""
    together: Callable[[nn.Module, Sequence[DreamboothSpec], Sequence[int]], list[Attached]] | None = None
    """Lays several arms over one frozen U-Net, whose batches hold their rows arm by arm from then on; the first weights of each
    are those that ``attach`` draws after ``torch.manual_seed`` of its seed. None: every arm needs the whole U-Net for itself."""

    @property
    def prior(self) -> Prior | None:
        """None: no prior loss."""
        return PRIORS.get(self.name)


def attach_all(unet: nn.Module, spec: DreamboothSpec) -> None:
    """Full fine-tuning: every weight of the U-Net."""
    unet.requires_grad_(True)


def save_all(folder: Path, unet: nn.Module, spec: DreamboothSpec) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in unet.state_dict().items()}
    save_file(state, folder / "unet.safetensors")


def load_all(unet: nn.Module, spec: DreamboothSpec, folder: Path) -> None:
    unet.load_state_dict(load_file(folder / "unet.safetensors"))
