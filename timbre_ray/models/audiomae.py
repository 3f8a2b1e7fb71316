"""AudioMAE: the encoder whose pooled patches are AudioLDM2's "language of audio" (LOA)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor, nn

from timbre_ray.data.features import fbank
from timbre_ray.models import audiomae_weights, saved

LoaLayers = Literal["last3", "last"]


class AudioMAE(nn.Module):
    """A timm ViT over (1, num_frames, 128) filter banks, without masking, and its pooling to eight LOA tokens.

    At full size: ViT-B/16 on (1, 1024, 128), 64 x 8 patches pooled by 8 x 8. Patches are pooled in time to eight tokens and
    over all frequencies, by the mean of average and maximum pooling (AudioLDM2, ``AudioMAEConditionCTPoolRand``).
    """

    NUM_TOKENS = 8

    def __init__(self, *, num_frames: int, embed_dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        if num_frames % (16 * self.NUM_TOKENS):
            raise ValueError(
                f"num_frames={num_frames}: must be a multiple of {16 * self.NUM_TOKENS} (8 LOA tokens of 16-frame patches)"
            )
        self.config = {"num_frames": num_frames, "embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        self.vit = timm.models.VisionTransformer(
            img_size=(num_frames, 128), patch_size=16, in_chans=1, num_classes=0,
            embed_dim=embed_dim, depth=depth, num_heads=num_heads,
        )  # fmt: skip

    def tokens(self, bank: Tensor, layers: LoaLayers = "last3") -> Tensor:
        """bank: (batch, num_frames, 128) -> patch features (batch, num_frames // 16, 8, embed_dim), cls dropped."""
        num_layers = {"last3": 3, "last": 1}[layers]
        blocks = self.vit.forward_intermediates(
            bank[:, None], indices=num_layers, norm=True, output_fmt="NLC", intermediates_only=True
        )
        patches = torch.stack(blocks).mean(0)
        return patches.unflatten(1, (-1, 8))

    def loa(self, bank: Tensor, layers: LoaLayers = "last3") -> Tensor:
        """bank: (batch, num_frames, 128), normalised -> LOA (batch, 8, embed_dim)."""
        patches = self.tokens(bank, layers).permute(0, 3, 1, 2)  # (batch, embed_dim, time, frequency)
        kernel = (patches.shape[2] // self.NUM_TOKENS, patches.shape[3])
        average = nn.functional.avg_pool2d(patches, kernel)
        maximum = nn.functional.max_pool2d(patches, kernel)
        return ((average + maximum) / 2).flatten(2).transpose(1, 2)

    def loa_of_waveform(self, waveform: Tensor, layers: LoaLayers = "last3") -> Tensor:
        """waveform: (batch, samples) at 16 kHz -> LOA (batch, 8, embed_dim)."""
        return self.loa(fbank(waveform, self.config["num_frames"]), layers)

    def save_pretrained(self, folder: Path) -> None:
        saved.write(folder, self.config, self.vit.state_dict())

    @staticmethod
    def wrote(path: Path) -> bool:
        """Is it a folder of ``save_pretrained``? Its ``config.json`` names the frames; timm's does not."""
        config = path / "config.json"
        return config.is_file() and "num_frames" in json.loads(config.read_text(encoding="utf-8"))

    @classmethod
    def from_pretrained(cls, path: Path) -> AudioMAE:
        """A folder of ``save_pretrained``, timm's layout, or an original checkpoint: see ``audiomae_weights``."""
        config, state = saved.read(path) if cls.wrote(path) else audiomae_weights.read(path)
        model = cls(**config)
        model.vit.load_state_dict(state)
        return model.eval()
