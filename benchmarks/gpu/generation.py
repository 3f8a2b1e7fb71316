"""Row 4 at the published sizes: clips generated at once against one call of the stock pipeline each."""

from __future__ import annotations

import copy
import functools

from diffusers import AudioLDM2Pipeline
from torch import nn

from benchmarks import baseline
from benchmarks.gpu import model
from benchmarks.measure import Figure, Row
from timbre_ray.models.backbone import Backbone
from timbre_ray.models.sampling import generate, prompt_pair
from timbre_ray.specs import SamplerSpec

PROMPT = "A recording of a piano with sks flute."
SAMPLER = SamplerSpec(num_inference_steps=25, batch_size=16)
OURS_CLIPS, THEIR_CLIPS = 16, 1


def stock(backbone: Backbone) -> AudioLDM2Pipeline:
    """The same weights as one plain pipeline in the precision of the backbone's U-Net."""
    parts = dict(backbone.pipeline.components)
    for name in ("text_encoder", "text_encoder_2", "language_model", "projection_model", "vae", "vocoder"):
        parts[name] = nn.Module.to(copy.deepcopy(parts[name]), backbone.device, backbone.unet.dtype)
    pipeline = AudioLDM2Pipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours(backbone: Backbone, num_clips: int, sampler: SamplerSpec) -> None:
    pair = prompt_pair(backbone, PROMPT, sampler.negative_prompt)
    generate(backbone, backbone.unet, *pair, num_clips=num_clips, seed=0, sampler=sampler)


def measure(repeats: int, size: str = model.SIZE, sampler: SamplerSpec = SAMPLER) -> list[Figure]:
    backbone = model.load(size, "bfloat16")
    backbone.pipeline.to(backbone.device)
    pipeline = stock(backbone)

    def our_rate() -> float:
        return OURS_CLIPS / model.seconds(lambda: ours(backbone, OURS_CLIPS, sampler))

    def their_rate() -> float:
        def call() -> None:
            baseline.generate(backbone, pipeline, PROMPT, num_clips=THEIR_CLIPS, seed=0, sampler=sampler)

        return THEIR_CLIPS / model.seconds(call)

    our_rate(), their_rate()  # warm
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for i in range(repeats):
        for side, rate in [("ours", our_rate), ("theirs", their_rate)][:: 1 if i % 2 == 0 else -1]:
            found[side].append(rate())
    ratios = tuple(o / t for o, t in zip(found["ours"], found["theirs"], strict=True))
    return [
        Figure(
            name="clips per second, times theirs", values=ratios, goal=4.0, sides={"theirs_clips_per_s": tuple(found["theirs"])}
        ),
        Figure(name="ours", values=tuple(found["ours"]), unit="clips/s"),
    ]


def row(name: str, size: str) -> Row:
    return Row(
        name=name, title=f"Generation, {size}", needs_gpu=True, measure=functools.partial(measure, size=size),
        setup=f"Random weights in the published shapes, clips of 10.24 s, {SAMPLER.num_inference_steps} steps of DDIM with "
        f"guidance {SAMPLER.guidance_scale}, vocoder; theirs all in bfloat16, ours its U-Net, the rest in float32; ours "
        f"{OURS_CLIPS} clips of one prompt at once, theirs {THEIR_CLIPS} by AudioLDM2Pipeline.__call__ one by one. Both read the "
        "prompt themselves; ours records its CUDA graph in the time.",
    )  # fmt: skip


BASE, LARGE = row("gpu-generation", "audioldm2"), row("gpu-generation-large", "audioldm2-large")
