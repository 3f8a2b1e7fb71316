"""Generation against ``AudioLDM2Pipeline.__call__``, and noise that depends on the clip alone."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from timbre_ray.data.features import normalise_waveform
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.sampling import clip_noise, decode, denoise, generate, new_sampling_scheduler, prompt_pair
from timbre_ray.specs import BackboneSpec, SamplerSpec

PROMPT = "A recording of a piano with flute."


def test_equals_the_pipeline(backbone: Backbone) -> None:
    sampler = SamplerSpec(num_inference_steps=4, guidance_scale=3.5, batch_size=2)
    ours, _ = generate(backbone, backbone.unet, *prompt_pair(backbone, PROMPT, ""), num_clips=2, seed=5, sampler=sampler)
    latents = torch.stack([clip_noise(5, i, backbone.latent_shape) for i in range(2)])
    theirs = backbone.pipeline(
        PROMPT, latents=latents, num_waveforms_per_prompt=2, num_inference_steps=4, guidance_scale=3.5, audio_length_in_s=2.56,
        output_type="pt",
    ).audios  # fmt: skip
    theirs = normalise_waveform(torch.as_tensor(theirs).reshape(2, -1)[:, : backbone.clip_samples])
    order = [int((theirs - clip).square().mean(1).argmin()) for clip in ours]  # the pipeline sorts by CLAP score
    assert sorted(order) == [0, 1]
    assert torch.allclose(ours, theirs[order], atol=2e-3)


def test_batch_size_changes_nothing(backbone: Backbone) -> None:
    pair = prompt_pair(backbone, PROMPT, "")
    clips = [
        generate(
            backbone, backbone.unet, *pair, num_clips=3, seed=1, sampler=SamplerSpec(num_inference_steps=2, batch_size=size)
        )[0]
        for size in (1, 3)
    ]
    assert clips[0].shape == (3, 40_960)
    assert torch.allclose(*clips, atol=1e-3)


def test_half_precision_does_not_round_what_is_heard(backbone: Backbone) -> None:
    """In bfloat16 VAE and vocoder alone would add noise at -29 dB."""
    half = load_backbone(BackboneSpec(dtype="bfloat16"))
    latents = torch.stack([clip_noise(0, i, backbone.latent_shape) for i in range(2)])
    assert half.unet.dtype == torch.bfloat16
    assert torch.equal(decode(half, latents), decode(backbone, latents))


def test_no_guidance_needs_one_side(backbone: Backbone) -> None:
    sampler = SamplerSpec(num_inference_steps=2, guidance_scale=1.0)
    clips, _ = generate(backbone, backbone.unet, *prompt_pair(backbone, PROMPT, ""), num_clips=1, seed=0, sampler=sampler)
    assert torch.isfinite(clips).all()


def test_few_steps_of_dpm_solver_reach_what_many_of_ddim_reach(backbone: Backbone) -> None:
    """Both follow one ordinary differential equation, so the same noise becomes the same clip; in eight steps
    DPM-Solver++ gets nearer."""
    noise = torch.stack([clip_noise(0, i, backbone.latent_shape) for i in range(3)])
    pair = prompt_pair(backbone, PROMPT, "")

    @torch.no_grad()
    def latents(scheduler: DDIMScheduler | DPMSolverMultistepScheduler, num_steps: int) -> Tensor:
        return denoise(backbone.unet, scheduler, noise, *pair, SamplerSpec(num_inference_steps=num_steps, guidance_scale=2.0))

    trailing = DDIMScheduler.from_config(backbone.pipeline.scheduler.config, timestep_spacing="trailing")
    truth = latents(trailing, 80)
    few = latents(new_sampling_scheduler(backbone, SamplerSpec(scheduler="dpmsolver++")), 8)
    same = latents(trailing, 8)
    assert (few - truth).norm() < 0.2 * truth.norm()
    assert (few - truth).norm() < 0.8 * (same - truth).norm()
