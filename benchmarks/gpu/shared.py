"""Row 8: several LoRA arms on one GPU, stacked over one frozen base in one process, or each in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu import model
from benchmarks.gpu.limits import examples_of
from benchmarks.measure import Figure, Row
from timbre_ray.methods.lora import attach, target_modules
from timbre_ray.models import cuda_graphs
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train.checkpoint import generator_for
from timbre_ray.train.dreambooth import INSTANCE, Examples, train

NUM_ARMS, BLOCK, WARM_UP = 4, 5, 3
SPEC = DreamboothSpec(method="lora", lr=1e-4, batch_size=4, gradient_accumulation=1, mixed_precision="bf16")


class StackedLora(nn.Module):
    """A frozen projection under as many adapters as there are arms; rows of the input lie arm by arm."""

    def __init__(self, base: nn.Linear, num_arms: int, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.empty(num_arms, base.in_features, rank, device=base.weight.device))
        self.up = nn.Parameter(torch.zeros(num_arms, rank, base.out_features, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        arms = len(self.down)
        rows = x.reshape(arms, -1, x.shape[-1])
        return self.base(x) + (rows @ self.down @ self.up).reshape(*x.shape[:-1], -1)


def stack(unet: nn.Module, seeds: range, spec: DreamboothSpec) -> dict[str, StackedLora]:
    """Puts adapters drawn as peft draws them, arm i's by ``seeds[i]``, over every projection that ``lora`` adapts."""
    unet.requires_grad_(False)
    found = {}
    for name in target_modules(unet, spec.lora_targets):
        parent, _, child = name.rpartition(".")
        found[name] = StackedLora(unet.get_submodule(name), len(seeds), spec.lora_rank)
        setattr(unet.get_submodule(parent), child, found[name])
    for arm, seed in enumerate(seeds):
        torch.manual_seed(seed)
        for layer in found.values():
            first = torch.randn(spec.lora_rank, layer.base.in_features) / spec.lora_rank  # peft's "gaussian"
            layer.down.data[arm] = first.T.to(layer.down.device)
    return found


def train_stacked(backbone: Backbone, unet: nn.Module, examples: Examples, spec: DreamboothSpec, seeds: range) -> Any:
    """Yields each step's losses, arm by arm; gradients are clipped arm by arm, as if each were alone."""
    layers = stack(unet, seeds, spec)
    parameters = [p for layer in layers.values() for p in (layer.down, layer.up)]
    optimizer = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    scheduler, prompt, device = backbone.new_scheduler(), examples.prompt, backbone.device
    unet.train()
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    unet = cuda_graphs.for_training(unet, device)
    rows = len(seeds) * spec.batch_size
    for step in range(spec.steps):
        drawn = [_draw(examples, scheduler, spec.batch_size, generator_for(seed, INSTANCE, step)) for seed in seeds]
        latents, noise, timesteps = (torch.cat(part).to(device) for part in zip(*drawn, strict=True))
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=spec.mixed_precision == "bf16", cache_enabled=False
        ):
            predicted = unet(
                scheduler.add_noise(latents, noise, timesteps), timesteps, encoder_hidden_states=prompt.loa.expand(rows, -1, -1),
                encoder_hidden_states_1=prompt.t5.expand(rows, -1, -1), encoder_attention_mask_1=prompt.mask.expand(rows, -1),
            ).sample  # fmt: skip
        losses = F.mse_loss(predicted.float(), noise, reduction="none").unflatten(0, (len(seeds), -1)).flatten(1).mean(1)
        losses.sum().backward()
        norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in parameters]).norm(dim=0)
        for p in parameters:
            p.grad *= (spec.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)[:, None, None]
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        yield losses.tolist()


