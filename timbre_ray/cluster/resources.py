"""Starting Ray quietly, and refusing a sweep that the cluster can never hold (Ray itself would wait for ever)."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.tune.execution import class_cache

from timbre_ray.cluster.autoscaling import Startable, in_words_of_a_sweep

#: Read by Ray Tune in the driver and, through the job's environment, in the workers.
QUIET_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints also at verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the record; no CSV, JSON and TensorBoard copies
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # Tune's own state is never read, and every time it would be written whole
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a trial that ASHA stopped frees what it holds before the next has its process
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the driver at once; the store and the ledger make that safe
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in the workers
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would build an environment anew for every worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

START_TRIES = 3
REACH_TIMEOUT_S = 5.0
#: No sweep has more trials at once; what asks for nothing fits without end.
MOST_SLOTS = 10_000
#: Nodes in a message.
MOST_NAMED = 8

Resources = Mapping[str, float]
NOTHING = Startable()


def cluster_address(asked: str | None) -> str | None:
    """The cluster to join: what is asked for, or what Ray's own RAY_ADDRESS names. None: a Ray of one's own on this machine, and
    never one that happens to run on it."""
    address = asked or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address or None


def check_reachable(address: str | None) -> None:
    """Raises ConnectionError where nothing answers at ``host:port``: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise ConnectionError(
            f"{address}: no Ray answers there ({error}). Is the cluster up? The address is --address, or RAY_ADDRESS in the "
            "environment; without either the sweep runs on this machine"
        ) from None


@contextlib.contextmanager
def ray_session(*, address: str | None, threads: int) -> Iterator[None]:
    """A connection to Ray: the one that is open already, the cluster at ``address``, or a new one on this machine."""
    if ray.is_initialized():
        yield
        return
    environment = QUIET_ENVIRONMENT | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
    before = dict(os.environ)
    os.environ.update(environment)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the outcome lists what failed
    try:
        _start(address, environment)
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _start(address: str | None, environment: dict[str, str]) -> None:
    """ray.init, tried again where a busy machine does not start Ray's own processes within the 30 s that Ray allows them.

    A Ray of one's own has the environment from this process. As a runtime environment it would not fit the workers that Ray
    keeps ready, and new ones would be started in their place, for more than a second.
    """
    for left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": environment} if address else None,
            )
            return
        except Exception as error:  # Ray raises a bare Exception here
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not left:
                raise RuntimeError(f"Ray did not start in {START_TRIES} tries: is this machine overloaded? ({error})") from error


@contextlib.contextmanager
def credentials_kept_back() -> Iterator[None]:
    """Tune would copy the driver's AWS keys into its trials' environment, which Ray writes to its logs: nodes have their own."""
    names = class_cache.ENV_VARS_TO_PROPAGATE
    keys = {name for name in names if name.startswith("AWS_")}
    names.difference_update(keys)
    try:
        yield
    finally:
        names.update(keys)


class InfeasibleError(ValueError):
    """The cluster does not have what ``run.resources`` asks for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a sweep fits on a cluster."""

    slots: int
    """Trials at once, beside the scorers."""
    scorers: tuple[int | None, ...]
    """The node that each had best be on, so that they take the room of as few trials as can be: its place among those that were
    given; None for one that is to be started, and where scorers take nothing."""


def check_feasible(
    *, train: Resources, score: Resources, num_scorers: int, nodes: Sequence[Resources], startable: Startable = NOTHING
) -> Layout:
    """Raises InfeasibleError naming what is missing.

    nodes: the resources of each living node, in the words of a sweep (cpu, gpu, ...).
    startable: what the autoscaler may add to them.
    """
    kinds = [*nodes, *(kind.resources for kind in startable.types)]
    for part, wanted in (("train", train), ("score", score)):
        if not any(fits(wanted, kind) for kind in kinds):
            raise InfeasibleError(_missing(part, wanted, nodes, startable))
    room, scorers = _Room(nodes, startable), []
    for number in range(num_scorers):
        place = room.place(score, beside=train)
        if place is None:
            raise InfeasibleError(
                f"run.num_scorers={num_scorers}: the cluster has room for {number} of {_words(score)}. Use fewer."
            )
        scorers.append(place if any(score.values()) and place < len(nodes) else None)
    slots = 0
    while slots < MOST_SLOTS and room.place(train) is not None:
        slots += 1
    if not slots:
        raise InfeasibleError(
            f"run.resources: after {num_scorers} scorer(s) of {_words(score)} no node has {_words(train)} left for a trial. "
            "Lower run.num_scorers or run.resources.score."
        )
    return Layout(slots=slots, scorers=tuple(scorers))


