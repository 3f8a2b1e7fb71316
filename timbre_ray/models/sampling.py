"""Generation: classifier-free guidance over batches of noise that depend on the clip's number alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AudioLDM2UNet2DConditionModel, DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from timbre_ray.data.features import normalise_waveform
from timbre_ray.models import cuda_graphs
from timbre_ray.models.backbone import Backbone, Embeddings
from timbre_ray.models.griffin_lim import invert_mel
from timbre_ray.specs import SamplerSpec


def clip_noise(seed: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise of clip ``index``, the same in every arm, batch size and device. shape -> (*shape,)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    return torch.randn(shape, generator=generator)


def new_sampling_scheduler(backbone: Backbone, sampler: SamplerSpec) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """The scheduler that ``sampler.scheduler`` names, over the noise schedule that the backbone was trained with.

    DPM-Solver++ (Lu et al. 2022, second order) gets trailing timesteps: the leading ones that AudioLDM2's configuration asks for
    start below the noise that the first latents have, which few steps do not forgive.
    """
    if sampler.scheduler == "ddim":
        return backbone.new_scheduler()
    return DPMSolverMultistepScheduler.from_config(backbone.pipeline.scheduler.config, timestep_spacing="trailing")


@torch.no_grad()
def generate(
    backbone: Backbone,
    unet: AudioLDM2UNet2DConditionModel,
    positive: Embeddings,
    negative: Embeddings,
    *,
    num_clips: int,
    seed: int,
    sampler: SamplerSpec,
    on_clips: Callable[[int], None] = lambda num_done: None,
) -> tuple[Tensor, Tensor]:
    """-> waveforms (num_clips, samples), mean removed and peak 0.5 like every clip of a target, and their scaled latents
    (num_clips, channels, time, mel); both on the CPU, float32.

    The noise of clip i is ``clip_noise(seed, i)``. ``on_clips`` is called after each batch. Raises FloatingPointError if the
    model's output is not finite.
    """
    waveforms, clean = [], []
    unet = cuda_graphs.for_generation(unet, backbone.device)
    for start in range(0, num_clips, sampler.batch_size):
        count = min(sampler.batch_size, num_clips - start)
        latents = torch.stack([clip_noise(seed, start + i, backbone.latent_shape) for i in range(count)]).to(backbone.device)
        latents = denoise(unet, new_sampling_scheduler(backbone, sampler), latents, positive, negative, sampler)
        clean.append(latents.float().cpu())
        waveforms.append(decode(backbone, latents, sampler.mel_inversion))
        on_clips(start + count)
    waveform = torch.cat(waveforms)
    if not torch.isfinite(waveform).all():
        raise FloatingPointError("generate: the model's audio is not finite; its training diverged")
    return normalise_waveform(waveform), torch.cat(clean)


def denoise(
    unet: AudioLDM2UNet2DConditionModel, scheduler: DDIMScheduler | DPMSolverMultistepScheduler, latents: Tensor,
    positive: Embeddings, negative: Embeddings, sampler: SamplerSpec,
) -> Tensor:  # fmt: skip
    """latents: (batch, channels, time, mel) noise -> clean latents of the same shape. The U-Net computes in its own precision;
    guidance and the solver's sums, which many steps add up, in that of the latents."""
    count = len(latents)
    scheduler.set_timesteps(sampler.num_inference_steps, device=latents.device)
    guided = sampler.guidance_scale > 1.0
    sides = (negative, positive) if guided else (positive,)
    loa, t5, mask = (torch.cat([getattr(s, name).expand(count, *[-1] * (getattr(s, name).ndim - 1)) for s in sides])
                     for name in ("loa", "t5", "mask"))  # fmt: skip
    loa, t5 = loa.to(unet.dtype), t5.to(unet.dtype)
    latents = latents * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents] * len(sides)), timestep)
        noise = unet(
            model_input.to(unet.dtype), timestep, encoder_hidden_states=loa, encoder_hidden_states_1=t5,
            encoder_attention_mask_1=mask,
        ).sample.to(latents.dtype)  # fmt: skip
        if guided:
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + sampler.guidance_scale * (conditional - unconditional)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def decode(backbone: Backbone, latents: Tensor, mel_inversion: str = "vocoder") -> Tensor:
    """latents: (batch, channels, time, mel) -> (batch, samples) on the CPU.

    Clip by clip: the VAE's and the vocoder's activations of ten leave a processor's cache (1.2 times the time, measured), and on
    a GPU a batch of them would take so many times the memory.
    """
    waveforms = []
    for one in latents.split(1):
        mel = backbone.vae.decode(one / backbone.vae.config.scaling_factor).sample.squeeze(1)
        waveforms.append((backbone.vocoder(mel) if mel_inversion == "vocoder" else invert_mel(mel)).cpu())
    return torch.cat(waveforms)[:, : backbone.clip_samples]


def prompt_pair(backbone: Backbone, prompt: str, negative_prompt: str) -> tuple[Embeddings, Embeddings]:
    """A prompt and its negative, the negative padded to the prompt's length as the pipeline pads it."""
    positive = backbone.embed(prompt)
    return positive, backbone.embed(negative_prompt, pad_to=positive.t5.shape[1])
