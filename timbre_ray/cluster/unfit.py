"""A node that cannot work leaves the sweep: it fails every trial within seconds, so that it is always the one that is free, and
would be given trial after trial until all have lost their retries.

A failure is the node's own fault if something is wrong on it (``fault_here``) and nothing on another that could do its work. Ray
then drains the node, and what ran on it goes on elsewhere. Where every node fails alike, or there is no other, the error stands.

A trial that Ray has placed on a node, and whose process is still starting when the node is drained, waits for ever (Ray 2.60). So
the node leaves once all have started: meanwhile the trial that failed holds its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import random
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from timbre_ray.backbones import UnreachableWeightsError, lies_whole
from timbre_ray.cluster.autoscaling import HEAD, in_words_of_a_sweep
from timbre_ray.cluster.functions import NoGpuError, Worker, check_gpu
from timbre_ray.cluster.notice import GRACE_S, draining_nodes
from timbre_ray.cluster.resources import fits
from timbre_ray.cluster.spot import drain_own_node
from timbre_ray.cluster.storage_probe import ask_node
from timbre_ray.inputs import OtherInputsError
from timbre_ray.leaving import Leaving
from timbre_ray.object_storage import StorageError
from timbre_ray.patience import patiently
from timbre_ray.shared_disk import DiskNotSharedError
from timbre_ray.sweep import PlannedTrial

#: Of the other nodes, drawn at random: where as many as that fail too, the fault is hardly this node's.
MOST_ASKED = 8
#: A first answer imports torch, from a slow disk at times.
ANSWER_TIMEOUT_S = 120.0
#: What must find room on a node's own disk: about a trial's records.
WRITTEN_BYTES = 2**20
#: How long trials may take to start; after that the node stays for the time being.
STARTED_WITHIN_S, ASKED_EVERY_S = 60.0, 0.5
#: Ray's name for the actor of a trial.
TRIAL_CLASS = "ImplicitFunc"
_LEFT = "left the sweep"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class UnfitNodeError(ray.exceptions.RayActorError):
    """The node of this process cannot work and is drained. To Tune it is a preempted actor, which counts as no failure; its
    message is for the user: the node, what is wrong there and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a trial needs of a node beside its disks and its GPU."""

    trial: PlannedTrial
    weights: bool
    """Also that the backbone lies there already: one that fails because it cannot fetch it must have a stand-in that need not."""

    def fault_here(self, patience_s: float) -> str | None:
        spec, inputs = self.trial.spec, self.trial.inputs
        try:
            if inputs is not None:
                check = functools.partial(inputs.check, spec)
                patiently(check, place=spec.clips.path, what="read the recordings", patience_s=patience_s)
        except (OtherInputsError, StorageError) as error:
            return str(error)
        if self.weights and not lies_whole(spec.backbone):
            return (
                f"node {socket.gethostname()}: backbone.name={spec.backbone.name!r} or its AudioMAE does not lie there whole, "
                "and the hub does not bring it. Copy it to that node's hub cache (HF_HOME), or give it a way to the hub"
            )
        return None


@contextlib.contextmanager
def leaving_if_unfit(worker: Worker, trial: PlannedTrial | None = None) -> Iterator[None]:
    """An error within becomes an UnfitNodeError if it is the fault of this node alone. trial: whose recordings and weights are
    needed for what is done within."""
    try:
        yield
    except Leaving:
        raise
    except Exception as error:
        told, needs = None, None if trial is None else Needs(trial=trial, weights=isinstance(error, UnreachableWeightsError))
        with contextlib.suppress(Exception):  # a control plane that does not answer: the error itself counts
            told = leave_if_unfit(worker, needs)
        if told is None:
            raise
        raise UnfitNodeError(error_msg=told, preempted=True) from None


def leave_if_unfit(worker: Worker, needs: Needs | None = None) -> str | None:
    """Has this node drained if it cannot work and another can; returns what to tell the user if so."""
    if not worker.driver_node or fault_here(worker, needs) is None:
        return None
    own = ray.get_runtime_context().get_node_id()
    if not _has_a_stand_in(own, worker, needs):
        return None
    fault = fault_here(worker, needs, patience_s=worker.patience_s)  # again: a server that is back serves this node, too
    if fault is None or not _all_have_started(own):
        return None
    if not _has_a_stand_in(own, worker, needs):  # still: what stood in may have left for want of what this one has
        return None
    message = (
        f"node {ray.util.get_node_ip_address()} ({own[:12]}) {_LEFT}, its trials go on elsewhere: {fault}. "
        "Once mended it joins again by `ray stop` and `ray start`"
    )
    return message if drain_own_node(GRACE_S, message) is None else None


def fault_here(worker: Worker, needs: Needs | None = None, patience_s: float = 0.0) -> str | None:
    """Runs on any node: why nothing of this sweep, or not what ``needs`` says, can work there, in words with the remedy; None if
    it can.

    patience_s: for how long a disk is waited for that fails in a way that may pass.
    """
    try:
        for disk in worker.disks:
            disk.check(patience_s=patience_s)
            try:
                _write(disk.folder, patience_s)
            except OSError as error:
                if error.errno not in _FULL:  # what is one folder on all nodes is full on all of them
                    raise disk.not_shared(f"cannot write there ({error.strerror or error})") from None
        if worker.remote_url:
            root = worker.store_root.expanduser()
            root.mkdir(parents=True, exist_ok=True)
            _write(root, patience_s)
        if worker.device == "cuda":
            check_gpu()
    except (DiskNotSharedError, NoGpuError) as error:
        return str(error)
    except OSError as error:
        return (
            f"run.cache={str(worker.store_root)!r}: node {socket.gethostname()} cannot write there ({error.strerror or error}). "
            "Make room or mount it writable on that node, or name another folder"
        )
    return None if needs is None else needs.fault_here(patience_s)


def stand_ins(own: str, nodes: Mapping[str, Mapping[str, Any]], *, worker: Worker, draining: Collection[str]) -> list[str]:
    """Ids of the nodes that could do what ``worker`` does on the node ``own``: none if that one must stay, being the driver's or
    the head.

    nodes: the living ones, as ``ray.nodes`` has them, by id.
    """
    if own == worker.driver_node or HEAD in nodes[own]["Resources"]:
        return []
    others = (node_id for node_id in nodes if node_id != own and node_id not in draining)
    return [node_id for node_id in others if fits(worker.resources, in_words_of_a_sweep(nodes[node_id]["Resources"]))]


def num_starting(own: str, job: str, groups: Mapping[str, Mapping[str, Any]], actors: Mapping[str, Mapping[str, Any]]) -> int:
    """Trials of this job that have their place on the node ``own`` and no process yet.

    groups, actors: by id, as placement_group_table and Ray's table of actors have them; the id of a group ends with its job's.
    """
    placed = sum(
        group["state"] == "CREATED" and own in group["bundles_to_node_id"].values()
        for group_id, group in groups.items() if group_id.endswith(job)
    )  # fmt: skip
    alive = (actor for actor in actors.values() if actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == own)
    return max(0, placed - sum(actor["JobID"] == job and actor["ActorClassName"] == TRIAL_CLASS for actor in alive))


def departures() -> list[str]:
    """What was told of the nodes that have left this cluster: Ray keeps it as the reason of their end."""
    reasons = (str(node.get("DeathReasonMessage")) for node in ray.nodes() if not node["Alive"])
    return [reason for reason in reasons if _LEFT in reason]


def _all_have_started(own: str) -> bool:
    job, deadline = ray.get_runtime_context().get_job_id(), time.monotonic() + STARTED_WITHIN_S
    while num_starting(own, job, ray.util.placement_group_table(), ray._private.state.actors()):
        if time.monotonic() > deadline:
            return False
        time.sleep(ASKED_EVERY_S)
    return True


def _has_a_stand_in(own: str, worker: Worker, needs: Needs | None) -> bool:
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    return _one_is_fit(stand_ins(own, nodes, worker=worker, draining=draining_nodes()), worker, needs)


def _one_is_fit(node_ids: Sequence[str], worker: Worker, needs: Needs | None) -> bool:
    task, deadline = ray.remote(fault_here), time.monotonic() + ANSWER_TIMEOUT_S
    waiting = [ask_node(task, node_id, worker, needs) for node_id in random.sample(node_ids, min(len(node_ids), MOST_ASKED))]
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        with contextlib.suppress(ray.exceptions.RayError):  # gone meanwhile
            if ray.get(ready[0]) is None:
                return True
    return False


def _write(folder: Path, patience_s: float) -> None:
    def write() -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(WRITTEN_BYTES))
            file.flush()
            os.fsync(file.fileno())  # a network disk may say only now that it is full

    patiently(write, place=folder, what="write", patience_s=patience_s)
