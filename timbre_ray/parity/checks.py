"""The table of parity checks: each compares what a trial uses with a reference, and says how far apart they may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.compliance import kaldi

from timbre_ray.data.features import fbank, log_mel
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.kernel import kernel_distance
from timbre_ray.methods import METHODS
from timbre_ray.models import vggish
from timbre_ray.models.backbone import Backbone
from timbre_ray.models.language import rollout
from timbre_ray.models.sampling import clip_noise, denoise, prompt_pair
from timbre_ray.parity import references
from timbre_ray.specs import DreamboothSpec, SamplerSpec

PROMPT = "A recording of a piano with flute."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    reference: str
    tolerance: float
    relative: bool = False
    """Deviations over the reference's greatest magnitude."""
    both: Callable[[Backbone], tuple[Tensor | NDArray[np.float64] | float, Tensor | NDArray[np.float64] | float]]
    """-> (ours, the reference's), of one shape."""

    def deviation(self, backbone: Backbone) -> float:
        """The largest absolute difference. Raises ValueError if the shapes differ."""
        with torch.no_grad():
            ours, reference = (np.asarray(value, np.float64) for value in self.both(backbone))
        if ours.shape != reference.shape:
            raise ValueError(f"parity of {self.name}: ours has the shape {ours.shape}, the reference {reference.shape}")
        scale = np.abs(reference).max() if self.relative else 1.0
        return float(np.abs(ours - reference).max() / scale)

    def passes(self, deviation: float) -> bool:
        return deviation <= self.tolerance  # a deviation that is no number fails


def _noise(num_samples: int = 40_960) -> Tensor:
    return 0.3 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def _samples(num_rows: int, dim: int, seed: int, shift: float) -> NDArray[np.float64]:
    """Correlated rows, as embeddings are."""
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(num_rows, dim)) @ rng.normal(size=(dim, dim))


def _rollout(backbone: Backbone) -> tuple[Tensor, Tensor]:
    known = backbone.embed(PROMPT)
    ours = rollout(backbone.language_model, known.condition, known.condition_mask)
    theirs = backbone.pipeline.generate_language_model(known.condition, attention_mask=known.condition_mask, max_new_tokens=8)
    return ours, theirs


def _loa(backbone: Backbone) -> tuple[Tensor, NDArray[np.float64]]:
    vit = backbone.audiomae.vit
    bank = fbank(_noise(backbone.clip_samples)[None], backbone.audiomae.config["num_frames"]).to(backbone.device)
    patches = vit.patch_embed(bank[:, None]) + vit.pos_embed[:, 1:]
    hidden, blocks = torch.cat([vit.cls_token + vit.pos_embed[:, :1], patches], dim=1), []
    for block in vit.blocks:
        hidden = block(hidden)
        blocks.append(vit.norm(hidden)[0].double().cpu().numpy())
    return backbone.audiomae.loa(bank)[0].cpu(), references.pooled_loa(blocks[-3:])


def _sampling(backbone: Backbone) -> tuple[Tensor, Tensor]:
    noise = torch.stack([clip_noise(5, i, backbone.latent_shape) for i in range(2)]).to(backbone.device)
    sampler = SamplerSpec(num_inference_steps=4, guidance_scale=3.5)
    ours = denoise(backbone.unet, backbone.new_scheduler(), noise, *prompt_pair(backbone, PROMPT, ""), sampler)
    theirs = backbone.pipeline(
        PROMPT, latents=noise, num_waveforms_per_prompt=2, num_inference_steps=4, guidance_scale=3.5, output_type="latent",
        audio_length_in_s=backbone.clip_samples / 16_000,
    ).audios  # fmt: skip
    return ours.cpu(), theirs.cpu()


def _lora(backbone: Backbone) -> tuple[Tensor, Tensor]:
    unet, prompt = backbone.copy_unet(), backbone.embed(PROMPT)
    METHODS["lora"].attach(unet, DreamboothSpec(method="lora"))
    told = {
        "encoder_hidden_states": prompt.loa, "encoder_hidden_states_1": prompt.t5, "encoder_attention_mask_1": prompt.mask
    }  # fmt: skip
    latents = clip_noise(0, 0, backbone.latent_shape)[None].to(backbone.device)
    return unet(latents, 10, **told).sample.cpu(), backbone.unet(latents, 10, **told).sample.cpu()


def _frechet(backbone: Backbone) -> tuple[float, float]:
    a, b = _samples(300, 32, 0, 0.0), _samples(400, 32, 1, 1.0)
    return frechet_distance(a, b), references.frechet_by_sqrtm(a, b)


def _kernel(backbone: Backbone) -> tuple[float, float]:
    a, b = _samples(12, 8, 0, 0.0), _samples(15, 8, 1, 1.0)
    return kernel_distance(a, b), references.kernel_distance_by_pairs(a, b)


def _vggish_mel(backbone: Backbone) -> tuple[Tensor, NDArray[np.float64]]:
    mel = references.vggish_log_mel(_noise().double().numpy())
    return vggish.windows(_noise()[None])[0], np.stack([mel[i : i + 96] for i in range(0, len(mel) - 95, 96)])


def _mel(backbone: Backbone) -> tuple[Tensor, NDArray[np.float64]]:
    return log_mel(_noise()[None])[0], references.audioldm_log_mel(_noise().double().numpy())


def _fbank(backbone: Backbone) -> tuple[Tensor, NDArray[np.float64]]:
    clip = _noise(16_000)
    raw = kaldi.fbank(
        (clip - clip.mean())[None], htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    return fbank(clip[None], 256)[0], references.audiomae_normalised(raw.double().numpy(), 256)


CHECKS = (
    Check(name="GPT-2 rollout, 8 steps", reference="diffusers' generate_language_model", tolerance=1e-5, both=_rollout),
    Check(name="LOA of three blocks, pooled", reference="AudioLDM2's formula in numpy", tolerance=1e-4, both=_loa),
    Check(name="DDIM latents, 4 steps, guided", reference="AudioLDM2Pipeline.__call__", tolerance=1e-3, both=_sampling),
    Check(name="LoRA at step 0", reference="the base U-Net", tolerance=0.0, both=_lora),
    Check(name="mel of the VAE", reference="AudioLDM's definition in numpy", tolerance=1e-4, both=_mel),
    Check(name="filter bank, padded", reference="Kaldi's, zeros, then normalised", tolerance=1e-5, both=_fbank),
    Check(name="log-mel of VGGish", reference="Google's mel_features in numpy", tolerance=1e-4, both=_vggish_mel),
    Check(name="Frechet distance", reference="SciPy's sqrtm formula", tolerance=1e-6, relative=True, both=_frechet),
    Check(name="kernel distance", reference="a plain double loop", tolerance=1e-10, relative=True, both=_kernel),
)
