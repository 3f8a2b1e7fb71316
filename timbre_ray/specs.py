"""Frozen specs: everything that is part of a result's identity, and nothing else. Standard library only.

Each field says its meaning, unit and source. ``sweep.py`` builds these from YAML with type checks and errors that name the key.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import string
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

MethodName = Literal["direct", "prior", "mixclass_prior", "chineseclass_prior", "lora"]
EmbedderName = Literal["vggish", "clap", "audiomae"]


#: AudioLDM2's.
TRAIN_TIMESTEPS = 1000
#: Share of them that DDIM's equal strides must reach over.
WELL_COVERED = 0.9


class _Strict:
    """Tells pydantic to refuse unknown keys; specs themselves do not import it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec(_Strict):
    name: str = "mini"
    """``mini``, a hub id (``cvssp/audioldm2-large``), or a folder in diffusers' AudioLDM2 layout."""
    revision: str | None = None
    """Hub revision, best a commit's hash: a branch may move under a result. None for the default branch."""
    audiomae: str | None = None
    """AudioMAE's weights: a folder, an original ``.pth`` or a hub id in timm's layout. None: ``audiomae/`` beside the pipeline's
    parts, or else the published encoder that AudioLDM2 was trained with."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the U-Net while it generates. All else computes in float32: VAE and vocoder would add their rounding to what
    is heard, and weights are trained unrounded (``dreambooth.mixed_precision`` is the training's own)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipsSpec(_Strict):
    path: str
    """Folder of recordings: plain (aif, aiff, flac, mp3, ogg, opus and wav directly in it are read, nothing else), or written by
    ``data prepare``; or a shipped set: ``mini:chinese_flute_v1``, ``mini:chinese_flute_v2``, ``mini:chinese_lute``."""
    held_out: str | None = None
    """Folder of recordings to score against. None: the shipped set's or prepared folder's own, else the
    last quarter of ``path``."""
    token: str = "sks"
    """The rare token that names the new timbre (Dreambooth)."""
    instrument: str = "flute"
    """The known class that the new timbre is a kind of."""
    partner: str = "piano"
    """The known instrument whose survival is measured."""
    target_class: str = "chinese flute"
    """The classifier's class for the target."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec(_Strict):
    """AudioMAE teacher forcing of GPT-2, before Dreambooth."""

    epochs: int = 0
    """Passes over the target clips; 0 leaves GPT-2 as it is (paper: 50)."""
    mode: Literal["rollout", "teacher_forced"] = "rollout"
    """Free-running rollout with gradient (the paper's authors) or true LOA as input (AudioLDM2's pretraining)."""
    lr: float = 1e-5
    """AdamW's step size, constant."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    batch_size: int = 4
    """Clips a step."""
    mixture_weight: float = 0.0
    """Weight of a second loss: the mixture prompt against the LOA of mixtures with class audio."""
    loa: Literal["last3", "last"] = "last3"
    """Blocks of AudioMAE that are averaged (AudioLDM2: last3)."""

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 0)
        _at_least("batch_size", self.batch_size, 1)
        _at_least("mixture_weight", self.mixture_weight, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        _above("lr", self.lr, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamboothSpec(_Strict):
    method: MethodName = "direct"
    """Which weights train and what preserves the prior; a sweep may write ``mixclass-prior`` for ``mixclass_prior``."""
    steps: int = 300
    """Optimizer steps."""
    lr: float = 1e-5
    """AdamW's step size, constant."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    batch_size: int = 1
    """Clips at once, and as many of prior audio where the method has any."""
    gradient_accumulation: int = 4
    """Batches of which the gradients make one optimizer step."""
    max_grad_norm: float = 1.0
    """Larger gradients are scaled down to this norm."""
    prior_weight: float = 1.0
    """Weight of the prior loss; 0 equals ``direct``."""
    num_class_clips: int = 50
    """Clips of prior audio."""
    mixture_gain_db: float = 0.0
    """Gain of the piano in mixtures (mixclass_prior); 0 is a plain sum, -inf silence."""
    lora_rank: int = 4
    """Rank of the adapters (lora; paper: 4)."""
    lora_alpha: float | None = None
    """Scale of the adapter; None: equal to the rank."""
    lora_targets: Literal["cross_attention", "attention"] = "cross_attention"
    """Attention to text only (the paper) or every attention (its authors' script)."""
    train_language_model: bool = False
    """Train GPT-2 jointly with the U-Net."""
    true_loa_probability: float = 0.25
    """With ``train_language_model``: how often the ground-truth LOA replaces the predicted one (AudioLDM2)."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of the training's forward pass; weights stay in float32."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation", "num_class_clips", "lora_rank"):
            _at_least(name, getattr(self, name), 1)
        _at_least("prior_weight", self.prior_weight, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        _above("lr", self.lr, 0)
        _above("max_grad_norm", self.max_grad_norm, 0)
        if not self.mixture_gain_db < math.inf:
            raise ValueError(f"mixture_gain_db={self.mixture_gain_db}: must be a number of dB, or -.inf for silence")
        if not 0 <= self.true_loa_probability <= 1:
            raise ValueError(f"true_loa_probability={self.true_loa_probability}: must lie in [0, 1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerSpec(_Strict):
    num_inference_steps: int = 200
    """Denoising steps (AudioLDM2: 200)."""
    scheduler: Literal["ddim", "dpmsolver++"] = "ddim"
    """DDIM is AudioLDM2's own; DPM-Solver++ follows the same path and needs far fewer steps."""
    guidance_scale: float = 3.5
    """Classifier-free guidance (AudioLDM2: 3.5); 1 is none."""
    negative_prompt: str = ""
    """What guidance leads away from; empty: from no prompt at all."""
    mel_inversion: Literal["vocoder", "griffin_lim"] = "vocoder"
    """How mel becomes sound: the pipeline's vocoder, or Griffin-Lim (the miniature's vocoder cannot hold a tone)."""
    batch_size: int = 8
    """Clips generated at once; it does not change a clip's noise."""

    def __post_init__(self) -> None:
        _at_least("num_inference_steps", self.num_inference_steps, 1)
        _at_least("batch_size", self.batch_size, 1)
        if self.num_inference_steps >= TRAIN_TIMESTEPS:
            raise ValueError(f"num_inference_steps={self.num_inference_steps}: must be below {TRAIN_TIMESTEPS}, AudioLDM2's own")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSpec(_Strict):
    at_steps: tuple[int, ...] = (0, 25, 300)
    """Dreambooth steps after which the model is scored; steps beyond ``dreambooth.steps`` are an error."""
    num_clips: int = 64
    """Clips of each prompt: the fixed n of every row."""
    seed: int = 1000
    """Seed of the initial noise: clip i is the same noise in every arm."""
    sampler: SamplerSpec = dataclasses.field(default_factory=SamplerSpec)
    """Of all that is generated, prior audio too: with another sampler ``prior`` and its like are trained on other audio."""
    fad: tuple[EmbedderName, ...] = ("vggish",)
    """Embedders of the distances; the first one's carry no suffix, the others' are ``fad_held_out/clap`` and the like."""
    classifier: str = "mini"
    """Judge of the instruments: the miniature's, or a folder written by ``timbre-ray classifier train``.
    Its digest is the identity."""

    vggish: str = "mini"
    """VGGish of the distances: the miniature's, or a ``.pth`` or ``.safetensors`` with torchvggish's
    names. Likewise by digest."""

    clap: str = "mini"
    """CLAP of the distances and similarities: the miniature's, or that of a pipeline (a folder or a hub id, such as
    ``cvssp/audioldm2-large``, which hears the first 10 s of a clip). A folder's by digest, a hub's by name."""

    def __post_init__(self) -> None:
        _at_least("num_clips", self.num_clips, 2)
        if not self.fad or len(set(self.fad)) < len(self.fad):
            raise ValueError(f"fad={list(self.fad)}: must be distinct embedders, at least one")
        if not self.at_steps or list(self.at_steps) != sorted(set(self.at_steps)) or self.at_steps[0] < 0:
            raise ValueError(f"at_steps={list(self.at_steps)}: must be distinct, ascending and not negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptsSpec(_Strict):
    """Templates over {token}, {instrument} and {partner}."""

    instance: str = "A recording of a {token} {instrument} solo."
    """The target alone: what is taught, and whose audio is compared with the recordings."""
    partner: str = "A recording of a {partner}."
    """The partner alone: of ``prior``'s class audio, and of the score of what survived."""
    mixture: str = "A recording of a {token} {instrument} with {partner}."
    """Under which ``mixclass_prior`` and ``chineseclass_prior`` train their prior audio; also of ``teacher.mixture_weight``."""
    known_mixture: str = "A recording of a {partner} with {instrument}."
    """Of ``chineseclass_prior``'s class audio: both by their known names."""
    duet: str = "A recording of a {partner} with {token} {instrument}."
    """Of the duet in which both must be heard."""

    def __post_init__(self) -> None:
        for name in _field_names(type(self)):
            _check_template(name, getattr(self, name))

    def filled(self, clips: ClipsSpec) -> FilledPrompts:
        names = {"token": clips.token, "instrument": clips.instrument, "partner": clips.partner}
        return FilledPrompts(**{f.name: getattr(self, f.name).format(**names) for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilledPrompts(PromptsSpec):
    """Prompts as the model reads them."""

    def __post_init__(self) -> None:
        """A brace is a brace here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSpec(_Strict):
    """One trial of a sweep: an arm at one point of the grid."""

    clips: ClipsSpec
    backbone: BackboneSpec = dataclasses.field(default_factory=BackboneSpec)
    prompts: PromptsSpec = dataclasses.field(default_factory=PromptsSpec)
    teacher: TeacherSpec = dataclasses.field(default_factory=TeacherSpec)
    dreambooth: DreamboothSpec = dataclasses.field(default_factory=DreamboothSpec)
    evaluate: EvaluateSpec = dataclasses.field(default_factory=EvaluateSpec)
    seed: int = 0
    """Seeds training: teacher forcing, prior audio, noise and order of clips."""

    def __post_init__(self) -> None:
        if self.evaluate.at_steps[-1] > self.dreambooth.steps:
            raise ValueError(
                f"evaluate.at_steps={list(self.evaluate.at_steps)}: the last lies beyond dreambooth.steps={self.dreambooth.steps}"
            )


def refused(spec: TrialSpec) -> Iterator[tuple[str, float, str]]:
    """Dotted key, value and why: what can be run, and no sweep should. Trials that were run so stay readable."""
    sampler, alpha = spec.evaluate.sampler, spec.dreambooth.lora_alpha
    if alpha is not None and not alpha > 0:
        yield "dreambooth.lora_alpha", alpha, "must be above 0, or the adapter does nothing"
    if sampler.guidance_scale < 1:
        yield "evaluate.sampler.guidance_scale", sampler.guidance_scale, "must be at least 1, which is none"
    steps = sampler.num_inference_steps
    stride = TRAIN_TIMESTEPS // steps
    if sampler.scheduler == "ddim" and stride * steps < WELL_COVERED * TRAIN_TIMESTEPS:
        near = f"{TRAIN_TIMESTEPS // (stride + 1)} or {min(TRAIN_TIMESTEPS // stride, TRAIN_TIMESTEPS - 1)}"
        yield "evaluate.sampler.num_inference_steps", steps, (
            f"DDIM takes every {stride}. of {TRAIN_TIMESTEPS} steps and would begin at {stride * (steps - 1) + 1}, where its "
            f"latents should not be pure noise any more; nearest: {near}"
        )


def as_dict(spec: Any) -> dict[str, Any]:
    """A spec as plain JSON data, the caller's own: what a round trip through JSON gives, without its time."""
    return {name: _plain(getattr(spec, name)) for name in _field_names(type(spec))}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: _plain(each) for key, each in value.items()}
    return json.loads(json.dumps(value))


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def digest(value: Any) -> str:
    """20 hex digits of SHA-256 over canonical JSON: sorted keys, no spaces, floats by repr."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:20]


def _check_template(name: str, template: str) -> None:
    names = ("token", "instrument", "partner")
    choices = ", ".join(f"{{{choice}}}" for choice in names)
    try:
        for _, field, _, _ in string.Formatter().parse(template):
            if field is not None and field not in names:
                raise ValueError(f"unknown {{{field}}}")
        template.format(**dict.fromkeys(names, ""))
    except (ValueError, LookupError) as error:
        raise ValueError(f"{name}={template!r}: {error}; choose {choices}; a brace itself is written twice") from None


def _at_least(name: str, value: float, bound: float) -> None:
    if not value >= bound:
        raise ValueError(f"{name}={value}: must be at least {bound}")


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise ValueError(f"{name}={value}: must be above {bound}")
