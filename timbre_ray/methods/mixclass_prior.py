"""``mixclass-prior``: the prior audio is each target clip mixed with generated piano, under the mixture prompt."""

from timbre_ray.methods.base import Method, attach_all, load_all, save_all

METHOD = Method(name="mixclass_prior", attach=attach_all, save=save_all, load=load_all)
