"""The epsilon loss of clips under a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from timbre_ray.models.backbone import Embeddings
from timbre_ray.models.language import rollout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Clips as the VAE's scaled posterior, and the one prompt they are trained under."""

    mean: Tensor  # (num_clips, channels, time, mel)
    std: Tensor
    prompt: Embeddings
    loa: Tensor | None = None  # (num_clips, 8, loa_dim), true; needed to train GPT-2 jointly


def diffusion_losses(
    unet: Callable[..., Any], scheduler: DDIMScheduler, parts: Sequence[Examples], batch_size: int,
    generators: Sequence[torch.Generator], gpt2: GPT2LMHeadModel | None = None, true_loa_probability: float = 0.0,
) -> list[Tensor]:  # fmt: skip
    """Epsilon loss of each part: ``batch_size`` of its clips drawn with replacement; all parts go through the U-Net at once.

    The parts' prompts must be of one length (``of_one_length``). With ``gpt2`` the LOA are predicted with gradient.
    """
    drawn = [
        _draw(examples, scheduler, batch_size, generator, gpt2, true_loa_probability)
        for examples, generator in zip(parts, generators, strict=True)
    ]
    noisy, timesteps, loa, t5, mask, noise = (torch.cat(values) for values in zip(*drawn, strict=True))
    predicted = unet(
        noisy, timesteps, encoder_hidden_states=loa, encoder_hidden_states_1=t5, encoder_attention_mask_1=mask
    ).sample  # fmt: skip
    each = zip(predicted.float().split(batch_size), noise.float().split(batch_size), strict=True)
    return [F.mse_loss(of_part, target) for of_part, target in each]


def _draw(
    examples: Examples, scheduler: DDIMScheduler, batch_size: int, generator: torch.Generator, gpt2: GPT2LMHeadModel | None,
    true_loa_probability: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Noisy latents, timesteps, LOA, T5's states, their mask, and the noise to be predicted."""
    rows = torch.randint(len(examples.mean), (batch_size,), generator=generator)
    shape = (batch_size, *examples.mean.shape[1:])
    posterior_noise, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
    use_truth = torch.rand(batch_size, generator=generator) < true_loa_probability
    prompt, device = examples.prompt, examples.prompt.t5.device
    latents = (examples.mean[rows] + examples.std[rows] * posterior_noise).to(device)
    noise, timesteps = noise.to(device), timesteps.to(device)
    loa = prompt.loa if gpt2 is None else rollout(gpt2, prompt.condition, prompt.condition_mask)
    loa = loa.expand(batch_size, -1, -1)
    if gpt2 is not None and examples.loa is not None:
        loa = torch.where(use_truth.to(device)[:, None, None], examples.loa[rows].to(device), loa)
    t5, mask = prompt.t5.expand(batch_size, -1, -1), prompt.mask.expand(batch_size, -1)
    return scheduler.add_noise(latents, noise, timesteps), timesteps, loa, t5, mask, noise


def of_one_length(parts: Sequence[Examples]) -> list[Examples]:
    """T5's states of the shorter prompt padded under their mask, so that one call of the U-Net serves all."""
    if len(parts) == 1:
        return list(parts)
    length = max(examples.prompt.t5.shape[1] for examples in parts)

    def padded(examples: Examples) -> Examples:
        prompt, more = examples.prompt, length - examples.prompt.t5.shape[1]
        longer = dataclasses.replace(prompt, t5=F.pad(prompt.t5, (0, 0, 0, more)), mask=F.pad(prompt.mask, (0, more)))
        return dataclasses.replace(examples, prompt=longer)

    return [padded(examples) for examples in parts]