def _draw(examples: Examples, scheduler: Any, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """As ``diffusion_loss`` draws."""
    rows = torch.randint(len(examples.mean), (batch_size,), generator=generator)
    shape = (batch_size, *examples.mean.shape[1:])
    posterior_noise, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
    return examples.mean[rows] + examples.std[rows] * posterior_noise, noise, timesteps


def alone(backbone: Backbone, unet: nn.Module, examples: Examples, spec: DreamboothSpec, seed: int) -> Any:
    """One arm as a trial trains it."""
    torch.manual_seed(seed)
    attach(unet, spec)
    for row in train(unet, backbone.new_scheduler(), examples, None, spec, seed=seed, device=backbone.device):
        yield row["loss"]


def blocks(steps: Iterator[Any], repeats: int, wait: Callable[[], Any] = lambda: None) -> list[tuple[float, float]]:
    """When each block of steps begins and ends, after the first steps; all who ``wait`` begin a block together."""
    for _ in range(WARM_UP):
        next(steps)
    found = []
    for _ in range(repeats):
        wait()
        begin = time.perf_counter()
        for _ in range(BLOCK):
            next(steps)
        found.append((begin, time.perf_counter()))
    return found


def lasting(repeats: int) -> DreamboothSpec:
    return dataclasses.replace(SPEC, steps=WARM_UP + repeats * BLOCK)


def _arm(size: str, seed: int, repeats: int, start: Any, answers: Any) -> None:
    """A process of its own: builds, waits for the others, trains."""
    backbone = model.load(size)
    examples = examples_of(backbone)
    backbone.set_aside()
    unet = backbone.copy_unet()
    model.reset_peak()
    found = blocks(alone(backbone, unet, examples, lasting(repeats), seed), repeats, start.wait)
    answers.put((found, model.peak_gb()))


def processes(size: str, repeats: int) -> tuple[list[float], float]:
    """-> steps a second of all arms together, block by block; memory of all together."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(NUM_ARMS), context.Queue()
    workers = [context.Process(target=_arm, args=(size, seed, repeats, start, answers)) for seed in range(NUM_ARMS)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    rates = []
    for same in zip(*(times for times, _ in found), strict=True):  # one clock for all processes on Linux
        rates.append(NUM_ARMS * BLOCK / (max(end for _, end in same) - min(begin for begin, _ in same)))
    return rates, sum(gb for _, gb in found)


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    backbone = model.load(size)
    examples = examples_of(backbone)
    backbone.set_aside()
    one = blocks(alone(backbone, backbone.copy_unet(), examples, lasting(repeats), 0), repeats)
    model.reset_peak()
    stacked = blocks(train_stacked(backbone, backbone.copy_unet(), examples, lasting(repeats), range(NUM_ARMS)), repeats)
    together, together_gb = [NUM_ARMS * BLOCK / (end - begin) for begin, end in stacked], model.peak_gb()
    model.reset_peak()
    apart, apart_gb = processes(size, repeats)
    return [
        Figure(
            name=f"{NUM_ARMS} arms in one process over {NUM_ARMS} processes, steps per second",
            values=tuple(a / b for a, b in zip(together, apart, strict=True)), goal=1.5,
            sides={"together_steps_per_s": tuple(together), "apart_steps_per_s": tuple(apart)},
        ),
        Figure(
            name="its memory over theirs", values=(together_gb / max(apart_gb, 1e-9),),
            sides={"together_gb": (together_gb,), "apart_gb": (apart_gb,)},
        ),
        Figure(name="one arm alone", values=tuple(BLOCK / (end - begin) for begin, end in one), unit="steps/s"),
    ]  # fmt: skip


ROW = Row(
    name="shared-gpu", title=f"{NUM_ARMS} LoRA arms on one GPU, {model.SIZE}", measure=measure, needs_gpu=True,
    setup=f"Random weights in the published shapes, 10.24 s, bfloat16 autocast, {SPEC.batch_size} clips a step and arm. In one "
    "process: one forward pass of the base over all arms' clips, adapters stacked. Else: as many processes, which the GPU "
    "serves in turns, as trials at fractional GPUs are.",
)  # fmt: skip
