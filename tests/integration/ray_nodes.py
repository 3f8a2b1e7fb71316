"""Real Ray nodes on this machine, tried again where a busy one takes longer to start them than Ray's 30 s."""

from __future__ import annotations

from typing import Any

from ray.cluster_utils import Cluster

from timbre_ray.cluster.resources import START_TRIES


def start_nodes(num_workers: int) -> Cluster:
    """A head without processors and workers with two each."""
    for left in reversed(range(START_TRIES)):
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=0, include_dashboard=False)
            for _ in range(num_workers):
                cluster.add_node(num_cpus=2)
            return cluster
        except Exception as error:  # Ray raises a bare Exception here
            cluster.shutdown()
            if not left or not _was_slow(error):
                raise
    raise AssertionError


def add_worker(cluster: Cluster, **node: Any) -> None:
    """One more joins, with what ``Cluster.add_node`` takes; who needs it waits for it."""
    for left in reversed(range(START_TRIES)):
        try:
            cluster.add_node(num_cpus=2, wait=False, **node)
            return
        except Exception as error:
            if not left or not _was_slow(error):
                raise


def _was_slow(error: Exception) -> bool:
    return "timed out during startup" in str(error)
