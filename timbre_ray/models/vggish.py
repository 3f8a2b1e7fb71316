"""VGGish: the embedder behind the Frechet audio distance.

The network and its front end follow Google's VGGish without PCA, quantisation and the final ReLU, as every torch port does.
State-dict names are those of harritaylor/torchvggish (``features.N.*``, ``embeddings.N.*``), so its published weights load.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn

from timbre_ray.models import saved

SAMPLE_RATE_HZ = 16_000
WINDOW_FRAMES = 96


def windows(waveform: Tensor, hop_frames: int = WINDOW_FRAMES) -> Tensor:
    """Log-mel windows. waveform: (batch, samples) at 16 kHz -> (batch, num_windows, 96, 64).

    25 ms frames every 10 ms, magnitude of a 512-point FFT, 64 HTK mel bands from 125 to 7500 Hz, log(x + 0.01).
    ``hop_frames`` below 96 makes the windows overlap. A clip shorter than one window (0.96 s) is an error.
    """
    spectrum = torch.stft(
        waveform, 512, 160, 400, torch.hann_window(400, device=waveform.device), center=False, return_complex=True
    ).abs()
    basis = torchaudio.functional.melscale_fbanks(257, 125.0, 7500.0, 64, SAMPLE_RATE_HZ, mel_scale="htk").to(waveform.device)
    mel = (spectrum.transpose(1, 2) @ basis + 0.01).log()
    if mel.shape[1] < WINDOW_FRAMES:
        raise ValueError(f"clip of {waveform.shape[1] / SAMPLE_RATE_HZ:.2f} s: VGGish needs at least 0.98 s")
    return mel.unfold(1, WINDOW_FRAMES, hop_frames).transpose(2, 3)


class VGGish(nn.Module):
    """(batch, 96, 64) log-mel windows -> (batch, embed_dim) embeddings."""

    def __init__(
        self, *, widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512), hidden_dim: int = 4096, embed_dim: int = 128
    ) -> None:
        super().__init__()
        self.config = {"widths": list(widths), "hidden_dim": hidden_dim, "embed_dim": embed_dim}
        layers: list[nn.Module] = []
        channels = 1
        for i, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            if i in (0, 1, 3, 5):
                layers.append(nn.MaxPool2d(2, 2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * 6 * 4, hidden_dim), nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, hidden_dim), nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, embed_dim),
        )  # fmt: skip

    def forward(self, window: Tensor) -> Tensor:
        features = self.features(window[:, None])
        return self.embeddings(features.permute(0, 2, 3, 1).flatten(1))  # channels last, as in TensorFlow

    def save_pretrained(self, folder: Path) -> None:
        saved.write(folder, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path) -> VGGish:
        config, state = saved.read(folder)
        model = cls(**config)
        model.load_state_dict(state)
        return model.eval()
