"""AudioLDM2's parts in one typed holder, loaded once a process; the miniature and the full-size model load alike."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, SpeechT5HifiGan
from transformers.utils import logging as transformers_logging

from timbre_ray.backbones import audiomae_path, pipeline_folder
from timbre_ray.data.features import HOP, log_mel
from timbre_ray.identity import backbone_digest
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.language import rollout
from timbre_ray.specs import BackboneSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What the models know of a prompt; every tensor has a leading axis of one."""

    loa: Tensor  # (1, 8, loa_dim), predicted by GPT-2
    t5: Tensor  # (1, length, t5_dim)
    mask: Tensor  # (1, length), 1 where T5 has a token
    condition: Tensor  # (1, length + 5, loa_dim), what GPT-2 reads
    condition_mask: Tensor  # (1, length + 5)

    def to(self, device: str) -> Embeddings:
        return Embeddings(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name).contiguous() for f in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """An AudioLDM2 pipeline and its AudioMAE. Shared by all trials of a process: whoever trains a part copies it first.

    On a GPU a part may lie aside in main memory (``set_aside``); asked for, it comes back.
    """

    pipeline: AudioLDM2Pipeline
    audiomae: AudioMAE
    digest: str
    device: str
    unrounded_unet: AudioLDM2UNet2DConditionModel | None = None
    """Of a backbone in half precision, its U-Net in float32, on the CPU: what training starts from."""

    @property
    def unet(self) -> AudioLDM2UNet2DConditionModel:
        return self._at_work(self.pipeline.unet)

    @property
    def vae(self) -> AutoencoderKL:
        return self._at_work(self.pipeline.vae)

    @property
    def vocoder(self) -> SpeechT5HifiGan:
        return self._at_work(self.pipeline.vocoder)

    @property
    def language_model(self) -> GPT2LMHeadModel:
        return self._at_work(self.pipeline.language_model)

    def _at_work(self, part: nn.Module) -> Any:
        """The same part, on the device."""
        return nn.Module.to(part, self.device)  # diffusers' own ``to`` warns of modules to spare, and names none

    def set_aside(self) -> None:
        """Moves every part to main memory and gives the GPU's back: a trained copy needs the room, and other trials may share the
        GPU. Nothing happens on the CPU."""
        if torch.device(self.device).type == "cpu":
            return
        for part in (*self.pipeline.components.values(), self.audiomae):
            if isinstance(part, nn.Module):
                nn.Module.to(part, "cpu")
        gc.collect()  # recorded graphs hold on to each other
        torch.cuda.empty_cache()

    @property
    def clip_samples(self) -> int:
        """Samples of a clip: as much as AudioMAE reads (2.56 s for the miniature, 10.24 s at full size)."""
        return self.audiomae.config["num_frames"] * HOP

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, time, mel bands) of a clip's latents."""
        factor = self.pipeline.vae_scale_factor
        return self.vae.config.latent_channels, self.audiomae.config["num_frames"] // factor, 64 // factor

    def new_scheduler(self) -> DDIMScheduler:
        return DDIMScheduler.from_config(self.pipeline.scheduler.config)

    def copy_unet(self, device: str | None = None) -> AudioLDM2UNet2DConditionModel:
        """In float32, to be trained. device: None for the backbone's.

        Not the weights that half precision has rounded: from these a change below their last digit would be rounded away when the
        trained ones are played.
        """
        unet = copy.deepcopy(self.unrounded_unet or self.pipeline.unet)
        return nn.Module.to(unet, device or self.device, torch.float32)

    def copy_language_model(self) -> GPT2LMHeadModel:
        return self._at_work(copy.deepcopy(self.pipeline.language_model))

    @torch.no_grad()
    def encode_audio(self, waveform: Tensor, batch_size: int = 8) -> tuple[Tensor, Tensor]:
        """waveform: (num_clips, samples) -> scaled posterior mean and std, each (num_clips, channels, time, mel), on the CPU."""
        means, stds, vae = [], [], self.vae
        for part in waveform.split(batch_size):
            posterior = vae.encode(log_mel(part.to(self.device))[:, None]).latent_dist
            means.append(posterior.mean.float().cpu() * vae.config.scaling_factor)
            stds.append(posterior.std.float().cpu() * vae.config.scaling_factor)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def loa(self, waveform: Tensor, layers: str = "last3", batch_size: int = 16) -> Tensor:
        """waveform: (num_clips, samples) -> true LOA (num_clips, 8, loa_dim), on the CPU."""
        audiomae = self._at_work(self.audiomae)
        return torch.cat([audiomae.loa_of_waveform(w.to(self.device), layers).cpu() for w in waveform.split(batch_size)])

    @torch.no_grad()
    def embed(self, prompt: str, language_model: GPT2LMHeadModel | None = None, pad_to: int | None = None) -> Embeddings:
        """Reads one prompt as ``AudioLDM2Pipeline.encode_prompt`` does; ``pad_to`` pads T5's tokens (for negative prompts)."""
        pipe = self.pipeline
        for part in (pipe.text_encoder, pipe.text_encoder_2, pipe.projection_model):
            self._at_work(part)
        clap = pipe.tokenizer([prompt], padding="max_length", truncation=True, return_tensors="pt").to(self.device)
        clap_text = pipe.text_encoder.get_text_features(clap.input_ids, attention_mask=clap.attention_mask).pooler_output[:, None]
        padding = {"padding": "max_length", "max_length": pad_to} if pad_to else {"padding": True}
        tokens = pipe.tokenizer_2([prompt], truncation=True, return_tensors="pt", **padding).to(self.device)
        t5 = pipe.text_encoder_2(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        ones = tokens.attention_mask.new_ones(1, 1)
        projected = pipe.projection_model(
            hidden_states=clap_text, hidden_states_1=t5, attention_mask=ones, attention_mask_1=tokens.attention_mask
        )
        gpt2 = language_model or self.language_model
        loa = rollout(gpt2, projected.hidden_states, projected.attention_mask)
        return Embeddings(
            loa=loa, t5=t5, mask=tokens.attention_mask, condition=projected.hidden_states, condition_mask=projected.attention_mask
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice on half precision while a checkpoint is read or written: hundreds of trials load one."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        diffusers_logging.enable_progress_bar()
        transformers_logging.enable_progress_bar()


@functools.lru_cache(maxsize=2)
def load_backbone(spec: BackboneSpec, device: str = "cpu") -> Backbone:
    """Loads the pipeline once a process; a hub id is fetched once a node.

    GPT-2 is loaded with its generation head, whatever the checkpoint's index says: the published ones name ``GPT2Model``, which
    has had no generation since transformers 4.50.
    """
    folder = pipeline_folder(spec)
    with quiet():
        language_model = GPT2LMHeadModel.from_pretrained(folder, subfolder="language_model")
        pipeline = AudioLDM2Pipeline.from_pretrained(folder, language_model=language_model)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.float().eval().requires_grad_(False)
    unrounded = copy.deepcopy(pipeline.unet) if spec.dtype != "float32" else None
    nn.Module.to(pipeline.unet, getattr(torch, spec.dtype))  # VAE and vocoder would add its rounding to what is heard
    pipeline.to(device)
    audiomae = AudioMAE.from_pretrained(audiomae_path(spec)).to(device).requires_grad_(False)
    _check_fit(spec, language_model, audiomae)
    return Backbone(
        pipeline=pipeline, audiomae=audiomae, digest=backbone_digest(spec), device=device, unrounded_unet=unrounded
    )


def _check_fit(spec: BackboneSpec, language_model: GPT2LMHeadModel, audiomae: AudioMAE) -> None:
    predicted, true = language_model.config.n_embd, audiomae.config["embed_dim"]
    if predicted != true:
        raise ValueError(
            f"backbone.audiomae={spec.audiomae!r}: its features have {true} dimensions, "
            f"but the GPT-2 of {spec.name} predicts {predicted}"
        )
