"""The peers' way: one script a configuration, every item of every step computed anew.

Written from what the published training scripts of AudioLDM2 Dreambooth and DreamSound do: the whole pipeline stays in memory;
prompts, GPT-2's rollout and the VAE's latents are computed for every item of every step; batch 1 with gradient accumulation;
instance and class go through the U-Net together; every validation saves the pipeline and generates one clip a call; each file is
embedded on its own. The arithmetic, the weights and the draws are ours, so that losses and audio can be compared, and what such a
script would do once (loading, cutting recordings) it does once here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import AudioLDM2Pipeline
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

from timbre_ray.data.clips import read_audio
from timbre_ray.data.features import log_mel, normalise_waveform
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.backbone import Backbone
from timbre_ray.models.language import rollout
from timbre_ray.models.sampling import clip_noise, new_sampling_scheduler
from timbre_ray.models.vggish import VGGish, mel_basis
from timbre_ray.specs import DreamboothSpec, SamplerSpec, TeacherSpec
from timbre_ray.train.checkpoint import generator_for
from timbre_ray.train.dreambooth import INSTANCE, PRIOR

# -- training ------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def latents_of(pipeline: AudioLDM2Pipeline, path: Path) -> tuple[Tensor, Tensor]:
    """Scaled posterior mean and deviation of one file, each (1, channels, time, mel)."""
    waveform = normalise_waveform(read_audio(path))[None].to(pipeline.vae.device)
    posterior = pipeline.vae.encode(log_mel(waveform)[:, None]).latent_dist
    factor = pipeline.vae.config.scaling_factor
    return posterior.mean * factor, posterior.std * factor


@torch.no_grad()
def text_of(pipeline: AudioLDM2Pipeline, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
    """LOA (1, 8, dim), T5's states (1, length, dim) and their mask (1, length), by the pipeline's own encoding."""
    t5, mask, loa = pipeline.encode_prompt(
        prompt=prompt, device=pipeline.vae.device, num_waveforms_per_prompt=1, do_classifier_free_guidance=False
    )
    return loa, t5, mask


def _item(
    pipeline: AudioLDM2Pipeline, files: Sequence[Path], prompt: str, place: slice, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """One example: noised latents' parts (latents, noise, timestep) and its text; the one at ``place`` of a batch's draws."""
    rows = torch.randint(len(files), (batch_size,), generator=generator)
    mean, std = latents_of(pipeline, files[int(rows[place])])
    shape = (batch_size, *mean.shape[1:])
    posterior_noise, noise = (torch.randn(shape, generator=generator)[place].to(mean.device) for _ in range(2))
    timesteps = torch.randint(pipeline.scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
    return mean + std * posterior_noise, noise, timesteps[place].to(mean.device), text_of(pipeline, prompt)


def train(
    pipeline: AudioLDM2Pipeline, unet: nn.Module, instance: tuple[Sequence[Path], str], prior: tuple[Sequence[Path], str] | None,
    spec: DreamboothSpec, *, seed: int,
) -> Iterator[float]:  # fmt: skip
    """Dreambooth of what requires gradients in ``unet``; yields the loss of every optimizer step.

    instance, prior: files and their prompt. A batch of ``spec.batch_size`` is that many accumulated items more.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # one process trains many times here
    accelerator = Accelerator(mixed_precision=spec.mixed_precision, cpu=pipeline.vae.device.type == "cpu")
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)
    unet.train()
    num_items = spec.batch_size * spec.gradient_accumulation
    for step in range(spec.steps):
        total = 0.0
        for draw, place in (divmod(item, spec.batch_size) for item in range(step * num_items, (step + 1) * num_items)):
            sources = [(INSTANCE, instance, 1.0)] + ([(PRIOR, prior, spec.prior_weight)] if prior else [])
            items = [
                _item(pipeline, *source, slice(place, place + 1), spec.batch_size, generator_for(seed, stream, draw))
                for stream, source, _ in sources
            ]  # fmt: skip
            latents, noise, timesteps = (torch.cat([item[i] for item in items]) for i in range(3))
            loa, t5, mask = _padded([item[3] for item in items])
            with accelerator.autocast():
                predicted = unet(
                    pipeline.scheduler.add_noise(latents, noise, timesteps), timesteps, encoder_hidden_states=loa,
                    encoder_hidden_states_1=t5, encoder_attention_mask_1=mask,
                ).sample  # fmt: skip
            losses = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
            loss = sum(weight * value for (_, _, weight), value in zip(sources, losses, strict=True)) / num_items
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield total


