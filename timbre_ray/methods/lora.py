"""``lora``: low-rank adapters by peft on the attention to text; all else is frozen (Hu et al. 2021; paper, section 3.3)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from timbre_ray.methods.base import Attached, Method
from timbre_ray.specs import DreamboothSpec


def target_modules(unet: nn.Module, targets: str) -> list[str]:
    """Names of the q, k, v and out projections to adapt.

    Not by the name ``attn2``: where the configuration's cross-attention dimension is null, ``attn2`` attends to itself.
    """
    chosen = [
        name for name, module in unet.named_modules()
        if isinstance(module, Attention) and (targets == "attention" or module.is_cross_attention)
    ]  # fmt: skip
    return [f"{name}.{part}" for name in chosen for part in ("to_q", "to_k", "to_v", "to_out.0")]


def lora_config(unet: nn.Module, spec: DreamboothSpec) -> LoraConfig:
    return LoraConfig(
        r=spec.lora_rank, lora_alpha=spec.lora_rank if spec.lora_alpha is None else spec.lora_alpha,
        target_modules=target_modules(unet, spec.lora_targets), init_lora_weights="gaussian",
    )  # fmt: skip


def attach(unet: nn.Module, spec: DreamboothSpec) -> None:
    unet.requires_grad_(False)
    inject_adapter_in_model(lora_config(unet, spec), unet)  # its weights, and they alone, require gradients


def save(folder: Path, unet: nn.Module, spec: DreamboothSpec) -> None:
    """As peft writes an adapter: ``adapter_model.safetensors`` beside ``adapter_config.json``."""
    _write(folder, get_peft_model_state_dict(unet), lora_config(unet, spec))


def _write(folder: Path, state: Mapping[str, Tensor], config: LoraConfig) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def load(unet: nn.Module, spec: DreamboothSpec, folder: Path) -> None:
    config = LoraConfig.from_pretrained(str(folder))
    with torch.random.fork_rng():  # the initial adapter is drawn and then overwritten
        inject_adapter_in_model(config, unet)
    result = set_peft_model_state_dict(unet, load_file(folder / "adapter_model.safetensors"))
    if result.unexpected_keys:
        raise ValueError(f"{folder}: adapter weights that this U-Net has no place for: {result.unexpected_keys[:3]}")


def merge(unet: nn.Module) -> nn.Module:
    """Adds each adapter to the weight it adapts, in place, and takes the adapters out."""
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    return recurse_remove_peft_layers(unet)


class Stacked(nn.Module):
    """A frozen projection under the adapters of several arms: rows of its input lie arm by arm, as many of each."""

    def __init__(self, adapted: Sequence[LoraLayer]) -> None:
        """adapted: the same projection as peft adapts it in each arm, of one rank."""
        super().__init__()
        self.base = adapted[0].base_layer
        self.down = nn.ParameterList(layer.lora_A["default"].weight for layer in adapted)  # (rank, in) each
        self.up = nn.ParameterList(layer.lora_B["default"].weight for layer in adapted)  # (out, rank)
        scaling = torch.tensor([layer.scaling["default"] for layer in adapted], device=self.base.weight.device)
        self.register_buffer("scaling", scaling[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        down, up = torch.stack(tuple(self.down)), torch.stack(tuple(self.up))
        added = x.reshape(len(down), -1, x.shape[-1]) @ down.mT @ up.mT
        added = (added * self.scaling).to(added.dtype)  # autocast's, as peft leaves it
        return self.base(x) + added.reshape(*x.shape[:-1], -1)


def together(unet: nn.Module, specs: Sequence[DreamboothSpec], seeds: Sequence[int]) -> list[Attached]:
    """Each arm's adapters as ``attach`` makes them, then all of them over the projections that they share."""
    layers, found = [], []
    for spec, seed in zip(specs, seeds, strict=True):
        torch.manual_seed(seed)
        attach(unet, spec)
        layers.append({name: layer for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)})
        parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
        recurse_remove_peft_layers(unet)
        del unet.peft_config
        save_arm = functools.partial(_save_arm, parameters=parameters, config=lora_config(unet, spec))
        found.append(Attached(parameters={f"unet.{name}": p for name, p in parameters.items()}, save=save_arm))
    for name in layers[0]:
        parent, _, child = name.rpartition(".")
        setattr(unet.get_submodule(parent), child, Stacked([of_arm[name] for of_arm in layers]))
    return found


def _save_arm(folder: Path, *, parameters: dict[str, nn.Parameter], config: LoraConfig) -> None:
    _write(folder, {name.replace(".default.", "."): value for name, value in parameters.items()}, config)


METHOD = Method(name="lora", attach=attach, save=save, load=load, merge=merge, together=together)
