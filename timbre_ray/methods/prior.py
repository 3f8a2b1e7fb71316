"""``prior``: plus the loss on audio that the untouched model generates from the class prompt (Ruiz et al. 2023)."""

from timbre_ray.methods.base import Method, PriorAudio, PriorSet, attach_all, load_all, save_all
from timbre_ray.specs import DreamboothSpec, PromptsSpec


def class_prior(audio: PriorAudio, prompts: PromptsSpec, spec: DreamboothSpec) -> PriorSet:
    stage, key = audio.generated(prompts.partner)
    return PriorSet(stage=stage, key=key, prompt=prompts.partner)


METHOD = Method(name="prior", prior=class_prior, attach=attach_all, save=save_all, load=load_all)
