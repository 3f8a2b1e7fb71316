"""``chineseclass-prior``: what the untouched model generates as piano with flute, trained under the mixture prompt."""

from timbre_ray.methods.base import Method, PriorAudio, PriorSet, attach_all, load_all, save_all
from timbre_ray.specs import DreamboothSpec, PromptsSpec


def known_mixture_prior(audio: PriorAudio, prompts: PromptsSpec, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.generated(prompts.known_mixture)
    return PriorSet(stage=stage, key=key, prompt=prompts.mixture)


METHOD = Method(name="chineseclass_prior", prior=known_mixture_prior, attach=attach_all, save=save_all, load=load_all)
