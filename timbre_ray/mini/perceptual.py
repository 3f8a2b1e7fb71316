"""Trains what listens: AudioMAE (conditioning), the instrument classifier and the VGGish-shaped embedder (scores)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from timbre_ray.data.features import fbank, normalise_waveform
from timbre_ray.mini import corpus
from timbre_ray.mini.fit import fit, load, multi_hot, save_whole
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.classifier import InstrumentClassifier
from timbre_ray.models.griffin_lim import invert_mel
from timbre_ray.models.vggish import VGGish, windows

LOA_DIM = 128
TARGET_CLASSES = {"chinese_flute_v1": "chinese flute", "chinese_flute_v2": "chinese flute", "chinese_lute": "chinese lute"}
LATENT_NOISE = 0.2  # of scaled latents, whose standard deviation is one
CLASSES = (*corpus.INSTRUMENTS, "chinese flute", "chinese lute")


class MaskedAutoencoder(nn.Module):
    """AudioMAE with its decoder (masked patches) and a tag head (programmes), the two halves of AudioMAE's training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AudioMAE(num_frames=256, embed_dim=LOA_DIM, depth=4, num_heads=4)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, LOA_DIM))
        self.decoder_position = nn.Parameter(torch.randn(1, 128, LOA_DIM) * 0.02)
        self.decoder = nn.TransformerEncoderLayer(LOA_DIM, 4, 2 * LOA_DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.to_patch = nn.Linear(LOA_DIM, 256)
        self.tags = nn.Linear(LOA_DIM, len(corpus.WIDE_PROGRAMMES))

    def reconstruction_loss(self, bank: Tensor, generator: torch.Generator, mask_ratio: float = 0.7) -> Tensor:
        vit = self.encoder.vit
        batch = len(bank)
        patches = vit.patch_embed(bank[:, None]) + vit.pos_embed[:, 1:]
        order = torch.rand(batch, 128, generator=generator).argsort(1)
        num_kept = int(128 * (1 - mask_ratio))
        kept = order[:, :num_kept, None].expand(-1, -1, LOA_DIM)
        hidden = torch.cat([(vit.cls_token + vit.pos_embed[:, :1]).expand(batch, -1, -1), patches.gather(1, kept)], 1)
        hidden = vit.norm(vit.blocks(hidden))[:, 1:]
        full = self.mask_token.expand(batch, 128, -1).scatter(1, kept, hidden) + self.decoder_position
        predicted = self.to_patch(self.decoder(full))
        target = bank.unfold(1, 16, 16).unfold(2, 16, 16).flatten(1, 2).flatten(2)  # (batch, 16 * 8, 256)
        error = (predicted - target).square().mean(-1)
        return error.gather(1, order[:, num_kept:]).mean()


def train_audiomae(work: Path, num_steps: int = 2600) -> AudioMAE:
    data = load(work, "train")
    labels = multi_hot(data["programmes"], list(corpus.WIDE_PROGRAMMES))
    torch.manual_seed(0)
    model = MaskedAutoencoder()

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(labels), (16,), generator=generator)
        bank = data["fbank"][rows].float()
        bank = bank + 0.05 * torch.randn(bank.shape, generator=generator)
        tags = model.tags(model.encoder.loa(bank).mean(1))
        return {
            "mae": model.reconstruction_loss(bank, generator),
            "tags": 5 * F.binary_cross_entropy_with_logits(tags, labels[rows]),
        }

    return fit("audiomae", model, losses, work=work, num_steps=num_steps, lr=1e-3, weight_decay=0.05).encoder


@torch.no_grad()
def loa_of(model: AudioMAE, bank: Tensor) -> Tensor:
    """bank: (num_clips, 256, 128) in half precision -> LOA (num_clips, 8, 128)."""
    return torch.cat([model.loa(b.float()) for b in bank.split(64)])


def class_names(names: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(TARGET_CLASSES.get(n, n) for n in row) for row in names]


