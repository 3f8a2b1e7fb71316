"""The Dreambooth loop: epsilon loss on the instance, plus the weighted one on the prior."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator
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


def diffusion_loss(
    unet: Callable[..., Any], scheduler: DDIMScheduler, examples: Examples, batch_size: int, generator: torch.Generator,
    gpt2: GPT2LMHeadModel | None = None, true_loa_probability: float = 0.0,
) -> Tensor:  # fmt: skip
    """Epsilon loss of ``batch_size`` clips drawn with replacement; with ``gpt2`` its LOA is predicted with gradient."""
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
    predicted = unet(
        scheduler.add_noise(latents, noise, timesteps), timesteps, encoder_hidden_states=loa,
        encoder_hidden_states_1=prompt.t5.expand(batch_size, -1, -1), encoder_attention_mask_1=prompt.mask.expand(batch_size, -1),
    ).sample  # fmt: skip
    return F.mse_loss(predicted.float(), noise.float())


def _of_one_length(instance: Examples, prior: Examples | None) -> tuple[Examples, Examples | None]:
    """T5's states of the shorter prompt padded under their mask: one graph serves both."""
    if prior is None:
        return instance, None
    length = max(examples.prompt.t5.shape[1] for examples in (instance, prior))

    def padded(examples: Examples) -> Examples:
        prompt, more = examples.prompt, length - examples.prompt.t5.shape[1]
        longer = dataclasses.replace(prompt, t5=F.pad(prompt.t5, (0, 0, 0, more)), mask=F.pad(prompt.mask, (0, more)))
        return dataclasses.replace(examples, prompt=longer)

    return padded(instance), padded(prior)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """One term of the loss."""

    name: str
    examples: Examples
    weight: float
    stream: int
    """Of random numbers."""


def _parts(instance: Examples, prior: Examples | None, spec: DreamboothSpec, device: str) -> tuple[_Part, ...]:
    if cuda_graphs.is_cuda(device):
        instance, prior = _of_one_length(instance, prior)
    first = _Part(name="instance", examples=instance, weight=1.0, stream=INSTANCE)
    return (first,) if prior is None else (first, _Part(name="prior", examples=prior, weight=spec.prior_weight, stream=PRIOR))


def _accumulate(
    predict: Callable[..., Any], scheduler: DDIMScheduler, parts: tuple[_Part, ...], spec: DreamboothSpec,
    accelerator: Accelerator, *, step: int, seed: int, gpt2: GPT2LMHeadModel | None,
) -> dict[str, float]:  # fmt: skip
    """Gradients of one optimizer step -> its losses: the weighted sum, and each part alone. Raises FloatingPointError."""
    losses = {part.name: 0.0 for part in parts}
    for draw in range(step * spec.gradient_accumulation, (step + 1) * spec.gradient_accumulation):
        for part in parts:
            generator = checkpoint.generator_for(seed, part.stream, draw)
            with accelerator.autocast():
                loss = diffusion_loss(
                    predict, scheduler, part.examples, spec.batch_size, generator, gpt2, spec.true_loa_probability
                )
            accelerator.backward(part.weight * loss / spec.gradient_accumulation)
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
    parts = _parts(instance, prior, spec, device)

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
