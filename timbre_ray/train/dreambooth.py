"""The Dreambooth loop: epsilon loss on the instance, plus the weighted one on the prior; of one arm, or of several at once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from diffusers import AudioLDM2UNet2DConditionModel, DDIMScheduler
from torch import nn
from transformers import GPT2LMHeadModel

from timbre_ray.leaving import Leaving
from timbre_ray.models import cuda_graphs
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train import checkpoint
from timbre_ray.train.losses import Examples, diffusion_losses, of_one_length

#: Of a training's time that its checkpoints may take: those of a large U-Net are 8.6 GB, on a disk of the network.
SAVING_SHARE = 0.1
INSTANCE, PRIOR = 1, 2  # streams of random numbers: the prior's draws never shift the instance's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """What an arm has for itself where several train at once."""

    instance: Examples
    spec: DreamboothSpec
    seed: int
    parameters: Mapping[str, nn.Parameter]
    """That train, by the names that they have where the arm trains alone: its checkpoint is the same."""
    prior: Examples | None = None
    resume_from: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """One term of the loss."""

    name: str
    examples: Examples
    weight: float
    stream: int
    """Of random numbers."""


def _parts(arm: Arm) -> tuple[_Part, ...]:
    first = _Part(name="instance", examples=arm.instance, weight=1.0, stream=INSTANCE)
    if arm.prior is None or arm.spec.prior_weight == 0:  # which then equals direct to the last bit, and costs no more
        return (first,)
    return first, _Part(name="prior", examples=arm.prior, weight=arm.spec.prior_weight, stream=PRIOR)


class _Training:
    """An arm under way."""

    def __init__(self, arm: Arm, parts: tuple[_Part, ...]) -> None:
        self.arm, self.parts = arm, parts
        assert arm.parameters, "no weight requires a gradient: the method's attach was not called"
        spec = arm.spec
        self.optimizer: Any = torch.optim.AdamW(arm.parameters.values(), lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
        self.history: list[dict[str, float]] = []
        self.lost = False
        """Its loss is not finite: it trains no further."""

    def resume(self, scaler: Any) -> int:
        """Step that its checkpoint was saved after, 0 without one."""
        if self.arm.resume_from is None:
            return 0
        start, self.history = checkpoint.load(self.arm.resume_from, dict(self.arm.parameters), self.optimizer, scaler)
        return start

    def save(self, scaler: Any) -> None:
        if self.arm.resume_from and self.history and not self.lost:
            step, parameters = self.history[-1]["step"], dict(self.arm.parameters)
            checkpoint.save(self.arm.resume_from, step, parameters, self.optimizer, self.history, scaler)

    def note(self, step: int, losses: Mapping[str, float]) -> None:
        """losses: of each part. Raises FloatingPointError."""
        total = sum(part.weight * losses[part.name] for part in self.parts)
        if not math.isfinite(total):
            lr = self.arm.spec.lr
            raise FloatingPointError(f"dreambooth: the loss is {total} at step {step + 1}; lower dreambooth.lr (now {lr:g})")
        self.history.append({"step": step + 1, "loss": total, **losses})


def _begun(arms: Sequence[Arm]) -> list[_Training]:
    """All parts' prompts are of one length from here on."""
    parts = [_parts(arm) for arm in arms]
    examples = iter(of_one_length([part.examples for of_arm in parts for part in of_arm]))
    return [
        _Training(arm, tuple(dataclasses.replace(part, examples=next(examples)) for part in of_arm))
        for arm, of_arm in zip(arms, parts, strict=True)
    ]


def _accumulate(
    predict: Callable[..., Any], scheduler: DDIMScheduler, trainings: Sequence[_Training], accelerator: Accelerator, *, step: int,
    gpt2: GPT2LMHeadModel | None,
) -> list[dict[str, float]]:  # fmt: skip
    """Gradients of one optimizer step, of all arms -> the losses of each, part by part."""
    spec, losses = trainings[0].arm.spec, [dict.fromkeys((part.name for part in t.parts), 0.0) for t in trainings]
    placed = [(i, part) for i, training in enumerate(trainings) for part in training.parts]
    for draw in range(step * spec.gradient_accumulation, (step + 1) * spec.gradient_accumulation):
        generators = [checkpoint.generator_for(trainings[i].arm.seed, part.stream, draw) for i, part in placed]
        with accelerator.autocast():
            each = diffusion_losses(
                predict, scheduler, [part.examples for _, part in placed], spec.batch_size, generators, gpt2,
                spec.true_loa_probability,
            )  # fmt: skip
        weighted = sum(part.weight * loss for (_, part), loss in zip(placed, each, strict=True))
        accelerator.backward(weighted / spec.gradient_accumulation)
        for (i, part), loss in zip(placed, each, strict=True):
            losses[i][part.name] += loss.item() / spec.gradient_accumulation
    return losses


