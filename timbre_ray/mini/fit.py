"""One resumable training loop for the miniature's parts, and the corpus cache they read."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, distributed, nn

from timbre_ray.data.features import fbank, log_mel
from timbre_ray.mini import corpus

#: Clips of each kind and seed: (solos an instrument, duets a piano pair, duets another pair, wide clips a programme).
TRAIN_SIZES, TEST_SIZES = (300, 200, 24, 36), (24, 8, 4, 4)


def prepare(work: Path) -> None:
    """Renders the corpus and its features once into ``work``: {train,test,targets}.pt."""
    work.mkdir(parents=True, exist_ok=True)
    for split, sizes, seed in (("train", TRAIN_SIZES, 0), ("test", TEST_SIZES, 1)):
        if (work / f"{split}.pt").exists() and (work / f"targets_{split}.pt").exists():
            continue
        renderer = corpus.Renderer()
        piano = [p for p in corpus.all_pairs() if "piano" in p]
        other = [p for p in corpus.all_pairs() if "piano" not in p]
        clips = [
            *corpus.render_solos(renderer, corpus.INSTRUMENTS, sizes[0], seed),
            *corpus.render_duets(renderer, piano, sizes[1], seed),
            *corpus.render_duets(renderer, other, sizes[2], seed + 100),
            *corpus.render_wide(renderer, sizes[3], seed),
        ]
        save_clips(clips, work / f"{split}.pt")
        # The targets, alone and beside each instrument: for the classifier and the measurements, never for pretraining.
        parts = {**corpus.INSTRUMENTS, **corpus.TARGETS}
        pairs = [(t, i) for t in corpus.TARGETS for i in corpus.INSTRUMENTS]
        clips = [
            *corpus.render_solos(renderer, corpus.TARGETS, sizes[0], seed + 10),
            *corpus.render_duets(renderer, pairs, sizes[2], seed + 10, parts),
        ]
        save_clips(clips, work / f"targets_{split}.pt")


def write_target_clips(folder: Path, num_each: int = 24) -> None:
    """The sets of recordings that the package ships: disjoint phrases to train on and to score against, as FLAC."""
    renderer = corpus.Renderer()
    for name, part in corpus.TARGETS.items():
        for split, seed in (("train", 20), ("held_out", 21)):
            (folder / name / split).mkdir(parents=True, exist_ok=True)
            for i, clip in enumerate(corpus.render_solos(renderer, {name: part}, num_each, seed)):
                path = folder / name / split / f"{i:02d}.flac"
                soundfile.write(path, clip.waveform, corpus.SAMPLE_RATE_HZ, subtype="PCM_16")


def save_clips(clips: list[corpus.Clip], path: Path) -> None:
    waveform = torch.from_numpy(np.stack([c.waveform for c in clips]))
    mel = torch.cat([log_mel(w) for w in waveform.split(64)])
    bank = torch.cat([fbank(w, 256) for w in waveform.split(64)])
    payload = {
        "names": [c.names for c in clips],
        "programmes": [c.programmes for c in clips],
        "waveform": waveform.half(),
        "mel": mel.half(),
        "fbank": bank.half(),
    }
    save_whole(payload, path)


def load(work: Path, split: str) -> dict:
    return torch.load(work / f"{split}.pt", weights_only=True, mmap=True)


def multi_hot(rows: list[tuple], classes: list) -> Tensor:
    """Labels (num_clips, num_classes) in {0, 1}."""
    index = {c: i for i, c in enumerate(classes)}
    labels = torch.zeros(len(rows), len(classes))
    for i, row in enumerate(rows):
        for name in row:
            labels[i, index[name]] = 1.0
    return labels


def cosine(step: int, num_steps: int, warmup: int = 100, floor: float = 0.02) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def fit(
    name: str,
    model: nn.Module,
    loss_fn: Callable[[int, torch.Generator], dict[str, Tensor]],
    *,
    work: Path,
    num_steps: int,
    lr: float,
    weight_decay: float = 0.01,
    ema_decay: float = 0.0,
    save_every_s: float = 60.0,
    betas: tuple[float, float] = (0.9, 0.99),
    num_processes: int = 1,
) -> nn.Module:
    """AdamW with a cosine schedule; resumes from ``work/name.ckpt``; returns the EMA (or the model) in eval mode.

    loss_fn(step, generator) returns named losses whose sum is minimised. Its draws come from a generator seeded by the
    step, so that a resumed run draws what an uninterrupted one would. With ``num_processes`` above one (torchrun) every
    process draws its own batch and the gradients are averaged. Raises ValueError where another number of them was started.
    """
    path = work / f"{name}.ckpt"
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas, fused=True)
    ema = copy.deepcopy(model).requires_grad_(False) if ema_decay else model
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    start = _resume(path, parts)
    rank, world_size = _process()
    if start < num_steps and world_size != num_processes:
        raise ValueError(
            f"{name}: its batch is that of {num_processes} process(es), not {world_size}: torchrun --nproc-per-node N"
        )
    model.train()
    saved = logged = time.monotonic()
    for step in range(start, num_steps):
        generator = torch.Generator().manual_seed(1_000_003 * (step + 1) + rank)
        torch.manual_seed(step * world_size + rank)  # dropout
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, num_steps)
        losses = loss_fn(step, generator)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        if world_size > 1:
            _average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema_decay:
            _average(ema, model, min(ema_decay, (1 + step) / (10 + step)))
        if rank == 0 and (step % 100 == 99 or step + 1 == num_steps):
            now = time.monotonic()
            values = " ".join(f"{k} {float(v.detach()):.4f}" for k, v in losses.items())
            print(f"{name} {step + 1}/{num_steps} {values} {(now - logged) / 100:.3f} s/step", flush=True)
            logged = now
        if rank == 0 and time.monotonic() - saved > save_every_s:
            _save(path, parts, step + 1)
            saved = time.monotonic()
    if rank == 0 and start < num_steps:
        _save(path, parts, num_steps)
    return ema.eval()


def _process() -> tuple[int, int]:
    """(rank, world size): (0, 1) unless torchrun started several processes."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """One message for all; a parameter that took no part in the step has none anywhere."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = nn.utils.parameters_to_vector(gradients)
    distributed.all_reduce(flat)
    nn.utils.vector_to_parameters(flat.div_(distributed.get_world_size()), gradients)


def _resume(path: Path, parts: dict[str, Any]) -> int:
    """Puts a checkpoint's state back; returns the step it was saved after, 0 without one."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def _save(path: Path, parts: dict[str, Any], step: int) -> None:
    save_whole({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, path)


def save_whole(value: Any, path: Path) -> None:
    """Written beside and renamed: a file that is there is complete."""
    torch.save(value, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


@torch.no_grad()
def _average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
    for averaged, current in zip(ema.buffers(), model.buffers(), strict=True):
        averaged.copy_(current)
