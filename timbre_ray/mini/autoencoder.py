"""Trains the miniature's VAE: mel spectrograms (1, time, 64) to latents (8, time / 4, 16)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from timbre_ray.mini.fit import fit, load

KL_WEIGHT = 1e-6


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=8, block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, mid_block_add_attention=False,
        scaling_factor=1.0,
    )  # fmt: skip


def train_vae(work: Path, num_steps: int = 4400) -> AutoencoderKL:
    """L1 and KL on random crops of 64 frames: the network has no attention, so it reads any length alike."""
    mel = load(work, "train")["mel"]
    torch.manual_seed(0)
    model = build_vae()
    model.to(memory_format=torch.channels_last)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(mel), (8,), generator=generator)
        at = int(torch.randint(256 - 64 + 1, (1,), generator=generator))
        x = mel[rows, at : at + 64].float()[:, None]
        posterior = model.encode(x).latent_dist
        y = model.decode(posterior.sample(generator)).sample
        slope = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean()  # keeps partials sharp along frequency
        return {"l1": F.l1_loss(y, x), "slope": 0.5 * slope, "kl": KL_WEIGHT * posterior.kl().sum() / len(x) / 64 / 64 * 1e2}

    vae = fit("vae", model, losses, work=work, num_steps=num_steps, lr=1e-3, ema_decay=0.998)
    vae = centre(vae, latents_of(vae, mel[::29])[0].mean((0, 2, 3)))
    vae.register_to_config(scaling_factor=1.0 / float(latents_of(vae, mel[::29])[0].std()))
    return vae


@torch.no_grad()
def centre(vae: AutoencoderKL, mean: Tensor) -> AutoencoderKL:
    """The same autoencoder with latents whose channels have mean zero, as the noise has that generation starts from.

    mean: (8,), of the unscaled latents. It moves from the encoder's last bias into the decoder's first; reconstructions stay.
    """
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    return vae


@torch.no_grad()
def latents_of(vae: AutoencoderKL, mel: Tensor) -> tuple[Tensor, Tensor]:
    """mel: (num_clips, time, 64) in half precision -> unscaled posterior mean and std, each (num_clips, 8, time / 4, 16)."""
    parts = [vae.encode(m.float()[:, None]).latent_dist for m in mel.split(32)]
    return torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])
