"""``chineseclass-prior``: what the untouched model generates as piano with flute, trained under the mixture prompt."""

from timbre_ray.methods.base import Method, attach_all, load_all, save_all

METHOD = Method(name="chineseclass_prior", attach=attach_all, save=save_all, load=load_all)
