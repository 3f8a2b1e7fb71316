"""Row 4: clips generated at once against one call of the stock pipeline each."""

from __future__ import annotations

import torch

from benchmarks import baseline
from benchmarks.measure import Figure, Row, in_turns, seconds, speedup
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.scorer import embed_clips
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.sampling import generate, prompt_pair
from timbre_ray.specs import BackboneSpec, ClipsSpec, SamplerSpec

NUM_JUDGED = 64
FLUTE_PROMPT = "A recording of a flute solo."
PROMPT = "A recording of a piano with sks flute."
SAMPLER = SamplerSpec(num_inference_steps=8, scheduler="dpmsolver++", batch_size=10)
NUM_CLIPS = 10


def ours(backbone: Backbone, num_clips: int) -> torch.Tensor:
    pair = prompt_pair(backbone, PROMPT, SAMPLER.negative_prompt)
    return generate(backbone, backbone.unet, *pair, num_clips=num_clips, seed=0, sampler=SAMPLER)[0]


def theirs(backbone: Backbone, num_clips: int) -> torch.Tensor:
    return baseline.generate(backbone, backbone.pipeline, PROMPT, num_clips=num_clips, seed=0, sampler=SAMPLER)


def distance_of(backbone: Backbone, num_clips: int) -> float:
    """To the shipped flute's held-out recordings, of the untouched model's clips."""
    pair = prompt_pair(backbone, FLUTE_PROMPT, SAMPLER.negative_prompt)
    clips = generate(backbone, backbone.unet, *pair, num_clips=num_clips, seed=0, sampler=SAMPLER)[0]
    held_out = load_windows(find_files(ClipsSpec(path="mini:chinese_flute_v1")).held_out, backbone.clip_samples)
    return frechet_distance(embed_clips("vggish", clips), embed_clips("vggish", held_out))


def measure(repeats: int, num_clips: int = NUM_CLIPS, num_judged: int = NUM_JUDGED) -> list[Figure]:
    torch.set_num_threads(1)
    full, half = (load_backbone(BackboneSpec(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    ours(full, 1), ours(half, 1), theirs(full, 1)  # warm
    call = seconds(lambda: theirs(full, num_clips))
    times = in_turns(seconds(lambda: ours(full, num_clips)), call, repeats)
    halved = in_turns(seconds(lambda: ours(half, num_clips)), call, repeats)
    rates = tuple(num_clips / s for s in times[0])
    in_full, in_half = distance_of(full, num_judged), distance_of(half, num_judged)
    return [
        speedup("clips per second, times theirs", *times, goal=2.0), Figure(name="ours", values=rates, unit="clips/s"),
        speedup("ours in bfloat16, clips per second, times theirs in float32", *halved, goal=2.0),
        Figure(name="the Fréchet distance in bfloat16 over that in float32", values=(in_half / in_full,)),
    ]  # fmt: skip


ROW = Row(
    name="generation", title="Generation", measure=measure,
    setup=f"{NUM_CLIPS} clips of one prompt, {SAMPLER.num_inference_steps} steps of DPM-Solver++ with guidance "
    f"{SAMPLER.guidance_scale}, vocoder, the same noise; ours at once, theirs by AudioLDM2Pipeline.__call__ clip by clip. Both "
    "read the prompt themselves. `backbone: {dtype: bfloat16}` is a sweep's to choose; it is fast where the processor multiplies "
    f"in it. The distances are of {NUM_JUDGED} clips of the untouched model to the shipped flute's held-out recordings.",
)  # fmt: skip
