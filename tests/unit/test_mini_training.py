"""What the miniature's training promises of its losses and of its autoencoder."""

from __future__ import annotations

import torch

from timbre_ray.data.clips import load_target
from timbre_ray.mini.autoencoder import build_vae, centre, latents_of
from timbre_ray.mini.denoiser import COARSE_WINDOWS, coarse_error
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import ClipsSpec


def test_centred_latents_have_mean_zero_and_reconstructions_stay():
    mel = torch.randn(6, 64, 64, generator=torch.Generator().manual_seed(0)) - 5.0
    vae = build_vae().eval()
    with torch.no_grad():
        vae.quant_conv.bias.add_(torch.arange(16.0))
        mean, std = latents_of(vae, mel)
        decoded = vae.decode(mean).sample
        vae = centre(vae, mean.mean((0, 2, 3)))
        moved, same_std = latents_of(vae, mel)
        torch.testing.assert_close(vae.decode(moved).sample, decoded, rtol=0.0, atol=1e-4)
    torch.testing.assert_close(moved.mean((0, 2, 3)), torch.zeros(8), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(same_std, std)


def test_the_coarse_error_counts_white_error_alike_on_every_scale():
    white = torch.randn(2000, 8, 64, 16, generator=torch.Generator().manual_seed(0))
    assert abs(float(coarse_error(white).mean()) - len(COARSE_WINDOWS)) < 0.05


def test_the_coarse_error_counts_a_wrong_mean_by_the_size_of_each_window():
    error = torch.full((3, 8, 64, 16), 0.1)
    torch.testing.assert_close(coarse_error(error), torch.full((3,), 12.96), rtol=1e-4, atol=0.0)  # 0.01 (16 + 256 + 1024)


@torch.no_grad()
def test_the_unet_knows_the_mean_of_the_noise_it_is_given(backbone: Backbone) -> None:
    """Blind to it, its clips came out too loud or too dark. A guess of zero for each channel's mean would err by 1/32."""
    mean, _ = backbone.encode_audio(load_target(ClipsSpec(path="mini:chinese_flute_v1"), backbone.clip_samples)[0])
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.full((len(mean),), 900)
    prompt = backbone.embed("A recording of a flute solo.")
    predicted = backbone.unet(
        backbone.new_scheduler().add_noise(mean, noise, timesteps), timesteps,
        encoder_hidden_states=prompt.loa.expand(len(mean), -1, -1),
        encoder_hidden_states_1=prompt.t5.expand(len(mean), -1, -1),
        encoder_attention_mask_1=prompt.mask.expand(len(mean), -1),
    ).sample  # fmt: skip
    error = (predicted - noise).mean((2, 3)).square().mean().sqrt()
    assert error < 0.5 / 32
