"""The stages of a trial, their keys and the work in them, from the trial's spec alone. No torch: a plan counts them.

``stages.py`` computes these very stages, so that there is one derivation of a key.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from timbre_ray.clip_sets import recording_digests
from timbre_ray.identity import JUDGES, VERSIONS, backbone_digest, judges_digest
from timbre_ray.priors import PRIORS, PriorSet
from timbre_ray.specs import DreamboothSpec, SamplerSpec, TrialSpec, as_dict
from timbre_ray.store import stage_key
from timbre_ray.vocabulary import num_tokens

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One result of the store: what decides it, and what its cost grows with."""

    name: str
    spec: Mapping[str, Any]
    inputs: tuple[str, ...]
    backbone: str = ""
    """Digest of the backbone that computes it; empty for a score, which follows the clips that it hears."""
    variant: str = ""
    """What changes the cost of a unit of work: the method, the embedders."""
    work: float = 1
    """Units that its time is proportional to (see the methods of StageKeys)."""
    num_clips: int = 1
    """Clips that its size is proportional to; 1 where it holds none."""

    @functools.cached_property
    def key(self) -> str:
        return stage_key(self.name, VERSIONS[self.name], self.spec, self.inputs)

    def description(self) -> dict[str, Any]:
        """For the artifact: with its seconds and bytes, what an estimate of the next one needs."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What to score: keys of generated audio by prompt, and the target's clips."""

    encode_key: str
    audio: tuple[tuple[str, str], ...]  # ("solo" | "duet" | "partner", key of a generate artifact)
    partner: str
    target_class: str
    embedders: tuple[str, ...]
    num_clips: int
    classifier: str = "mini"
    """``mini`` or an absolute folder; its digest, not its place, is part of the score's key."""
    vggish: str = "mini"
    """``mini`` or an absolute path of a file; likewise."""
    clap: str = "mini"
    """``mini``, an absolute folder or a hub id; likewise."""

    def stage(self) -> Stage:
        """Work: clips of each prompt."""
        names = (field.name for field in dataclasses.fields(self))
        identity = {name: getattr(self, name) for name in names if name not in JUDGES}
        inputs, variant = (judges_digest(self.classifier, self.vggish, self.clap),), " ".join(self.embedders)
        return Stage(name="score", spec=identity, inputs=inputs, variant=variant, work=self.num_clips)


