"""A simulation, not a measurement: a sweep on spot GPUs that are taken away, with and without checkpoints and shared stages."""
