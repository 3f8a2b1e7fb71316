"""``mixclass-prior``: the prior audio is each target clip mixed with generated piano, under the mixture prompt."""

from timbre_ray.methods.base import Method, PriorAudio, PriorSet, attach_all, load_all, save_all
from timbre_ray.specs import DreamboothSpec, PromptsSpec


def mixture_prior(audio: PriorAudio, prompts: PromptsSpec, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.mixed(prompts.partner, spec.mixture_gain_db)
    return PriorSet(stage=stage, key=key, prompt=prompts.mixture)


METHOD = Method(name="mixclass_prior", prior=mixture_prior, attach=attach_all, save=save_all, load=load_all)