class StageKeys:
    """The stages of one trial. As ``priors.PriorAudio`` it names prior audio without computing it."""

    def __init__(
        self, spec: TrialSpec, recordings: Mapping[str, list[str]] | None = None, common: dict[Hashable, Any] | None = None
    ) -> None:
        """recordings: digests of the target's files, where the caller has read them already.

        common: one dict for all trials of a plan: what they may share (nothing that a trial has trained) is derived once. Its
        keys hold text and whole numbers alone: 0.0 and -0.0 are equal, but not in a stage's key.
        """
        self._common = {} if common is None else common
        self.spec, self.prompts = spec, self._once(("prompts", spec.prompts, spec.clips), lambda: spec.prompts.filled(spec.clips))
        self.backbone = backbone_digest(spec.backbone)
        self._recordings, self._dreambooth = recordings, dict[int, Stage]()
        self._sampler = repr(spec.evaluate.sampler)

    def _once(self, place: Hashable, make: Callable[[], T]) -> T:
        if place not in self._common:
            self._common[place] = make()
        return self._common[place]

    @functools.cached_property
    def encode(self) -> Stage:
        """Work: recordings."""
        return self._once(("encode", self.spec.clips, self.backbone), self._encode)

    def _encode(self) -> Stage:
        digests = recording_digests(self.spec.clips) if self._recordings is None else self._recordings
        num_files = sum(len(files) for files in digests.values())
        return self._stage("encode", digests, self.backbone, work=num_files, num_clips=num_files)

    @functools.cached_property
    def teach(self) -> Stage | None:
        """GPT-2 after teacher forcing; None without epochs. Work: recordings read, counted once an epoch."""
        spec = self.spec.teacher
        if spec.epochs == 0:
            return None
        mixture = self.taught_mixture
        identity = {**as_dict(spec), "seed": self.spec.seed, "instance": self.prompts.instance, "mixture": self.prompts.mixture}
        identity |= {"mixtures": "drawn"} if mixture else {}  # all of them; before, as many as there are recordings
        num_files = len(self.encode.spec["train"])
        inputs = (self.backbone, self.encode.key, mixture.key if mixture else "")
        variant = f"{spec.mode} with mixtures" if mixture else spec.mode
        return self._stage("teach", identity, *inputs, variant=variant, work=spec.epochs * num_files)

    @functools.cached_property
    def taught_mixture(self) -> Stage | None:
        """The mixtures that teacher forcing hears beside the target, if it does."""
        if not (self.spec.teacher.epochs and self.spec.teacher.mixture_weight):
            return None
        return self.mixture_audio(self.prompts.partner, self.spec.dreambooth.mixture_gain_db)

    def prompt(self, prompt: str, source: str = "", pad_to: int | str | None = None) -> Stage:
        """source: key of the stage that taught GPT-2; empty for the backbone's own."""
        spec = {"prompt": prompt, "pad_to": pad_to}
        place = ("prompt", prompt, pad_to, self.backbone, source)
        return self._once(place, lambda: self._stage("prompt", spec, self.backbone, source))

    def class_audio(self, prompt: str) -> Stage:
        """Work: sampler steps, counted for every clip."""
        num_clips, seed = self.spec.dreambooth.num_class_clips, self.spec.seed
        make = functools.partial(self._audio, "class_audio", prompt, num_clips, seed, self.backbone)
        return self._once(("class_audio", prompt, num_clips, seed, self._sampler, self.backbone), make)

    def mixture_audio(self, partner_prompt: str, gain_db: float) -> Stage:
        """Work: clips."""
        inputs, num_clips = (self.encode.key, self.class_audio(partner_prompt).key), self.spec.dreambooth.num_class_clips
        cost = {"work": num_clips, "num_clips": num_clips}
        place = ("mixture_audio", str(gain_db), num_clips, *inputs)
        return self._once(place, lambda: self._stage("mixture_audio", {"gain_db": str(gain_db)}, *inputs, **cost))

    def generated(self, prompt: str) -> tuple[str, str]:
        stage = self.class_audio(prompt)
        return stage.name, stage.key

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        stage = self.mixture_audio(partner_prompt, gain_db)
        return stage.name, stage.key

    @functools.cached_property
    def prior(self) -> PriorSet | None:
        prior = PRIORS.get(self.spec.dreambooth.method)
        return prior(self, self.prompts, self.spec.dreambooth) if prior else None

    def dreambooth(self, step: int) -> Stage:
        """The weights after ``step`` steps; how long the run goes on afterwards is no part of the key.

        Work: clips of the target trained on since the last scored step.
        """
        if step not in self._dreambooth:
            self._dreambooth[step] = self._weights(step)
        return self._dreambooth[step]

    def _weights(self, step: int) -> Stage:
        taught, prior, settings = self.teach, self.prior, self.spec.dreambooth
        left_out = {"steps", *unread_settings(settings.method, settings.train_language_model)}
        spec = {k: v for k, v in as_dict(settings).items() if k not in left_out}
        if settings.train_language_model:
            spec["loa"] = self.spec.teacher.loa  # the ground truth that GPT-2 is now and then replaced by
        spec |= {
            "step": step, "seed": self.spec.seed, "instance": self.prompts.instance, "prior": prior.prompt if prior else None,
        }  # fmt: skip
        inputs = (self.backbone, self.encode.key, taught.key if taught else "", prior.key if prior else "")
        before = max((s for s in self.spec.evaluate.at_steps if s < step), default=0)
        return self._stage("dreambooth", spec, *inputs, variant=_variant(settings), work=self.clips_trained(step - before))

    def clips_trained(self, num_steps: int) -> int:
        return num_steps * self.spec.dreambooth.batch_size * self.spec.dreambooth.gradient_accumulation

    def language_model(self, step: int) -> str:
        """Key of the stage that left GPT-2 as it is after ``step`` steps; empty for the backbone's own."""
        if step and self.spec.dreambooth.train_language_model:
            return self.dreambooth(step).key
        return self.teach.key if self.teach else ""

    def model(self, step: int) -> list[Stage]:
        """The stages that hold what was trained until ``step``; none where it is the backbone's own weights alone."""
        joint = step and self.spec.dreambooth.train_language_model
        trained = [self.dreambooth(step)] if step else []
        return trained if self.teach is None or joint else [*trained, self.teach]

    def generate(self, step: int, prompt: str, num_clips: int) -> Stage:
        """Work: sampler steps, counted for every clip."""
        seed = self.spec.evaluate.seed
        inputs = (self.backbone, self.dreambooth(step).key if step else "", self.language_model(step))
        make = functools.partial(self._audio, "generate", prompt, num_clips, seed, *inputs)
        return make() if step else self._once(("generate", prompt, num_clips, seed, self._sampler, *inputs), make)

    def scored_prompts(self) -> dict[str, str]:
        return {"solo": self.prompts.instance, "duet": self.prompts.duet, "partner": self.prompts.partner}

    def request(self, audio: Mapping[str, str]) -> ScoreRequest:
        """audio: prompt's name -> key of its generate artifact."""
        evaluate, clips = self.spec.evaluate, self.spec.clips
        return ScoreRequest(
            encode_key=self.encode.key, audio=tuple(audio.items()), partner=clips.partner, target_class=clips.target_class,
            embedders=evaluate.fad, num_clips=evaluate.num_clips, classifier=evaluate.classifier,
            vggish=evaluate.vggish, clap=evaluate.clap,
        )  # fmt: skip

    def all(self) -> list[Stage]:
        """Every stage that the trial needs if the store is empty, each once."""
        audio = self._prior_audio()
        found = [self.encode, *audio, *([self.teach] if self.teach else [])]
        found += [self.dreambooth(step) for step in self.spec.evaluate.at_steps if step]
        for step in self.spec.evaluate.at_steps:
            clips = self.spec.evaluate.num_clips
            generated = {name: self.generate(step, prompt, clips) for name, prompt in self.scored_prompts().items()}
            found += [*generated.values(), self._score(step, {name: stage.key for name, stage in generated.items()})]
        found += self._prompts(audio)
        return list({(stage.name, stage.key): stage for stage in found}.values())

    def _score(self, step: int, audio: Mapping[str, str]) -> Stage:
        request = self.request(audio)
        if step:
            return self._scored(request)
        return self._once(("score", request, self.backbone), lambda: self._scored(request))

    def _scored(self, request: ScoreRequest) -> Stage:
        return dataclasses.replace(request.stage(), backbone=self.backbone)

    def _prior_audio(self) -> list[Stage]:
        """Class audio and mixtures, of the prior and of the second lesson of teacher forcing."""
        asked = _Asked(self)
        if prior := PRIORS.get(self.spec.dreambooth.method):
            prior(asked, self.prompts, self.spec.dreambooth)
        if self.taught_mixture:
            asked.mixed(self.prompts.partner, self.spec.dreambooth.mixture_gain_db)
        return asked.stages

    def _prompts(self, audio: list[Stage]) -> list[Stage]:
        found = []
        taught, prior = self.language_model(0), self.prior
        if taught:
            found += [self.prompt(self.prompts.instance)]
            found += [self.prompt(self.prompts.mixture)] if self.taught_mixture else []
        for stage in audio:
            if stage.name == "class_audio":
                found += self._sampling_prompts(stage.spec["prompt"], "")
        if self.spec.evaluate.at_steps[-1]:
            found += [self.prompt(self.prompts.instance, taught)]
            found += [self.prompt(prior.prompt, taught)] if prior else []
        for step in self.spec.evaluate.at_steps:
            for prompt in self.scored_prompts().values():
                found += self._sampling_prompts(prompt, self.language_model(step))
        return found

    def _sampling_prompts(self, prompt: str, source: str) -> list[Stage]:
        """A prompt and the negative one, which is padded to its length in tokens."""
        backbone = self.spec.backbone
        length = self._once(("tokens", backbone, prompt), lambda: num_tokens(backbone, prompt))
        pad_to = f"tokens of {prompt}" if length is None else length  # its own key, and never one of the store's
        return [self.prompt(prompt, source), self.prompt(self.spec.evaluate.sampler.negative_prompt, source, pad_to)]

    def _audio(self, name: str, prompt: str, num_clips: int, seed: int, *inputs: str) -> Stage:
        sampler = self.spec.evaluate.sampler
        identity = self._once(("sampler", self._sampler), lambda: _identity(sampler))
        spec = {"prompt": prompt, "num_clips": num_clips, "seed": seed, "sampler": identity}
        work = num_clips * sampler.num_inference_steps
        return self._stage(name, spec, *inputs, variant=sampler.mel_inversion, work=work, num_clips=num_clips)

    def _stage(self, name: str, spec: Mapping[str, Any], *inputs: str, **cost: Any) -> Stage:
        return Stage(name=name, spec=spec, inputs=inputs, backbone=self.backbone, **cost)


