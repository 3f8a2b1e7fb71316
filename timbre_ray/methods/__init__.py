"""The Dreambooth variants: one file each, one line in this table; with prior audio, one in ``priors.PRIORS`` too."""

from timbre_ray.methods import chineseclass_prior, direct, lora, mixclass_prior, prior
from timbre_ray.methods.base import Method

METHODS: dict[str, Method] = {
    "direct": direct.METHOD,
    "prior": prior.METHOD,
    "mixclass_prior": mixclass_prior.METHOD,
    "chineseclass_prior": chineseclass_prior.METHOD,
    "lora": lora.METHOD,
}

__all__ = ["METHODS", "Method"]