@torch.no_grad()
def through_decoder(vae: AutoencoderKL, mel: Tensor, generator: torch.Generator) -> Tensor:
    """mel: (num_clips, 256, 64) -> waveforms (num_clips, 40960) as generation would sound them: VAE, then Griffin-Lim.

    Every second clip's latents carry a little noise, up to a fifth of their spread, as those of a denoiser do.
    """
    clips = []
    for part in mel.float().split(16):
        latents = vae.encode(part[:, None]).latent_dist.mean
        strength = torch.rand(len(part), 1, 1, 1, generator=generator) * (torch.arange(len(part)) % 2)[:, None, None, None]
        noise = LATENT_NOISE / vae.config.scaling_factor * torch.randn(latents.shape, generator=generator)
        clips.append(normalise_waveform(invert_mel(vae.decode(latents + strength * noise).sample[:, 0])))
    return torch.cat(clips)


def classifier_examples(work: Path, audiomae: AudioMAE, vae: AutoencoderKL, every: int = 3) -> tuple[Tensor, Tensor]:
    """LOA (num_clips, 8, 128) and labels (num_clips, num_classes): all named clips, and every third through the decoder.

    Without the second kind the classifier takes the decoder's noise floor for a property of the instrument.
    """
    loas, labels, generator = [], [], torch.Generator().manual_seed(0)
    for split in ("train", "targets_train"):
        data = load(work, split)
        named = [i for i, row in enumerate(data["names"]) if row]
        label = multi_hot([class_names(data["names"])[i] for i in named], list(CLASSES))
        decoded = through_decoder(vae, data["mel"][named[::every]], generator)
        banks = torch.cat([fbank(w, 256) for w in decoded.split(64)])
        loas += [loa_of(audiomae, data["fbank"][named]), loa_of(audiomae, banks)]
        labels += [label, label[::every]]
    return torch.cat(loas), torch.cat(labels)


def train_classifier(work: Path, audiomae: AudioMAE, vae: AutoencoderKL, num_steps: int = 3000) -> InstrumentClassifier:
    """On solos and duets of the captioned instruments and of the targets; the wide clips have no class."""
    cache = work / "classifier_examples.pt"
    if not cache.exists():
        save_whole(classifier_examples(work, audiomae, vae), cache)
    loa, label = torch.load(cache, weights_only=True)
    torch.manual_seed(0)
    model = InstrumentClassifier(classes=CLASSES, embed_dim=LOA_DIM)

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(label), (128,), generator=generator)
        noisy = loa[rows] + 0.05 * torch.randn(128, 8, LOA_DIM, generator=generator)
        return {"bce": F.binary_cross_entropy_with_logits(model(noisy), label[rows])}

    return fit("classifier", model, losses, work=work, num_steps=num_steps, lr=1e-3)


class TaggedVGGish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vggish = VGGish(widths=(16, 32, 64, 64, 128, 128), hidden_dim=256)
        self.tags = nn.Linear(128, len(corpus.WIDE_PROGRAMMES))


def train_embedder(work: Path, num_steps: int = 2000) -> VGGish:
    """Programme classification on single windows of every pitched programme but the targets."""
    data = load(work, "train")
    single = [i for i, row in enumerate(data["programmes"]) if len(row) == 1]
    labels = multi_hot([data["programmes"][i] for i in single], list(corpus.WIDE_PROGRAMMES)).argmax(1)
    window = torch.cat([windows(w.float(), 48).half() for w in data["waveform"][single].split(256)])  # (clips, 4, 96, 64)
    torch.manual_seed(0)
    model = TaggedVGGish()

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(labels), (48,), generator=generator)
        which = torch.randint(window.shape[1], (48,), generator=generator)
        x = window[rows, which].float()
        x = x + torch.empty(48, 1, 1).uniform_(-1, 1, generator=generator)  # gain
        logits = model.tags(F.dropout(model.vggish(x), 0.1))
        return {"ce": F.cross_entropy(logits, labels[rows], label_smoothing=0.05)}

    vggish = fit("embedder", model, losses, work=work, num_steps=num_steps, lr=5e-4).vggish
    return _scaled(vggish, window[:: len(window) // 1000].flatten(0, 1))


@torch.no_grad()
def _scaled(vggish: VGGish, window: Tensor) -> VGGish:
    """Scales the last layer so that the corpus's total variance is 100: distances then read as shares of it."""
    embeddings = torch.cat([vggish(w.float()) for w in window.split(256)])
    factor = (100 / float(embeddings.var(0).sum())) ** 0.5
    last = vggish.embeddings[-1]
    last.weight *= factor
    last.bias *= factor
    return vggish
