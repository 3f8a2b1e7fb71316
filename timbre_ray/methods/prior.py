"""``prior``: plus the loss on audio that the untouched model generates from the class prompt (Ruiz et al. 2023)."""

from timbre_ray.methods.base import Method, attach_all, load_all, save_all

METHOD = Method(name="prior", attach=attach_all, save=save_all, load=load_all)
