"""Row 7: the U-Net against the machine: rates achieved over the matrix rate, time over the floor of its operations and bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import model
from benchmarks.measure import Figure, Row, speedup
from timbre_ray.models import cuda_graphs
from timbre_ray.models.backbone import Backbone, Embeddings
from timbre_ray.models.sampling import denoise, prompt_pair
from timbre_ray.specs import DreamboothSpec, SamplerSpec
from timbre_ray.train.dreambooth import train
from timbre_ray.train.losses import Examples, diffusion_losses

TRAIN_BATCHES, GENERATE_BATCHES = (1, 4, 16), (1, 16, 32)
STEPS, DENOISING_STEPS = 7, 5


def matrix_tflops(size: int = 8192, times: int = 20) -> float:
    """Rate of a large bfloat16 product of random matrices."""
    a, b = (torch.randn(size, size, device=model.device(), dtype=torch.bfloat16) for _ in range(2))
    a @ b
    spent = model.seconds(lambda: [a @ b for _ in range(times)])
    return 2 * size**3 * times / spent / 1e12


def copy_tb_per_s(num_bytes: int = 4 * 10**9, times: int = 20) -> float:
    """Bytes read and written by a copy on the device."""
    a = torch.randint(0, 255, (num_bytes,), device=model.device(), dtype=torch.uint8)
    b = torch.empty_like(a)
    b.copy_(a)
    spent = model.seconds(lambda: [b.copy_(a) for _ in range(times)])
    return 2 * num_bytes * times / spent / 1e12


def examples_of(backbone: Backbone, num_clips: int = 16) -> Examples:
    shape = (num_clips, *backbone.latent_shape)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(shape, generator=generator)
    return Examples(mean=mean, std=torch.full(shape, 0.1), prompt=backbone.embed("A recording of a sks flute solo."))


def training(backbone: Backbone, examples: Examples, batch: int, steps: int = STEPS, method: str = "direct") -> Iterator[Any]:
    """Every weight of a copy of the U-Net, bfloat16 autocast."""
    spec = DreamboothSpec(method=method, steps=steps, lr=1e-6, batch_size=batch, gradient_accumulation=1, mixed_precision="bf16")
    unet = backbone.copy_unet().requires_grad_(True)
    yield from train(unet, backbone.new_scheduler(), examples, None, spec, seed=0, device=backbone.device)


def step_seconds(steps: Iterator[Any]) -> list[float]:
    """Seconds of each step but the first two: a step reads its loss from the device, so the clock sees its end."""
    times = []
    for _ in steps:
        times.append(time.perf_counter())
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    return gaps[1:]


def step_flops(backbone: Backbone, examples: Examples) -> float:
    """Operations of one clip's forward and backward pass, called plainly: a graph's are not seen when it is replayed."""
    unet = backbone.copy_unet().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        with torch.autocast(torch.device(backbone.device).type, torch.bfloat16):
            (loss,) = diffusion_losses(unet, backbone.new_scheduler(), [examples], 1, [generator])
        loss.backward()

    return flops_of(run)


@torch.no_grad()
def generating(
    backbone: Backbone, unet: nn.Module, pair: tuple[Embeddings, Embeddings], batch: int, steps: int = DENOISING_STEPS
) -> Tensor:
    latents = torch.randn(batch, *backbone.latent_shape, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    return denoise(unet, backbone.new_scheduler(), latents, *pair, SamplerSpec(num_inference_steps=steps))


def flops_of(run: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    rate = statistics.median(matrix_tflops() for _ in range(repeats))
    copied = statistics.median(copy_tb_per_s() for _ in range(repeats))
    return [
        Figure(name="matrix product, bfloat16", values=(rate,), unit="TFLOP/s"),
        Figure(name="copy on the device", values=(copied,), unit="TB/s"),
        *measure_training(rate, copied, size, repeats),
        *measure_generation(rate, copied, size, repeats),
    ]


def measure_training(rate: float, copied: float, size: str, repeats: int) -> list[Figure]:
    backbone = model.load(size)
    examples = examples_of(backbone)
    backbone.set_aside()
    parameters = sum(p.numel() for p in backbone.pipeline.unet.parameters())
    moved = 4 * 7 * parameters  # AdamW alone: weight, both moments read and written, the gradient read
    figures, flops = [], step_flops(backbone, examples)
    for batch in TRAIN_BATCHES:
        gaps = step_seconds(training(backbone, examples, batch))
        achieved = tuple(batch * flops / 1e12 / s for s in gaps)
        floor = max(batch * flops / (rate * 1e12), moved / (copied * 1e12))
        figures += [
            Figure(name=f"training, {batch} at once, over the matrix rate", values=tuple(a / rate for a in achieved)),
            Figure(
                name=f"training, {batch} at once, time over its floor",
                values=tuple(s / floor for s in gaps),
                sides={"s": tuple(gaps)},
            ),
        ]
    lora = step_seconds(training(backbone, examples, 4, method="lora"))
    return [*figures, Figure(name="operations of one clip's step", values=(flops / 1e12,), unit="TFLOP", kind="computed"),
            Figure(name="a LoRA step, 4 at once", values=tuple(lora), unit="s")]  # fmt: skip


def measure_generation(rate: float, copied: float, size: str, repeats: int) -> list[Figure]:
    backbone = model.load(size, "bfloat16")
    pair = prompt_pair(backbone, "A recording of a piano.", "")
    moved = 2 * sum(p.numel() for p in backbone.unet.parameters())
    flops = flops_of(lambda: generating(backbone, backbone.unet, pair, 1, steps=1))
    figures = []
    for batch in GENERATE_BATCHES:
        unets = {"plain": backbone.unet, "graph": cuda_graphs.for_generation(backbone.unet, backbone.device)}
        results = {name: generating(backbone, unet, pair, batch) for name, unet in unets.items()}  # warm, and compared
        times = {
            name: tuple(
                model.seconds(lambda unet=unet: generating(backbone, unet, pair, batch)) / DENOISING_STEPS for _ in range(repeats)
            )
            for name, unet in unets.items()
        }
        floor = max(batch * flops / (rate * 1e12), moved / (copied * 1e12))
        difference = float((results["plain"] - results["graph"]).norm() / results["plain"].norm())
        name = f"generation, {batch} at once"
        figures += [
            Figure(name=f"{name}, over the matrix rate", values=tuple(batch * flops / 1e12 / s / rate for s in times["graph"])),
            Figure(
                name=f"{name}, time over its floor", values=tuple(s / floor for s in times["graph"]), sides={"s": times["graph"]}
            ),
            Figure(name=f"{name}, relative difference from the plain calls", values=(difference,)),
            speedup(f"{name}, the graph, times faster than the plain calls", times["graph"], times["plain"], None),
        ]
    return [
        *figures,
        Figure(name="operations of one clip's denoising step, guided", values=(flops / 1e12,), unit="TFLOP", kind="computed"),
    ]


ROW = Row(
    name="gpu-limits", title=f"Limits, {model.SIZE}", measure=measure, needs_gpu=True,
    setup="Random weights in the published shapes, 10.24 s, bfloat16 (autocast over float32 weights in training). "
    "Operations are counted by PyTorch's FlopCounterMode; the floor is the larger of operations over the matrix rate and "
    "bytes over the copy rate, of which only those of the weights (and, in training, of AdamW's moments) are counted, "
    "not those of activations.",
)  # fmt: skip
