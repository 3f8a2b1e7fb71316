"""``lora``: low-rank adapters by peft on the attention to text; all else is frozen (Hu et al. 2021; paper, section 3.3)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

from timbre_ray.methods.base import Method
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
    state = {name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    save_file(state, folder / "adapter_model.safetensors")
    lora_config(unet, spec).save_pretrained(str(folder))


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


METHOD = Method(name="lora", attach=attach, save=save, load=load, merge=merge)
