"""Real Ray nodes on this machine."""

from __future__ import annotations

from ray.cluster_utils import Cluster

from timbre_ray.cluster.resources import START_TRIES


def start_nodes(num_workers: int) -> Cluster:
    """A head without processors and workers with two each; tried again where a busy machine takes longer than Ray's 30 s."""
    for left in reversed(range(START_TRIES)):
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=0, include_dashboard=False)
            for _ in range(num_workers):
                cluster.add_node(num_cpus=2)
            return cluster
        except Exception as error:  # Ray raises a bare Exception here
            cluster.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise
    raise AssertionError
