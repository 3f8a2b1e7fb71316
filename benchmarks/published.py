"""Checkpoints at the published sizes with random weights: cvssp/audioldm2's configurations, rebuilt from what is known of them.

The tokenizers are the miniature's: the published vocabularies are weights too, and cannot be made up.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
from transformers import (
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
)  # fmt: skip

from timbre_ray.backbones import MINI
from timbre_ray.models.audiomae import AudioMAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What a published U-Net's configuration has of its own, and what is known of the model that it makes."""

    cross_attention_dim: tuple[int | None, ...]
    transformer_layers_per_block: int
    num_parameters: tuple[float, float]
    num_adapted: int
    num_lora_parameters: int


SIZES = {
    "audioldm2": Published(
        cross_attention_dim=(None, 768, 1024), transformer_layers_per_block=1, num_parameters=(345e6, 350e6), num_adapted=32,
        num_lora_parameters=567_296,
    ),
    "audioldm2-large": Published(
        cross_attention_dim=(None, 768, 1024, None), transformer_layers_per_block=2, num_parameters=(712e6, 750e6),
        num_adapted=64, num_lora_parameters=1_134_592,
    ),
}  # fmt: skip


def build_unet(size: Published, device: str | None = "meta") -> AudioLDM2UNet2DConditionModel:
    """device: None for the one that the caller has chosen."""
    with torch.device(device) if device else contextlib.nullcontext():
        return AudioLDM2UNet2DConditionModel(
            sample_size=128, in_channels=8, out_channels=8, layers_per_block=2, block_out_channels=(128, 256, 384, 640),
            attention_head_dim=8, cross_attention_dim=(size.cross_attention_dim,) * 4,
            transformer_layers_per_block=size.transformer_layers_per_block,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def write_checkpoint(folder: Path, name: str = "audioldm2", device: str = "cpu") -> int:
    """A whole pipeline in the hub's own layout (GPT-2 without its head) in half precision; returns its number of parameters.

    device: where the random weights are drawn.
    """
    torch.manual_seed(0)
    with torch.device(device):
        pipeline = build_pipeline(name, GPT2Model)
    models = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return sum(p.numel() for model in models for p in model.parameters())


def build_pipeline(name: str, language_model: type[GPT2Model] | type[GPT2LMHeadModel]) -> AudioLDM2Pipeline:
    """Random weights on the device that the caller has chosen."""
    t5 = T5Config(
        vocab_size=32_128, d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=64, upsample_initial_channel=1024, upsample_rates=[5, 4, 2, 2, 2], upsample_kernel_sizes=[16, 16, 8, 4, 4],
        normalize_before=False,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=8, block_out_channels=(128, 256, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.4110932946205139,
    )  # fmt: skip
    return AudioLDM2Pipeline(
        vae=vae, text_encoder=ClapModel(ClapConfig()), text_encoder_2=T5EncoderModel(t5),
        language_model=language_model(GPT2Config(max_new_tokens=8)),
        projection_model=AudioLDM2ProjectionModel(512, 1024, 768), unet=build_unet(SIZES[name], device=None),
        tokenizer=AutoTokenizer.from_pretrained(MINI / "tokenizer"),
        tokenizer_2=AutoTokenizer.from_pretrained(MINI / "tokenizer_2"),
        feature_extractor=ClapFeatureExtractor(), scheduler=build_scheduler(), vocoder=SpeechT5HifiGan(vocoder),
    )  # fmt: skip


def build_audiomae() -> AudioMAE:
    """ViT-B/16 over ten seconds, as the published encoder is."""
    return AudioMAE(num_frames=1024, embed_dim=768, depth=12, num_heads=12)


def write_audiomae(folder: Path) -> None:
    torch.manual_seed(0)
    build_audiomae().save_pretrained(folder)
