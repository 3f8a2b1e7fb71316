"""The Dreambooth loop: epsilon loss on the instance, plus the weighted one on the prior."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from diffusers import AudioLDM2UNet2DConditionModel, DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from timbre_ray.leaving import Leaving
from timbre_ray.models import cuda_graphs
from timbre_ray.models.backbone import Embeddings
from timbre_ray.models.language import rollout
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train import checkpoint

#: Of a training's time that its checkpoints may take: those of a large U-Net are 8.6 GB, on a disk of the network.
SAVING_SHARE = 0.1
INSTANCE, PRIOR = 1, 2  # streams of random numbers: the prior's draws never shift the instance's


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
    length = max(examples.prompt.t5.shape[1] for examples in parts)

    def padded(examples: Examples) -> Examples:
        prompt, more = examples.prompt, length - examples.prompt.t5.shape[1]
        longer = dataclasses.replace(prompt, t5=F.pad(prompt.t5, (0, 0, 0, more)), mask=F.pad(prompt.mask, (0, more)))
        return dataclasses.replace(examples, prompt=longer)

    return [padded(examples) for examples in parts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """One term of the loss."""

    name: str
    examples: Examples
    weight: float
    stream: int
    """Of random numbers."""


def _parts(instance: Examples, prior: Examples | None, spec: DreamboothSpec) -> tuple[_Part, ...]:
    if prior is None or spec.prior_weight == 0:  # which then equals direct to the last bit, and costs no more
        return (_Part(name="instance", examples=instance, weight=1.0, stream=INSTANCE),)
    instance, prior = of_one_length([instance, prior])
    return (
        _Part(name="instance", examples=instance, weight=1.0, stream=INSTANCE),
        _Part(name="prior", examples=prior, weight=spec.prior_weight, stream=PRIOR),
    )


def _accumulate(
    predict: Callable[..., Any], scheduler: DDIMScheduler, parts: tuple[_Part, ...], spec: DreamboothSpec,
    accelerator: Accelerator, *, step: int, seed: int, gpt2: GPT2LMHeadModel | None,
) -> dict[str, float]:  # fmt: skip
    """Gradients of one optimizer step -> its losses: the weighted sum, and each part alone. Raises FloatingPointError."""
    losses = {part.name: 0.0 for part in parts}
    examples = [part.examples for part in parts]
    for draw in range(step * spec.gradient_accumulation, (step + 1) * spec.gradient_accumulation):
        generators = [checkpoint.generator_for(seed, part.stream, draw) for part in parts]
        with accelerator.autocast():
            each = diffusion_losses(
                predict, scheduler, examples, spec.batch_size, generators, gpt2, spec.true_loa_probability
            )  # fmt: skip
        weighted = sum(part.weight * loss for part, loss in zip(parts, each, strict=True))
        accelerator.backward(weighted / spec.gradient_accumulation)
        for part, loss in zip(parts, each, strict=True):
            losses[part.name] += loss.item() / spec.gradient_accumulation
    total = sum(part.weight * losses[part.name] for part in parts)
    if not math.isfinite(total):
        raise FloatingPointError(f"dreambooth: the loss is {total} at step {step + 1}; lower dreambooth.lr (now {spec.lr:g})")
    return {"loss": total, **losses}


def trained_parameters(unet: nn.Module, gpt2: nn.Module | None) -> dict[str, nn.Parameter]:
    parts = {"unet": unet} | ({"language_model": gpt2} if gpt2 is not None else {})
    return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters() if p.requires_grad}


def train(
    unet: AudioLDM2UNet2DConditionModel,
    scheduler: DDIMScheduler,
    instance: Examples,
    prior: Examples | None,
    spec: DreamboothSpec,
    *,
    seed: int,
    device: str = "cpu",
    gpt2: GPT2LMHeadModel | None = None,
    resume_from: Path | None = None,
    checkpoint_every_s: float = 60.0,
) -> Generator[dict[str, float], None, None]:
    """Trains what requires gradients in ``unet`` (and ``gpt2``) in place; yields the losses of every optimizer step.

    resume_from: a checkpoint file that is read if it is there and written every ``checkpoint_every_s`` seconds of training, less
    often where writing takes long (SAVING_SHARE), or after every step where that is 0; a resumed run's weights equal an
    uninterrupted one's bit for bit on the CPU. The losses of the steps before the checkpoint are yielded again, so that the
    caller sees every step once. A caller that must leave throws Leaving in: the checkpoint is written at the
    step just yielded, whenever the last one was. Raises FloatingPointError when a loss is not finite.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # a warm worker may have trained in another precision
    autocast = AutocastKwargs(cache_enabled=not cuda_graphs.is_cuda(device))
    accelerator = Accelerator(mixed_precision=spec.mixed_precision, cpu=device == "cpu", kwargs_handlers=[autocast])
    parameters = trained_parameters(unet, gpt2)
    assert parameters, "no weight requires a gradient: the method's attach was not called"
    optimizer = torch.optim.AdamW(parameters.values(), lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    scaler = accelerator.scaler  # fp16 alone has one
    start, history = checkpoint.load(resume_from, parameters, optimizer, scaler) if resume_from else (0, [])
    model, optimizer = accelerator.prepare(unet, optimizer)
    model.train()
    if cuda_graphs.is_cuda(device):
        for parameter in trained_parameters(unet, None).values():  # GPT-2 has no graph, and what it never reads shall not decay
            parameter.grad = torch.zeros_like(parameter)
    predict = cuda_graphs.for_training(model, device)
    parts = _parts(instance, prior, spec)

    def save() -> None:
        if resume_from:
            checkpoint.save(resume_from, history[-1]["step"], parameters, optimizer, history, scaler)

    yield from history
    trained_s, due_s = 0.0, checkpoint_every_s  # since the last checkpoint; when the next one is due
    for step in range(start, spec.steps):
        began = time.monotonic()
        losses = _accumulate(predict, scheduler, parts, spec, accelerator, step=step, seed=seed, gpt2=gpt2)
        accelerator.clip_grad_norm_(parameters.values(), spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=not cuda_graphs.is_cuda(device))
        history.append({"step": step + 1, **losses})
        trained_s += time.monotonic() - began  # what the caller does between two steps does not count
        if trained_s >= due_s:
            began = time.monotonic()
            save()
            rare_enough = (time.monotonic() - began) / SAVING_SHARE
            trained_s, due_s = 0.0, max(checkpoint_every_s, rare_enough) if checkpoint_every_s else 0.0
        try:
            yield history[-1]
        except Leaving:
            save()
            raise
