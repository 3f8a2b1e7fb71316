"""The stages of a trial over a frozen spec, each result a content-addressed artifact of the store, computed on first use.

Nothing here knows Ray. ``trial.py`` chains the stages to a trial.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioLDM2Pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2LMHeadModel

from timbre_ray import training
from timbre_ray.data.clips import load_target, read_clips, write_clips
from timbre_ray.data.features import mix
from timbre_ray.methods import METHODS, Method
from timbre_ray.models.backbone import Backbone, Embeddings, load_backbone
from timbre_ray.models.sampling import generate
from timbre_ray.priors import PriorSet
from timbre_ray.specs import TrialSpec
from timbre_ray.stage_keys import ScoreRequest, Stage, StageKeys
from timbre_ray.store import Artifact, Store
from timbre_ray.train.losses import Examples
from timbre_ray.train.teacher import Lesson, teach
from timbre_ray.trial_progress import Progress

#: Class audio is drawn from seeds far from the evaluation's, or the prior would be trained on what is scored.
CLASS_AUDIO_SEED = 7_000_000


class TrialStages:
    """The stages of one trial. Each method returns its artifact, computing it only if no one has."""

    def __init__(
        self, spec: TrialSpec, store: Store, device: str, on_progress: Callable[[Progress], None] | None = None, *,
        recordings: Mapping[str, list[str]] | None = None,
    ) -> None:  # fmt: skip
        """recordings: digests of what was learned, where that need not be at hand any more."""
        self.spec, self.store, self.device = spec, store, device
        self.keys = StageKeys(spec, recordings)
        self.prompts = self.keys.prompts
        self.method: Method = METHODS[spec.dreambooth.method]
        self._on_progress = on_progress or (lambda progress: None)
        store.while_waiting = lambda: self.progress("waiting for another trial", 0, 1)

    @property
    def backbone(self) -> Backbone:
        return load_backbone(self.spec.backbone, self.device)

    def progress(self, stage: str, done: int, total: int, **values: float) -> None:
        self._on_progress(Progress(stage=stage, done=done, total=total, values=values))

    def _compute(self, stage: Stage, produce: Callable[[Path], None]) -> Artifact:
        if not self.store.has(stage.name, stage.key):
            self.progress(stage.name, 0, 1)
        return self.store.get_or_compute(stage.name, stage.key, produce, description=stage.description())

    # -- audio -------------------------------------------------------------------------------------------------------

    def encode(self) -> Artifact:
        """The target's clips: windows as FLAC, VAE posterior, true LOA."""

        def produce(folder: Path) -> None:
            train_clips, held_out = load_target(self.spec.clips, self.backbone.clip_samples)
            write_clips(train_clips, folder, "train")
            write_clips(held_out, folder, "held_out")
            self._save_encoded(read_clips(folder, "train"), folder)  # what is on the disk, as mixtures will read it

        return self._compute(self.keys.encode, produce)

    def _save_encoded(self, waveform: Tensor, folder: Path, latents: Tensor | None = None) -> None:
        """latents: where the model made the clips itself, so that the prior carries no error of vocoder and VAE."""
        mean, std = self.backbone.encode_audio(waveform) if latents is None else (latents, torch.zeros_like(latents))
        loa = {f"loa_{layers}": self.backbone.loa(waveform, layers) for layers in ("last3", "last")}
        # At full size the VAE's convolutions answer in a layout of their own, which safetensors refuses.
        values = {name: value.contiguous() for name, value in {"mean": mean, "std": std, **loa}.items()}
        save_file(values, folder / "encoded.safetensors")

    def class_audio(self, prompt: str) -> Artifact:
        """Audio that the untouched backbone generates: the memory that prior preservation keeps."""
        num_clips, seed = self.spec.dreambooth.num_class_clips, CLASS_AUDIO_SEED + self.spec.seed

        def produce(folder: Path) -> None:
            waveform, latents = self._generate(self.backbone.unet, prompt, None, num_clips, seed, stage="class_audio")
            write_clips(waveform, folder)
            self._save_encoded(waveform, folder, latents)

        return self._compute(self.keys.class_audio(prompt), produce)

    def mixture_audio(self, partner_prompt: str, gain_db: float) -> Artifact:
        """A target clip plus each class clip, a plain sum at ``gain_db`` of the class clip; -inf is the target alone."""
        target, partner = self.encode(), self.class_audio(partner_prompt)

        def produce(folder: Path) -> None:
            class_clips = read_clips(partner.folder)
            target_clips = read_clips(target.folder, "train")
            waveform = mix(target_clips[mixed_targets(len(class_clips), len(target_clips))], class_clips, gain_db)
            write_clips(waveform, folder)
            self._save_encoded(waveform, folder)

        return self._compute(self.keys.mixture_audio(partner_prompt, gain_db), produce)

    # priors.PriorAudio
    def generated(self, prompt: str) -> tuple[str, str]:
        artifact = self.class_audio(prompt)
        return artifact.stage, artifact.key

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        artifact = self.mixture_audio(partner_prompt, gain_db)
        return artifact.stage, artifact.key

    # -- text --------------------------------------------------------------------------------------------------------

    def teach(self) -> Artifact | None:
        """GPT-2 after teacher forcing; None without epochs."""
        spec, stage = self.spec.teacher, self.keys.teach
        if stage is None:
            return None

        def mixtures() -> Artifact:
            return self.mixture_audio(self.prompts.partner, self.spec.dreambooth.mixture_gain_db)

        def lesson(artifact: Artifact, prompt: str) -> Lesson:
            loa = load_file(artifact.file("encoded.safetensors"))[f"loa_{spec.loa}"].to(self.device)
            return Lesson(prompt=self._embeddings(prompt, None), loa=loa)

        def produce(folder: Path) -> None:
            gpt2, target = self.backbone.copy_language_model(), self.encode()
            losses, second = [], None
            if spec.mixture_weight > 0:
                second = lesson(mixtures(), self.prompts.mixture)
            num_steps = spec.epochs * -(-len(list(target.folder.glob("train_*.flac"))) // spec.batch_size)
            for row in teach(gpt2, lesson(target, self.prompts.instance), second, spec, seed=self.spec.seed):
                losses.append(row)
                self.progress("teach", len(losses), num_steps, loss=row["loss"])
            save_file(
                {k: v.contiguous() for k, v in gpt2.transformer.state_dict().items()}, folder / "language_model.safetensors"
            )
            (folder / "losses.json").write_text(json.dumps(losses))

        # Before, so that their time is not this stage's; and GPT-2 that is taught already has no need of either.
        if not self.store.has(stage.name, stage.key):
            self.encode()
            if spec.mixture_weight > 0:
                mixtures()
        return self._compute(stage, produce)

    def language_model(self, source: Artifact | None) -> GPT2LMHeadModel:
        """GPT-2 as ``source`` left it (a teach or dreambooth artifact), the backbone's own for None."""
        if source is None:
            return self.backbone.language_model
        gpt2 = self.backbone.copy_language_model()
        gpt2.transformer.load_state_dict(load_file(source.file("language_model.safetensors"), device=self.device))
        return gpt2.eval()

    def _embeddings(self, prompt: str, source: Artifact | None, pad_to: int | None = None) -> Embeddings:
        """A prompt as GPT-2 and T5 see it; computed once for every language model, whatever trial asks."""

        def produce(folder: Path) -> None:
            save_file(
                self.backbone.embed(prompt, self.language_model(source), pad_to).tensors(), folder / "embeddings.safetensors"
            )

        artifact = self._compute(self.keys.prompt(prompt, source.key if source else "", pad_to), produce)
        return Embeddings(**load_file(artifact.file("embeddings.safetensors"), device=self.device))

    # -- Dreambooth --------------------------------------------------------------------------------------------------

    def prior(self) -> PriorSet | None:
        return self.method.prior(self, self.prompts, self.spec.dreambooth) if self.method.prior else None

    def dreambooth_key(self, step: int) -> str:
        """Key of the weights after ``step`` steps, once what they are trained from is there."""
        self.encode(), self.teach(), self.prior()
        return self.keys.dreambooth(step).key

    def examples(self, stage: str, key: str, prompt: str) -> Examples:
        """The clips of an artifact, under the prompt as this trial's GPT-2 reads it."""
        values = load_file(self.store.get(stage, key).file("encoded.safetensors"))
        embeddings = self._embeddings(prompt, self.teach())
        return Examples(mean=values["mean"], std=values["std"], prompt=embeddings, loa=values[f"loa_{self.spec.teacher.loa}"])

    def train(self, until: int, companions: Sequence[TrialSpec] = ()) -> training.Steps:
        """``training.train`` of this trial, the companions' weights trained along."""
        others = [TrialStages(spec, self.store, self.device, self._on_progress) for spec in companions]
        return training.train(self, until, others)

    def losses(self, step: int) -> list[dict[str, float]]:
        if step == 0:
            return []
        return json.loads(self.store.get("dreambooth", self.dreambooth_key(step)).file("losses.json").read_text())

    def _weights(self, step: int) -> tuple[Artifact | None, Artifact | None]:
        """Where the U-Net's and GPT-2's weights after ``step`` steps lie; None for the backbone's own."""
        unet = self.store.get("dreambooth", self.keys.dreambooth(step).key) if step else None  # whatever else is there no more
        joint = unet is not None and self.spec.dreambooth.train_language_model
        return unet, unet if joint else self.teach()

    # -- generation --------------------------------------------------------------------------------------------------

    def trained_unet(self, step: int) -> torch.nn.Module:
        """The U-Net after ``step`` steps, from the store; the backbone's own at step 0."""
        if step == 0:
            return self.backbone.unet
        unet = self._trained_in_float32(step)
        return torch.nn.Module.to(unet, self.device, self.backbone.pipeline.unet.dtype).eval().requires_grad_(False)

    def _trained_in_float32(self, step: int) -> torch.nn.Module:
        """On the CPU: float32 has no need of the GPU, which may hold a training too."""
        unet = self.backbone.copy_unet("cpu")
        self.method.load(unet, self.spec.dreambooth, self.store.get("dreambooth", self.keys.dreambooth(step).key).folder)
        return unet.eval().requires_grad_(False)

    def pipeline(self, step: int) -> AudioLDM2Pipeline:
        """The whole model after ``step`` steps as a plain pipeline in float32: adapters merged, nothing of ours in it.

        Of a backbone in half precision, too: the stock call knows one precision for all parts, and no weight is rounded for it.
        """
        exact = load_backbone(dataclasses.replace(self.spec.backbone, dtype="float32"), self.device)
        parts = {**exact.pipeline.components, "language_model": self.language_model(self._weights(step)[1])}
        if step:
            parts["unet"] = self.method.merge(torch.nn.Module.to(self._trained_in_float32(step), self.device))
        return AudioLDM2Pipeline(**parts)

    def audio(self, step: int) -> dict[str, Artifact]:
        """Generated clips of the three prompts that are scored: solo, duet and the partner alone."""
        prompts = self.keys.scored_prompts()
        lazy_unet = Lazy(lambda: self.trained_unet(step))
        found = {}
        for name, prompt in prompts.items():
            found[name] = self.generate_prompt(step, prompt, self.spec.evaluate.num_clips, lazy_unet)
        return found

    def generate_prompt(self, step: int, prompt: str, num_clips: int, unet: Lazy) -> Artifact:
        seed = self.spec.evaluate.seed
        source = self._weights(step)[1]

        def produce(folder: Path) -> None:
            waveform, _ = self._generate(unet.value, prompt, source, num_clips, seed)
            files = write_clips(waveform, folder)
            (folder / "clips.json").write_text(json.dumps({"prompt": prompt, "seed": seed, "step": step, "files": files}))

        return self._compute(self.keys.generate(step, prompt, num_clips), produce)

    def _generate(
        self, unet: torch.nn.Module, prompt: str, source: Artifact | None, num_clips: int, seed: int, *, stage: str = "generate"
    ) -> tuple[Tensor, Tensor]:
        sampler = self.spec.evaluate.sampler
        positive = self._embeddings(prompt, source)
        negative = self._embeddings(sampler.negative_prompt, source, pad_to=positive.t5.shape[1])
        return generate(
            self.backbone, unet, positive, negative, num_clips=num_clips, seed=seed, sampler=sampler,
            on_clips=lambda num_done: self.progress(stage, num_done, num_clips),
        )  # fmt: skip

    def request(self, audio: dict[str, Artifact]) -> ScoreRequest:
        self.encode()  # what is scored against
        return self.keys.request({name: artifact.key for name, artifact in audio.items()})


def mixed_targets(num_class_clips: int, num_targets: int) -> Tensor:
    """Target clip of each class clip: each in its turn, or, where targets are more, from all recordings alike."""
    each = torch.arange(num_class_clips)
    return each % num_targets if num_targets <= num_class_clips else each * num_targets // num_class_clips


class Lazy:
    """A value computed on first use: a U-Net is loaded only if some audio is missing."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute, self._done = compute, False

    @property
    def value(self) -> Any:
        if not self._done:
            self._value, self._done = self._compute(), True
        return self._value