def _padded(texts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Texts of unequal length as one batch, T5's shorter ones padded under their mask."""
    length = max(t5.shape[1] for _, t5, _ in texts)
    return (
        torch.cat([loa for loa, _, _ in texts]),
        torch.cat([F.pad(t5, (0, 0, 0, length - t5.shape[1])) for _, t5, _ in texts]),
        torch.cat([F.pad(mask, (0, length - mask.shape[1])) for _, _, mask in texts]),
    )


# -- teacher forcing -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def condition_of(pipeline: AudioLDM2Pipeline, prompt: str) -> tuple[Tensor, Tensor]:
    """What GPT-2 reads of a prompt: (1, length, dim) and its mask (1, length)."""
    device = pipeline.vae.device
    clap = pipeline.tokenizer([prompt], padding="max_length", truncation=True, return_tensors="pt").to(device)
    features = pipeline.text_encoder.get_text_features(clap.input_ids, attention_mask=clap.attention_mask).pooler_output[:, None]
    tokens = pipeline.tokenizer_2([prompt], padding=True, truncation=True, return_tensors="pt").to(device)
    t5 = pipeline.text_encoder_2(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    projected = pipeline.projection_model(
        hidden_states=features, hidden_states_1=t5, attention_mask=tokens.attention_mask.new_ones(1, 1),
        attention_mask_1=tokens.attention_mask,
    )  # fmt: skip
    return projected.hidden_states, projected.attention_mask


def teach(
    pipeline: AudioLDM2Pipeline, audiomae: AudioMAE, gpt2: GPT2LMHeadModel, files: Sequence[Path], prompt: str, spec: TeacherSpec,
    *, seed: int,
) -> Iterator[float]:  # fmt: skip
    """Free-running teacher forcing of ``gpt2``, item by item; yields the loss of every optimizer step."""
    gpt2.requires_grad_(True)
    gpt2.lm_head.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in gpt2.parameters() if p.requires_grad], lr=spec.lr, weight_decay=spec.weight_decay)
    for epoch in range(spec.epochs):
        order = torch.randperm(len(files), generator=generator_for(seed, 0, epoch))
        for rows in order.split(spec.batch_size):
            total = 0.0
            for row in rows:
                with torch.no_grad():
                    waveform = normalise_waveform(read_audio(files[row]))[None].to(pipeline.vae.device)
                    truth = audiomae.loa_of_waveform(waveform)
                loss = F.mse_loss(rollout(gpt2, *condition_of(pipeline, prompt)), truth) / len(rows)
                loss.backward()
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad()
            yield total
    gpt2.requires_grad_(False)


# -- generation and scores -----------------------------------------------------------------------------------------------------


def generate(
    backbone: Backbone, pipeline: AudioLDM2Pipeline, prompt: str, *, num_clips: int, seed: int, sampler: SamplerSpec
) -> Tensor:
    """``AudioLDM2Pipeline.__call__`` once a clip -> (num_clips, samples), normalised. The backbone says how long a clip is."""
    pipeline.scheduler = new_sampling_scheduler(backbone, sampler)
    clips = []
    for i in range(num_clips):
        noise = clip_noise(seed, i, backbone.latent_shape)[None].to(backbone.device, pipeline.unet.dtype)
        audio = pipeline(
            prompt, negative_prompt=sampler.negative_prompt, latents=noise,
            num_inference_steps=sampler.num_inference_steps, guidance_scale=sampler.guidance_scale,
            audio_length_in_s=backbone.clip_samples / 16_000, output_type="pt",
        ).audios  # fmt: skip
        clips.append(torch.as_tensor(audio).float().cpu().reshape(-1)[: backbone.clip_samples])
    pipeline.scheduler = backbone.new_scheduler()
    return normalise_waveform(torch.stack(clips))


def vggish_examples(samples: NDArray[np.float32], hop_frames: int) -> Tensor:
    """torchvggish's numpy front end: one file -> log-mel windows (num_windows, 96, 64)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    mel = np.log(np.abs(np.fft.rfft(frames * window, 512)) @ mel_basis().numpy().astype(np.float64) + 0.01)
    windows = np.lib.stride_tricks.sliding_window_view(mel, 96, axis=0)[::hop_frames]  # (num_windows, 64, 96)
    return torch.from_numpy(windows.transpose(0, 2, 1).astype(np.float32))


def embed(model: VGGish, files: Sequence[Path], hop_frames: int) -> NDArray[np.float64]:
    """As ``frechet_audio_distance`` 0.3.4 embeds: each file read and heard on its own, gradients on -> (rows, dim)."""
    found = [model(vggish_examples(read_audio(path).numpy(), hop_frames)).detach().numpy() for path in files]
    return np.concatenate(found, axis=0)


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """As ``frechet_audio_distance`` 0.3.4 has it: a complex matrix square root of the covariances' product."""
    cov_a, cov_b, difference = np.cov(a, rowvar=False), np.cov(b, rowvar=False), a.mean(0) - b.mean(0)
    root = scipy.linalg.sqrtm(cov_a.dot(cov_b).astype(complex))
    if not np.isfinite(root).all():
        offset = np.eye(len(cov_a)) * 1e-6
        root = scipy.linalg.sqrtm((cov_a + offset).dot(cov_b + offset).astype(complex))
    return float(difference.dot(difference) + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root.real))


def distance(model: VGGish, background: Sequence[Path], files: Sequence[Path], hop_frames: int) -> float:
    """``FrechetAudioDistance.score``: both folders are embedded on every call."""
    return frechet(embed(model, background, hop_frames), embed(model, files, hop_frames))
