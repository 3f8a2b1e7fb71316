"""Trains the miniature's U-Net in AudioLDM2's order: first on true LOA without text, then jointly with captions.

The order matters. A U-Net that meets text from the start reads the instrument from T5 and ignores the LOA, and then teacher
forcing of GPT-2 changes nothing. So the first stage knows the LOA alone, on every timbre of the sound font; in the second the
two streams are dropped independently, T5 more often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AudioLDM2UNet2DConditionModel, DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from torch import Tensor, nn
from torch.nn import functional as F

from timbre_ray.mini.fit import fit
from timbre_ray.mini.language import T5_DIM
from timbre_ray.mini.perceptual import LOA_DIM

TRUE_LOA_RATE = 0.25  # of captioned clips; AudioLDM2 uses the predicted LOA at 0.75
DROP_LOA, DROP_T5, DROP_BOTH = 0.1, 0.35, 0.08
NAMED_RATE = 0.75
#: Windows (time, mel) over which the error is averaged before it is squared, down to the clip's mean; and what these terms weigh.
COARSE_WINDOWS, COARSE_WEIGHT = ((4, 4), (16, 16), (64, 16)), 0.1


def build_unet() -> AudioLDM2UNet2DConditionModel:
    """Few groups of the norm, on purpose: a norm over two channels takes a clip's mean out of every layer. With 16 groups the
    network was blind to it: generated clips kept whatever mean their initial noise had, enlarged 80 times, and came out too loud
    or too dark.
    """
    channels = (32, 64, 128)
    torch.manual_seed(0)
    return AudioLDM2UNet2DConditionModel(
        sample_size=64, in_channels=8, out_channels=8, block_out_channels=channels, layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=4,
        cross_attention_dim=((None, LOA_DIM, T5_DIM),) * len(channels), transformer_layers_per_block=1,
    )  # fmt: skip


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip


class Conditions:
    """What the U-Net may be told about each clip: true LOA, and the LOA and T5 states of its captions (tables)."""

    def __init__(self, loa: Tensor, caption_rows: list[Tensor], table: dict[str, Tensor]) -> None:
        self.loa = loa  # (num_clips, 8, 128), true
        self.caption_rows = caption_rows  # a clip's rows of the tables; empty for a wide clip
        self.table = table  # "loa" (rows, 8, 128), "t5" (rows, length, 96), "mask" (rows, length); row 0 is the empty caption
        self.named = torch.tensor([i for i, rows in enumerate(caption_rows) if len(rows)])
        self.wide = torch.tensor([i for i, rows in enumerate(caption_rows) if not len(rows)])

    def draw(self, joint: bool, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> clip indices (batch,), LOA (batch, 8, 128), T5 states (batch, length, 96), mask (batch, length)."""
        uniform = torch.rand(5, batch, generator=generator)
        pick = torch.randint(1 << 30, (2, batch), generator=generator)
        if joint:
            from_named = uniform[0] < NAMED_RATE
            clips = torch.where(from_named, self.named[pick[0] % len(self.named)], self.wide[pick[0] % len(self.wide)])
        else:
            clips = pick[0] % len(self.caption_rows)
        loa, text = self.loa[clips].clone(), torch.zeros(batch, dtype=torch.long)
        for i, clip in enumerate(clips.tolist()):
            rows = self.caption_rows[clip]
            if joint and len(rows):
                row = rows[pick[1, i] % len(rows)]
                if uniform[1, i] >= TRUE_LOA_RATE:
                    loa[i] = self.table["loa"][row]
                if uniform[2, i] >= DROP_T5:
                    text[i] = row
            if uniform[3, i] < DROP_LOA:
                loa[i] = self.table["loa"][0]
            if uniform[4, i] < DROP_BOTH:
                loa[i], text[i] = self.table["loa"][0], 0
        return clips, loa, self.table["t5"][text], self.table["mask"][text]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One run of the optimiser over a cosine schedule; a later round starts from the averaged weights of the one before."""

    name: str
    num_steps: int
    num_loa_steps: int
    """steps of the first stage, true LOA without text; the rest is joint"""
    lr: float
    coarse: bool = False
    """the loss counts the error's averages over wide windows as well, see ``coarse_error``"""
    snr_gamma: float | None = None
    """min-SNR weighting of the loss (Hang et al. 2023): less weight on nearly clean latents; None weights all alike"""
    num_processes: int = 1
    """of 16 clips a step each; more than one: run the stage by ``torchrun --nproc-per-node``"""
    bfloat16: bool = False
    """autocast: less time a step on a CPU with AMX, more elsewhere"""


def coarse_error(difference: Tensor) -> Tensor:
    """Squared error of local means, for each clip. difference: (batch, 8, 64, 16) -> (batch,).

    The plain loss hardly sees a clip's mean: it is one number in a thousand, and at the noisiest timesteps a small mistake there
    decides how loud and how bright the clip becomes. A term over windows of n latents is multiplied by n, so that white error
    counts alike on every scale (after the multiscale loss of "simple diffusion", Hoogeboom et al. 2023, section 3.3).
    """
    terms = [w * h * F.avg_pool2d(difference, (h, w)).square().mean((1, 2, 3)) for h, w in COARSE_WINDOWS]
    return torch.stack(terms).sum(0)


def train_unet(
    work: Path,
    mean: Tensor,
    std: Tensor,
    scaling_factor: float,
    conditions: Conditions,
    rounds: Sequence[Round],
    unet: AudioLDM2UNet2DConditionModel,
) -> AudioLDM2UNet2DConditionModel:
    """mean, std: (num_clips, 8, 64, 16), the VAE's unscaled posterior. ``unet``: where to start from."""
    scheduler = build_scheduler()
    for one in rounds:
        if one.bfloat16:  # plain matrix products: on the CPU fused attention's backward pass is slow in bfloat16
            unet.set_attn_processor(AttnProcessor())

        def losses(step: int, generator: torch.Generator, one: Round = one, unet: nn.Module = unet) -> dict[str, Tensor]:
            clips, loa, t5, mask = conditions.draw(step >= one.num_loa_steps, 16, generator)
            draw = torch.randn(16, 8, 64, 16, generator=generator)
            latents = (mean[clips].float() + std[clips].float() * draw) * scaling_factor
            noise = torch.randn(latents.shape, generator=generator)
            timesteps = torch.randint(1000, (16,), generator=generator)
            noisy = scheduler.add_noise(latents, noise, timesteps)
            with torch.autocast("cpu", torch.bfloat16, enabled=one.bfloat16):
                predicted = unet(
                    noisy, timesteps, encoder_hidden_states=loa, encoder_hidden_states_1=t5, encoder_attention_mask_1=mask
                ).sample
            difference = predicted.float() - noise
            weight = torch.ones(16)
            if one.snr_gamma is not None:
                weight = (one.snr_gamma / compute_snr(scheduler, timesteps)).clamp_max(1.0)
            losses = {"epsilon": (weight * difference.square().mean((1, 2, 3))).mean()}
            if one.coarse:
                losses["coarse"] = COARSE_WEIGHT * (weight * coarse_error(difference)).mean()
            return losses

        unet = fit(
            one.name, unet, losses, work=work, num_steps=one.num_steps, lr=one.lr, ema_decay=0.999,
            num_processes=one.num_processes,
        ).requires_grad_(True)  # fmt: skip
    return unet.requires_grad_(False)
