"""AudioMAE teacher forcing: GPT-2 learns to predict the LOA of the target's clips from the instance prompt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from timbre_ray.models.backbone import Embeddings
from timbre_ray.models.language import rollout, teacher_forced
from timbre_ray.specs import TeacherSpec
from timbre_ray.train.checkpoint import generator_for

ORDER, MIXTURE = 0, 3  # streams of random numbers beside Dreambooth's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
    """A prompt and the LOA that it should lead to."""

    prompt: Embeddings
    loa: Tensor  # (num_clips, 8, loa_dim), true


def lesson_loss(gpt2: GPT2LMHeadModel, lesson: Lesson, rows: Tensor, mode: str) -> Tensor:
    """MSE of the predicted against the true LOA of ``rows``.

    All clips share the prompt, so the rollout is computed once and compared with each of them: the same gradient as a batch
    of equal prompts.
    """
    truth = lesson.loa[rows]
    condition, mask = lesson.prompt.condition, lesson.prompt.condition_mask
    if mode == "rollout":
        predicted = rollout(gpt2, condition, mask).expand_as(truth)
    else:
        predicted = teacher_forced(gpt2, condition.expand(len(rows), -1, -1), mask.expand(len(rows), -1), truth)
    return F.mse_loss(predicted, truth)


def teach(
    gpt2: GPT2LMHeadModel, instance: Lesson, mixture: Lesson | None, spec: TeacherSpec, *, seed: int
) -> Iterator[dict[str, float]]:
    """Trains ``gpt2`` in place; yields the losses of every optimizer step.

    mixture: with ``mixture_weight`` above 0, mixtures of the target and the partner under the mixture prompt.
    Raises FloatingPointError when the loss is not finite.
    """
    gpt2.requires_grad_(True)
    gpt2.lm_head.requires_grad_(False)  # tied to the token embeddings, which this model never reads
    optimizer = torch.optim.AdamW(
        [p for p in gpt2.parameters() if p.requires_grad], lr=spec.lr, weight_decay=spec.weight_decay, fused=True
    )
    num_clips = len(instance.loa)
    steps_per_epoch = math.ceil(num_clips / spec.batch_size)
    for epoch in range(spec.epochs):
        order = torch.randperm(num_clips, generator=generator_for(seed, ORDER, epoch))
        for i in range(steps_per_epoch):
            rows = order[i * spec.batch_size : (i + 1) * spec.batch_size]
            losses = {"instance": lesson_loss(gpt2, instance, rows, spec.mode)}
            if mixture is not None and spec.mixture_weight > 0:
                drawn = generator_for(seed, MIXTURE, epoch * steps_per_epoch + i)  # from all of them, which may be more or fewer
                mixed = torch.randint(len(mixture.loa), (len(rows),), generator=drawn)
                losses["mixture"] = spec.mixture_weight * lesson_loss(gpt2, mixture, mixed, spec.mode)
            total = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(total):
                raise FloatingPointError(
                    f"teacher forcing: the loss is {total.item()} at epoch {epoch}, step {i}; lower teacher.lr"
                )
            total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield {"step": epoch * steps_per_epoch + i + 1, "loss": total.item(), **{k: v.item() for k, v in losses.items()}}
    gpt2.requires_grad_(False)
