"""How large a backbone is, and what memory and files follow from that. Reads headers of weights at most; no torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import safe_open

from timbre_ray.backbones import PUBLISHED_AUDIOMAE, at_hand, pipeline_at_hand
from timbre_ray.priors import PRIORS
from timbre_ray.specs import BackboneSpec, DreamboothSpec, TrialSpec

FLOAT32 = 4  # bytes
#: Of AdamW: two moments.
ADAMW_STATES = 2
#: The optimizer's and the CUDA graph's own (models/cuda_graphs.py).
GRADIENTS = 2
#: What a training step keeps for its backward pass, as shares of the U-Net's weights in float32: of any batch, and of
#: each clip of 10.24 s. In float32 it is counted over the tensors that autograd saves (1.20 at the base shape, 1.51 at
#: the large one). Under autocast the weights' casts are kept too; read off the large shape on an H100 (reports/speed,
#: "Every method"), rounded up.
ACTIVATIONS = {"no": (0.0, 1.5), "bf16": (0.6, 0.25), "fp16": (0.6, 0.25)}
#: What sampling and decoding hold for each clip of a batch, in the same unit: read off the same row for four clips, then all
#: in bfloat16 and decoded at once (3.1 GB beyond the weights); twice that is taken for float32. Since then a clip is decoded
#: alone, in float32, which the least of a batch allows for.
SAMPLING = {"float32": 0.54, "bfloat16": 0.27, "float16": 0.27}
AUDIOMAE_PARAMETERS = 86_000_000  # ViT-B/16
PUBLISHED_FRAMES, FRAMES_PER_S = 1024, 100
SAMPLES_PER_S, BYTES_PER_SAMPLE = 16_000, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSize:
    """An AudioLDM2's parameters and length of clips."""

    unet: int
    language_model: int
    total: int
    """Of the whole pipeline."""
    clip_s: float
    lora: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """``dreambooth.lora_targets`` -> parameters of an adapter of rank 1; without an entry it is not known."""
    source: str
    """Where these numbers come from, in words."""

    def trained(self, spec: DreamboothSpec) -> int | None:
        """Parameters that Dreambooth trains and saves; None where the adapter's size is not known."""
        joint = self.language_model if spec.train_language_model else 0
        if spec.method != "lora":
            return self.unet + joint
        per_rank = self.lora.get(spec.lora_targets)
        return None if per_rank is None else per_rank * spec.lora_rank + joint


def _published(unet: int, total: int, lora: dict[str, int]) -> ModelSize:
    clip_s = PUBLISHED_FRAMES / FRAMES_PER_S
    return ModelSize(
        unet=unet, language_model=124_439_808, total=total, clip_s=clip_s, lora=MappingProxyType(lora),
        source=f"the published model's {unet / 1e6:.0f} M parameters of the U-Net, {total / 1e9:.1f} G in all",
    )  # fmt: skip


_BASE = _published(346_943_496, 1_100_000_000, {"cross_attention": 141_824, "attention": 367_104})
#: Counted over the published configurations, but for the totals, which are those of the models' card.
PUBLISHED_SIZES: Mapping[str, ModelSize] = {
    "cvssp/audioldm2": _BASE,
    "cvssp/audioldm2-music": _BASE,
    "cvssp/audioldm2-large": _published(718_012_296, 1_500_000_000, {"cross_attention": 283_648, "attention": 959_488}),
}


@functools.lru_cache(maxsize=8)
def model_size(spec: BackboneSpec) -> ModelSize | None:
    """From the weights' own headers where they are at hand, else the published numbers, else None."""
    folder, published = pipeline_at_hand(spec), PUBLISHED_SIZES.get(spec.name)
    if folder is None:
        return published
    counts = {part.name: _num_parameters(part) for part in sorted(folder.iterdir()) if part.is_dir() and part.name != "audiomae"}
    if not (counts.get("unet") and counts.get("language_model")):
        return published
    return ModelSize(
        unet=counts["unet"], language_model=counts["language_model"], total=sum(counts.values()), clip_s=clip_seconds(spec),
        lora=published.lora if published else {}, source=f"the {counts['unet'] / 1e6:.1f} M parameters of the U-Net's own files",
    )  # fmt: skip


