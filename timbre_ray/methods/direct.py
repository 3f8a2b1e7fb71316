"""``direct``: epsilon loss on the target's latents under the instance prompt, nothing else (paper, section 3.2)."""

from timbre_ray.methods.base import Method, attach_all, load_all, save_all

METHOD = Method(name="direct", attach=attach_all, save=save_all, load=load_all)
