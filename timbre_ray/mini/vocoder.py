"""Trains the miniature's vocoder: SpeechT5HifiGan, mel to waveform, by spectral losses (no adversary)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from timbre_ray.data.features import HOP, log_mel
from timbre_ray.mini.fit import fit, load

SEGMENT_FRAMES = 48
MEL_FLOOR = -9.0  # log magnitude


def build_vocoder() -> SpeechT5HifiGan:
    """With He's initialisation: the library's own (std 0.01) starts at a silence whose log spectrum has no gradient."""
    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16_000, upsample_initial_channel=192, upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[15, 8, 4, 4, 4], resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3], [1, 3]],
        normalize_before=False,
    ))  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            fan_in = module.weight[0].numel() if isinstance(module, nn.Conv1d) else module.weight[:, 0].numel() / module.stride[0]
            nn.init.normal_(module.weight, std=(1.0 / fan_in) ** 0.5)
            nn.init.zeros_(module.bias)
    return model


def spectral_loss(y: Tensor, x: Tensor) -> Tensor:
    """Multi-resolution STFT loss (spectral convergence and log magnitude), Yamamoto et al. 2020. (batch, samples).

    The logarithm's floor lies near -70 dB of a clip's peak: a sound font's digital silence is no target for a network.
    """
    total = y.new_zeros(())
    for n_fft in (256, 512, 1024, 2048):
        window = torch.hann_window(n_fft)
        a, b = (torch.stft(w, n_fft, n_fft // 4, window=window, return_complex=True).abs().clamp_min(1e-2) for w in (y, x))
        total = total + (b - a).norm() / b.norm() + F.l1_loss(a.log(), b.log())
    return total / 4


def train_vocoder(work: Path, num_steps: int = 2200) -> SpeechT5HifiGan:
    data = load(work, "train")
    waveform, mel = data["waveform"], data["mel"]
    torch.manual_seed(0)
    model = build_vocoder()

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(mel), (8,), generator=generator)
        at = int(torch.randint(256 - SEGMENT_FRAMES + 1, (1,), generator=generator))
        x = waveform[rows, at * HOP : (at + SEGMENT_FRAMES) * HOP].float()
        y = model(mel[rows, at : at + SEGMENT_FRAMES].float())
        return {"stft": spectral_loss(y, x), "mel": F.l1_loss(log_mel(y).clamp_min(MEL_FLOOR), log_mel(x).clamp_min(MEL_FLOOR))}

    return fit("vocoder", model, losses, work=work, num_steps=num_steps, lr=1e-3, betas=(0.8, 0.99))