def clip_seconds(spec: BackboneSpec) -> float:
    """Length of a clip: as much as AudioMAE reads; the published one's where its settings are not at hand."""
    folder = at_hand(spec.audiomae or PUBLISHED_AUDIOMAE, None, "config.json")
    if spec.audiomae is None and (pipeline := pipeline_at_hand(spec)) and (pipeline / "audiomae").is_dir():
        folder = pipeline / "audiomae"
    config = folder / "config.json" if folder else None
    settings = json.loads(config.read_text(encoding="utf-8")) if config and config.is_file() else {}
    return settings.get("num_frames", PUBLISHED_FRAMES) / FRAMES_PER_S


def training_memory(spec: TrialSpec, size: ModelSize, *, num_arms: int = 1) -> int | None:
    """Bytes on the device that one trial needs at its peak, roughly; None where the adapter's size is not known.

    num_arms: that it trains at once (``run.train_together``).

    Either the whole pipeline before training; or the copy of the U-Net that trains with its gradients, AdamW's states and the
    activations of a batch, which its CUDA graph keeps, and beside it the U-Net that plays what is scored meanwhile and what a
    batch of clips takes there.
    """
    trained = size.trained(spec.dreambooth)
    if trained is None:
        return None
    generates = FLOAT32 if spec.backbone.dtype == "float32" else FLOAT32 // 2
    whole = FLOAT32 * (size.total - size.unet + AUDIOMAE_PARAMETERS) + generates * size.unet
    of_any, of_each = ACTIVATIONS[spec.dreambooth.mixed_precision]
    with_prior = spec.dreambooth.method in PRIORS and spec.dreambooth.prior_weight != 0  # both go through the U-Net together
    activations = size.unet * (of_any + of_each * num_arms * spec.dreambooth.batch_size * (2 if with_prior else 1))
    num_clips = min(spec.evaluate.sampler.batch_size, spec.evaluate.num_clips)
    sampling = FLOAT32 * size.unet * max(SAMPLING[spec.backbone.dtype] * num_clips, SAMPLING["float32"])
    training = FLOAT32 * (size.unet + num_arms * trained * (GRADIENTS + ADAMW_STATES) + activations)
    return math.ceil(max(whole, training + generates * size.unet) + sampling)


def checkpoint_bytes(spec: DreamboothSpec, size: ModelSize) -> int | None:
    """Of one training under way: weights and AdamW's states, twice, as a new checkpoint is written beside the old one."""
    trained = size.trained(spec)
    return None if trained is None else 2 * FLOAT32 * trained * (1 + ADAMW_STATES)


def artifact_bytes(stage: str, num_clips: int, spec: DreamboothSpec, size: ModelSize) -> int | None:
    """Size of a stage's result from the model's size; audio as if FLAC saved nothing, prompts and scores as nothing."""
    audio = math.ceil(num_clips * size.clip_s * SAMPLES_PER_S * BYTES_PER_SAMPLE)
    match stage:
        case "dreambooth":
            trained = size.trained(spec)
            return None if trained is None else FLOAT32 * trained
        case "teach":
            return FLOAT32 * size.language_model
        case "generate":
            return audio
        case "encode" | "class_audio" | "mixture_audio":
            return audio + num_clips * _encoded_bytes(size.clip_s)
        case _:
            return 0


def _encoded_bytes(clip_s: float) -> int:
    """Posterior mean and std of 8 channels, a quarter of the frames and of 64 mel bands; two true LOA of 8 tokens of 768."""
    latents = 8 * math.ceil(clip_s * FRAMES_PER_S / 4) * 16
    return FLOAT32 * 2 * (latents + 8 * 768)


@functools.lru_cache(maxsize=64)
def _num_parameters(folder: Path) -> int:
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 (no mapping)
    return total