class _Asked:
    """A ``priors.PriorAudio`` that keeps what a method asks of it."""

    def __init__(self, keys: StageKeys) -> None:
        self._keys = keys
        self.stages: list[Stage] = []

    def generated(self, prompt: str) -> tuple[str, str]:
        self.stages.append(self._keys.class_audio(prompt))
        return self._keys.generated(prompt)

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        self.stages += [self._keys.class_audio(partner_prompt), self._keys.mixture_audio(partner_prompt, gain_db)]
        return self._keys.mixed(partner_prompt, gain_db)


def _variant(spec: DreamboothSpec) -> str:
    words = [spec.method] + ([f"rank {spec.lora_rank} on {spec.lora_targets}"] if spec.method == "lora" else [])
    words += ["with GPT-2"] if spec.train_language_model else []
    return " ".join(words + ([spec.mixed_precision] if spec.mixed_precision != "no" else []))


def _identity(sampler: SamplerSpec) -> dict[str, Any]:
    return {k: v for k, v in as_dict(sampler).items() if k != "batch_size"}


def unread_settings(method: str, train_language_model: bool, teacher_hears_mixtures: bool = False) -> frozenset[str]:
    """Of ``dreambooth``, what neither this method reads nor, with mixtures, its teacher: two arms that differ only in that share
    their weights. (A key of weights names mixtures by its teacher's key.)"""
    names: list[str] = [] if method == "lora" else ["lora_rank", "lora_alpha", "lora_targets"]
    names += [] if method in PRIORS else ["prior_weight"]
    names += [] if method in PRIORS or teacher_hears_mixtures else ["num_class_clips"]
    names += [] if method == "mixclass_prior" or teacher_hears_mixtures else ["mixture_gain_db"]
    names += [] if train_language_model else ["true_loa_probability"]
    return frozenset(names)