def living_nodes() -> dict[str, dict[str, float]]:
    """Ray's id of each living node, and its resources, named as in a sweep: Ray's CPU and GPU are cpu and gpu."""
    return {node["NodeID"]: in_words_of_a_sweep(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def what_is_free(train: Resources) -> str:
    """Where no trial finds a place: what one asks for, and what each node has left."""
    free: Collection[Mapping[str, float]] = ()
    with contextlib.suppress(Exception):  # a control plane that does not answer: no sweep ends for it
        free = ray._private.state.available_resources_per_node().values()
    nodes = [f"{node.get('CPU', 0):g} cpu + {node.get('GPU', 0):g} gpu" for node in free]
    most = "; ".join(nodes[:MOST_NAMED]) + ("; ..." if len(nodes) > MOST_NAMED else "")
    return (
        f"a trial asks for {_words(train)} of one node (run.resources.train), and free are: {most or 'nothing known'}. "
        "`ray status` says what the cluster waits for"
    )


def as_ray_options(resources: Resources) -> dict[str, Any]:
    """{"cpu": 1, "gpu": 0.25, "tpu_slice": 1} -> the keyword arguments of ray's ``options``."""
    custom = {name: amount for name, amount in resources.items() if name not in ("cpu", "gpu")}
    return {"num_cpus": resources.get("cpu", 0), "num_gpus": resources.get("gpu", 0), "resources": custom}


def fits(wanted: Resources, node: Resources) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in wanted.items())


def times(wanted: Resources, node: Resources) -> int:
    """How often it fits at once."""
    each = [math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0]
    return max(0, min(each, default=MOST_SLOTS))


class _Room:
    """What is free while scorers and trials are placed; a node is started where no free one has room."""

    def __init__(self, nodes: Sequence[Resources], startable: Startable) -> None:
        self._free = [dict(node) for node in nodes]
        self._left, self._counts = startable.num_nodes, [kind.count for kind in startable.types]
        self._types = startable.types

    def place(self, wanted: Resources, beside: Resources | None = None) -> int | None:
        """The node's number; those that are started follow the others. None where nothing has room.

        beside: what the node is to keep room for: the one that loses the least of it is taken, and of those the one that had the
        least.
        """

        def cost(node: Resources) -> tuple[int, int]:
            if beside is None:
                return 0, 0
            before = times(beside, node)
            return before - times(beside, _less(node, wanted)), before

        fitting = [number for number, node in enumerate(self._free) if fits(wanted, node)]
        number = min(fitting, key=lambda number: cost(self._free[number]), default=None)
        if number is None:
            number = self._start(wanted, cost)
        if number is not None:
            self._free[number] = _less(self._free[number], wanted)
        return number

    def _start(self, wanted: Resources, cost: Callable[[Resources], tuple[int, int]]) -> int | None:
        fitting = [i for i, kind in enumerate(self._types) if self._counts[i] and fits(wanted, kind.resources)]
        if not fitting or not self._left:
            return None
        kind = min(fitting, key=lambda i: cost(self._types[i].resources))
        self._left -= 1
        self._counts[kind] -= 1
        self._free.append(dict(self._types[kind].resources))
        return len(self._free) - 1


def _less(node: Resources, taken: Resources) -> dict[str, float]:
    return {**node, **{name: node.get(name, 0) - amount for name, amount in taken.items()}}


def _missing(part: str, wanted: Resources, nodes: Sequence[Resources], startable: Startable) -> str:
    types = startable.types
    kinds = [*nodes, *(kind.resources for kind in types)]
    asked = f"{len(nodes)} node(s)" + (f" and of the node types {', '.join(kind.name for kind in types)}" if types else "")
    unknown = [kind for kind in types if not kind.resources]
    hint = "".join(
        f" The autoscaler may start {kind.count} more of {kind.name}, whose resources it knows only once they are up: if one of "
        "them has it, wait until `ray status` lists them." for kind in unknown
    )  # fmt: skip
    for name, amount in wanted.items():
        most = max((kind.get(name, 0) for kind in kinds), default=0)
        if most < amount:
            return (
                f"run.resources.{part}.{name}={amount:g}: no node has that much{', or could be started with it' * bool(types)}; "
                f"the largest of {asked} has {most:g} {name}. Lower it in the sweep, or run it on a larger cluster with "
                f"--address.{hint}"
            )
    return f"run.resources.{part}: {asked}, none has {_words(wanted)} together.{hint}"


def _words(resources: Resources) -> str:
    return " + ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount) or "no resources"