def _update(trainings: Sequence[_Training], losses: Sequence[Mapping[str, float]], accelerator: Accelerator, step: int) -> None:
    """The optimizer's step of every arm whose loss is finite. Raises FloatingPointError where the first one's is not."""
    for training, of_arm in zip(trainings, losses, strict=True):
        try:
            if not training.lost:
                training.note(step, of_arm)
        except FloatingPointError:
            if training is trainings[0]:
                raise
            training.lost = True  # rows of a batch do not mix: the others know nothing of it
        if not training.lost:
            accelerator.clip_grad_norm_(training.arm.parameters.values(), training.arm.spec.max_grad_norm)
            training.optimizer.step()


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

    resume_from: a checkpoint file, see ``train_together``; a resumed run's weights equal an uninterrupted one's bit for bit on
    the CPU. Raises FloatingPointError when a loss is not finite.
    """
    arm = Arm(
        instance=instance, prior=prior, spec=spec, seed=seed, parameters=trained_parameters(unet, gpt2), resume_from=resume_from
    )
    steps = train_together(unet, scheduler, [arm], device=device, gpt2=gpt2, checkpoint_every_s=checkpoint_every_s)
    for (row,) in steps:
        try:
            yield row
        except Leaving as leaving:
            steps.throw(leaving)  # it writes the checkpoint, and raises it again


def train_together(
    unet: AudioLDM2UNet2DConditionModel,
    scheduler: DDIMScheduler,
    arms: Sequence[Arm],
    *,
    device: str = "cpu",
    gpt2: GPT2LMHeadModel | None = None,
    checkpoint_every_s: float = 60.0,
) -> Generator[list[dict[str, float] | None], None, None]:
    """Trains all arms' parameters in place, a step of each by one pass of ``unet``, whose batch holds their clips arm by arm;
    yields each one's losses after every optimizer step. Where there are several, ``Method.together`` has laid them over the
    frozen base, and they have one batch size, accumulation and precision (``companions.kind``).

    A checkpoint (``resume_from``) is read if it is there and written every ``checkpoint_every_s`` seconds of training, less often
    where writing takes long (SAVING_SHARE), or after every step where that is 0. Those of all arms must be of one step. The
    losses of the steps before it are yielded again, so that the caller sees every step once. A caller that must leave throws
    Leaving in: the checkpoints are written at the step just yielded, whenever the last ones were.

    An arm whose loss is not finite trains no further, and has None from then on; raises FloatingPointError if it is the first,
    once the checkpoints of the others are written.
    """
    accelerator = _accelerator(arms[0].spec.mixed_precision, device)
    scaler = accelerator.scaler  # fp16 alone has one
    assert len(arms) == 1 or scaler is None, "one loss scale for several arms: one that overflows would hold up the others"
    trainings = _begun(arms)
    (start,) = {training.resume(scaler) for training in trainings}
    model = accelerator.prepare(unet)
    for training in trainings:
        training.optimizer = accelerator.prepare(training.optimizer)
    model.train()
    on_gpu = cuda_graphs.is_cuda(device)
    if on_gpu:
        for parameter in trained_parameters(unet, None).values():  # GPT-2 has no graph, and what it never reads shall not decay
            parameter.grad = torch.zeros_like(parameter)
    predict = cuda_graphs.for_training(model, device)
    clock = _Clock(checkpoint_every_s)

    def save() -> None:
        for training in trainings:
            training.save(scaler)

    yield from map(list, zip(*(training.history for training in trainings), strict=True))
    for step in range(start, arms[0].spec.steps):
        with clock.training():
            losses = _accumulate(predict, scheduler, trainings, accelerator, step=step, gpt2=gpt2)
            try:
                _update(trainings, losses, accelerator, step)
            except FloatingPointError:
                for other in trainings[1:]:  # they go on from here, without it
                    other.save(scaler)
                raise
            for training in trainings:
                training.optimizer.zero_grad(set_to_none=not on_gpu)
        if clock.is_due:
            with clock.saving():
                save()
        try:
            yield [None if training.lost else training.history[-1] for training in trainings]
        except Leaving:
            save()
            raise


def _accelerator(mixed_precision: str, device: str) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)  # a warm worker may have trained in another precision
    autocast = AutocastKwargs(cache_enabled=not cuda_graphs.is_cuda(device))
    return Accelerator(mixed_precision=mixed_precision, cpu=device == "cpu", kwargs_handlers=[autocast])


class _Clock:
    """When the next checkpoint is due. What the caller does between two steps does not count."""

    def __init__(self, every_s: float) -> None:
        self._every_s = self._due_s = every_s
        self._trained_s = 0.0  # since the last one

    @property
    def is_due(self) -> bool:
        return self._trained_s >= self._due_s

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._trained_s += time.monotonic() - began

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        rare_enough = (time.monotonic() - began) / SAVING_SHARE
        self._trained_s, self._due_s = 0.0, max(self._every_s, rare_enough) if self._every_s else 0.0
