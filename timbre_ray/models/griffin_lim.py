"""Mel spectrogram to waveform without a vocoder: least squares for the magnitudes, Griffin-Lim for the phases.

Off for the published weights. The miniature's vocoder has learnt for minutes, not weeks, and a convolutional vocoder that is told
a steady tone tends to answer with multiples of its frame rate (100 Hz): this plays in tune.
"""

from __future__ import annotations

import functools

import torch
import torchaudio
from torch import Tensor

from timbre_ray.data.features import HOP, mel_basis

N_FFT = 1024
NUM_ITERATIONS = 16


@functools.lru_cache(maxsize=2)
def _inverse_basis(device: str) -> Tensor:
    return torch.linalg.pinv(mel_basis().double()).float().to(device)  # (64, 513)


def linear_magnitude(mel: Tensor, num_steps: int = 8) -> Tensor:
    """mel: (batch, frames, 64) log magnitude -> non-negative linear magnitude (batch, frames, 513).

    Multiplicative updates (Lee and Seung 2000) from the pseudo-inverse: least squares under mel = magnitude @ basis.
    """
    target, basis = mel.exp(), mel_basis().to(mel.device)
    wanted, gram = target @ basis.T, basis @ basis.T
    magnitude = (target @ _inverse_basis(str(mel.device))).clamp_min(1e-5)
    for _ in range(num_steps):
        magnitude = magnitude * wanted / (magnitude @ gram).clamp_min(1e-10)
    return magnitude


def invert_mel(mel: Tensor) -> Tensor:
    """mel: (batch, frames, 64), as ``features.log_mel`` makes it -> (batch, frames * 160). Deterministic."""
    magnitude = linear_magnitude(mel).transpose(1, 2)
    num_samples = mel.shape[1] * HOP
    # log_mel's frame t is centred at 160 t + 80, torch's at 160 t: half a hop of silence in front makes up for it.
    late = torchaudio.functional.griffinlim(
        magnitude, torch.hann_window(N_FFT, device=mel.device), N_FFT, HOP, N_FFT, power=1.0, n_iter=NUM_ITERATIONS,
        momentum=0.99, length=None, rand_init=False,
    )  # fmt: skip
    return torch.nn.functional.pad(late, (HOP // 2, num_samples))[:, :num_samples]
