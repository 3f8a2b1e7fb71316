"""Row 4: clips generated at once against one call of the stock pipeline each."""

from __future__ import annotations

import torch

from benchmarks import baseline
from benchmarks.measure import Figure, Row, in_turns, seconds, speedup
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.sampling import generate, prompt_pair
from timbre_ray.specs import BackboneSpec, SamplerSpec

PROMPT = "A recording of a piano with sks flute."
SAMPLER = SamplerSpec(num_inference_steps=8, scheduler="dpmsolver++", batch_size=10)
NUM_CLIPS = 10


def ours(backbone: Backbone, num_clips: int) -> torch.Tensor:
    pair = prompt_pair(backbone, PROMPT, SAMPLER.negative_prompt)
    return generate(backbone, backbone.unet, *pair, num_clips=num_clips, seed=0, sampler=SAMPLER)[0]


def theirs(backbone: Backbone, num_clips: int) -> torch.Tensor:
    return baseline.generate(backbone, backbone.pipeline, PROMPT, num_clips=num_clips, seed=0, sampler=SAMPLER)


def measure(repeats: int, num_clips: int = NUM_CLIPS) -> list[Figure]:
    torch.set_num_threads(1)
    backbone = load_backbone(BackboneSpec())
    ours(backbone, 1), theirs(backbone, 1)  # warm
    times = in_turns(seconds(lambda: ours(backbone, num_clips)), seconds(lambda: theirs(backbone, num_clips)), repeats)
    rates = tuple(num_clips / s for s in times[0])
    return [speedup("clips per second, times theirs", *times, goal=2.0), Figure(name="ours", values=rates, unit="clips/s")]


ROW = Row(
    name="generation", title="Generation", measure=measure,
    setup=f"{NUM_CLIPS} clips of one prompt, {SAMPLER.num_inference_steps} steps of DPM-Solver++ with guidance "
    f"{SAMPLER.guidance_scale}, vocoder, the same noise; ours at once, theirs by AudioLDM2Pipeline.__call__ clip by clip. Both "
    "read the prompt themselves.",
)  # fmt: skip
