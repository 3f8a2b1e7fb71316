"""Starting Ray quietly, and refusing a sweep that the cluster can never hold (Ray itself would wait for ever)."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

#: Read by Ray Tune in the driver and, through the job's environment, in the workers.
QUIET_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints also at verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the record; no CSV, JSON and TensorBoard copies
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the driver at once; the store and the ledger make that safe
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in the workers
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would build an environment anew for every worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

START_TRIES = 3

Resources = Mapping[str, float]


@contextlib.contextmanager
def ray_session(*, address: str | None, threads: int) -> Iterator[None]:
    """A connection to Ray: the one that is open already, the cluster at ``address``, or a new one on this machine."""
    if ray.is_initialized():
        yield
        return
    threads_environment = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    before = dict(os.environ)
    os.environ.update(QUIET_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the outcome lists what failed
    try:
        _start(address, {**QUIET_ENVIRONMENT, **threads_environment})
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _start(address: str | None, environment: dict[str, str]) -> None:
    """ray.init, tried again where a busy machine does not start Ray's own processes within the 30 s that Ray allows them."""
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": environment},
            )
            return
        except Exception as error:  # Ray raises a bare Exception here
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise RuntimeError(f"Ray did not start in {START_TRIES} tries: is this machine overloaded? ({error})") from error


class InfeasibleError(ValueError):
    """The cluster does not have what ``run.resources`` asks for."""


def check_feasible(*, train: Resources, score: Resources, num_scorers: int, nodes: Sequence[Resources]) -> int:
    """Raises InfeasibleError naming what is missing; returns how many trials fit at once beside the scorers.

    nodes: the resources of each living node, in the words of a sweep (cpu, gpu, ...).
    """
    for part, wanted in (("train", train), ("score", score)):
        if not any(_fits(wanted, node) for node in nodes):
            raise InfeasibleError(_missing(part, wanted, nodes))
    free = [dict(node) for node in nodes]
    for number in range(num_scorers):
        if not _place(score, free):
            raise InfeasibleError(
                f"run.num_scorers={num_scorers}: the cluster has room for {number} of {_words(score)}. Use fewer."
            )
    slots = 0
    while slots < 10_000 and _place(train, free):
        slots += 1
    if not slots:
        raise InfeasibleError(
            f"run.resources: after {num_scorers} scorer(s) of {_words(score)} no node has {_words(train)} left for a trial. "
            "Lower run.num_scorers or run.resources.score."
        )
    return slots


def living_nodes() -> list[dict[str, float]]:
    """The resources of each living node, named as in a sweep: Ray's CPU and GPU are cpu and gpu."""
    names = {"CPU": "cpu", "GPU": "gpu"}
    return [{names.get(k, k): v for k, v in node["Resources"].items()} for node in ray.nodes() if node["Alive"]]


def as_ray_options(resources: Resources) -> dict[str, Any]:
    """{"cpu": 1, "gpu": 0.25, "tpu_slice": 1} -> the keyword arguments of ray's ``options``."""
    custom = {name: amount for name, amount in resources.items() if name not in ("cpu", "gpu")}
    return {"num_cpus": resources.get("cpu", 0), "num_gpus": resources.get("gpu", 0), "resources": custom}


def _fits(wanted: Resources, node: Resources) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in wanted.items())


def _place(wanted: Resources, free: list[dict[str, float]]) -> bool:
    node = next((n for n in free if _fits(wanted, n)), None)
    if node is None:
        return False
    for name, amount in wanted.items():
        node[name] = node.get(name, 0) - amount
    return True


def _missing(part: str, wanted: Resources, nodes: Sequence[Resources]) -> str:
    for name, amount in wanted.items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if most < amount:
            return (
                f"run.resources.{part}.{name}={amount:g}: no node has that much; the largest of {len(nodes)} node(s) has "
                f"{most:g} {name}. Lower it in the sweep, or run it on a larger cluster with --address."
            )
    return f"run.resources.{part}: {len(nodes)} node(s), none has {_words(wanted)} together."


def _words(resources: Resources) -> str:
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount) or "no resources"
