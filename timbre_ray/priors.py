"""Where each method's prior audio comes from and under which prompt it is trained. No torch: keys are derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

from timbre_ray.specs import DreamboothSpec, FilledPrompts


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorSet:
    """Prior audio as an artifact of the store, and the prompt it is trained under."""

    key: str
    stage: str
    prompt: str


class PriorAudio(Protocol):
    """Where a method gets its prior audio from; each call computes or names it once, whoever asks."""

    def generated(self, prompt: str) -> tuple[str, str]:
        """Stage and key of audio that the untouched backbone generates from ``prompt``."""

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        """Stage and key of target clips, each mixed with audio generated from ``partner_prompt``."""


Prior = Callable[[PriorAudio, FilledPrompts, DreamboothSpec], PriorSet]


def class_prior(audio: PriorAudio, prompts: FilledPrompts, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.generated(prompts.partner)
    return PriorSet(stage=stage, key=key, prompt=prompts.partner)


def mixture_prior(audio: PriorAudio, prompts: FilledPrompts, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.mixed(prompts.partner, spec.mixture_gain_db)
    return PriorSet(stage=stage, key=key, prompt=prompts.mixture)


def known_mixture_prior(audio: PriorAudio, prompts: FilledPrompts, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.generated(prompts.known_mixture)
    return PriorSet(stage=stage, key=key, prompt=prompts.mixture)


#: Of the methods that have one, by name; the others train on the target's clips alone.
PRIORS: Mapping[str, Prior] = {
    "prior": class_prior,
    "mixclass_prior": mixture_prior,
    "chineseclass_prior": known_mixture_prior,
}
