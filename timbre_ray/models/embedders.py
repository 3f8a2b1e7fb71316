"""Embedders behind the distances: one protocol, one line each in a table, a contract test that every entry passes.

Their weights are the miniature's, whatever backbone is scored, so that distances compare between backbones; VGGish and CLAP take
others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torchaudio
from torch import Tensor

from timbre_ray.backbones import MINI, local_path
from timbre_ray.clap_choice import PARTS
from timbre_ray.data.features import HOP, SAMPLE_RATE_HZ, cut_windows
from timbre_ray.models import vggish
from timbre_ray.models.audiomae import AudioMAE


class Embedder(Protocol):
    """Hears clips in windows of its own length."""

    def __call__(self, waveform: Tensor) -> Tensor:
        """waveform: (batch, samples) at 16 kHz -> (batch, rows, dim), float32, on the CPU. A clip's rows are its alone."""


class VGGishEmbedder:
    """One row every 0.48 s, windows of 0.96 s that overlap by half: four a miniature clip. Shorter clips are an error."""

    HOP_FRAMES = 48

    def __init__(self, device: str, weights: Path = MINI / "vggish") -> None:
        self._model = vggish.VGGish.from_pretrained(weights).to(device).requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        windows = vggish.windows(waveform.to(self._device), self.HOP_FRAMES)
        return self._model(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).cpu()


class AudioMAEEmbedder:
    """Eight rows a window of 2.56 s: the tokens of its LOA."""

    def __init__(self, device: str) -> None:
        self._model = AudioMAE.from_pretrained(MINI / "audiomae").to(device).requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        windows = cut_windows(waveform.to(self._device), self._model.config["num_frames"] * HOP)
        return self._model.loa_of_waveform(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).flatten(1, 2).cpu()


class ClapEmbedder:
    """One row a window, of 2.56 s (10 s of the published one): CLAP's projected audio features, of length one."""

    def __init__(self, device: str, weights: Path = MINI) -> None:
        """weights: folder of a pipeline, of which its CLAP and what reads for it are taken."""
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel  # seconds, which VGGish need not wait for

        model = ClapModel.from_pretrained(weights, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True)
        self._model = model.to(device).eval()
        self._extractor = ClapFeatureExtractor.from_pretrained(weights, subfolder="feature_extractor")
        self._extractor.nb_max_samples = int(self._extractor.nb_max_samples)  # of 2.56 s a float, by which it cannot pad
        self._tokenizer = AutoTokenizer.from_pretrained(weights, subfolder="tokenizer")
        self._device = device

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        rate_hz = self._extractor.sampling_rate
        waveform = torchaudio.functional.resample(waveform, SAMPLE_RATE_HZ, rate_hz)
        windows = cut_windows(waveform, self._extractor.nb_max_samples)  # cut here: the extractor would cut at random
        rows = [
            self._extractor(clip.cpu().numpy(), sampling_rate=rate_hz, return_tensors="pt")["input_features"]
            for clip in windows.flatten(0, 1)
        ]
        features = self._model.get_audio_features(torch.cat(rows).to(self._device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).unflatten(0, windows.shape[:2]).cpu()

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """-> (num_prompts, dim) in the space of the audio, of length one, on the CPU."""
        tokens = self._tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").to(self._device)
        features = self._model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return torch.nn.functional.normalize(features, dim=-1).cpu()


EMBEDDERS: dict[str, Callable[..., Embedder]] = {
    "vggish": VGGishEmbedder,
    "clap": ClapEmbedder,
    "audiomae": AudioMAEEmbedder,
}


@functools.lru_cache(maxsize=8)
def load_embedder(name: str, device: str = "cpu", weights: str = "mini") -> Embedder:
    """Once a process. weights: as ``evaluate.vggish`` or ``evaluate.clap`` names them; AudioMAE knows the miniature's alone."""
    if weights == "mini":
        return EMBEDDERS[name](device)
    return EMBEDDERS[name](device, local_path(weights, None, f"evaluate.{name}", PARTS if name == "clap" else ()))
