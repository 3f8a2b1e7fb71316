"""VGGish: the embedder behind the Frechet audio distance.

The network and its front end follow Google's VGGish without PCA, quantisation and the final ReLU, as every torch port does.
State-dict names are those of harritaylor/torchvggish (``features.N.*``, ``embeddings.N.*``), so its published weights load.
The front end is Google's ``mel_features.py`` to the frame and the filter: weights mean the same only behind it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timbre_ray.models import saved, vggish_weights

SAMPLE_RATE_HZ = 16_000
WINDOW_FRAMES = 96
FRAME, HOP, N_FFT = 400, 160, 512  # samples: 25 ms every 10 ms


@functools.lru_cache(maxsize=1)
def mel_basis() -> Tensor:
    """(257, 64): triangles from 125 to 7500 Hz that are straight over mel; torchaudio's are straight over Hz."""

    def mel(hz: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log1p(hz / 700.0)

    bins = mel(np.linspace(0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1))[:, None]
    edges = np.linspace(*mel(np.array([125.0, 7500.0])), 66)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    return torch.from_numpy(triangles).float()


def windows(waveform: Tensor, hop_frames: int = WINDOW_FRAMES) -> Tensor:
    """Log-mel windows. waveform: (batch, samples) at 16 kHz -> (batch, num_windows, 96, 64).

    25 ms frames every 10 ms, magnitude of a 512-point FFT, 64 mel bands from 125 to 7500 Hz, log(x + 0.01).
    ``hop_frames`` below 96 makes the windows overlap. A clip shorter than one window (0.975 s) is an error.
    """
    if waveform.shape[1] < FRAME + (WINDOW_FRAMES - 1) * HOP:
        raise ValueError(f"clip of {waveform.shape[1] / SAMPLE_RATE_HZ:.2f} s: VGGish needs at least 0.975 s")
    margin = (N_FFT - FRAME) // 2  # torch centres the frame in the FFT's buffer: so frame i starts at sample 160 i
    padded, hann = nn.functional.pad(waveform, (margin, margin)), torch.hann_window(FRAME, device=waveform.device)
    spectrum = torch.stft(padded, N_FFT, HOP, FRAME, hann, center=False, return_complex=True).abs()
    mel = (spectrum.transpose(1, 2) @ mel_basis().to(waveform.device) + 0.01).log()
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
    def from_pretrained(cls, path: Path) -> VGGish:
        """Ours (a folder), or a file of weights in torchvggish's names: see ``vggish_weights``."""
        config, state = saved.read(path) if path.is_dir() else vggish_weights.read(path)
        model = cls(**config)
        model.load_state_dict(state)
        return model.eval()
