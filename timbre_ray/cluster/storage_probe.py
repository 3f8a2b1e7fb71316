"""Before trials start: every living node reads what the driver wrote and writes what the driver can read."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from timbre_ray.shared_disk import DiskNotSharedError, SharedDisk

#: A node whose network disk hangs does not answer at all.
ANSWER_TIMEOUT_S = 300
#: For so long a node that could not be asked may turn out to be one that has left, which Ray learns from missed health checks.
LEAVES_WITHIN_S, LOOK_S = 45.0, 0.5
NOT_ASKED = "is up, and could not be asked"

Probe = Callable[[Sequence[SharedDisk], str], str | None]
"""(disks, name of the file to write) -> what is wrong on the node it runs on, or None."""


def probe_node(disks: Sequence[SharedDisk], name: str) -> str | None:
    """Runs on the node."""
    try:
        for disk in disks:
            disk.check()
            try:
                (disk.folder / name).write_text(disk.id, encoding="utf-8")
            except OSError as error:
                raise disk.not_shared(f"cannot write there ({error.strerror})") from None
    except DiskNotSharedError as error:
        return str(error)
    return None


def check_every_node(disks: Sequence[SharedDisk], *, probe: Probe = probe_node) -> int:
    """Raises DiskNotSharedError that lists every living node on which something is wrong; returns how many nodes were asked."""
    nodes = _living()
    nonce = uuid.uuid4().hex
    files = {node_id: f".probe-{nonce}-{node_id[:12]}" for node_id in nodes}
    try:
        answers = _of_those_left(_ask(probe, disks, files))
        problems = [_problem(nodes[node_id], answer, disks, files[node_id]) for node_id, answer in answers.items()]
    finally:
        for disk in disks:
            for name in files.values():
                (disk.folder / name).unlink(missing_ok=True)
    if problems := [problem for problem in problems if problem]:
        raise DiskNotSharedError("\n".join(problems))
    return len(answers)


def probe_locks(disks: Sequence[SharedDisk], name: str) -> str | None:
    """Runs on the node, while the driver holds these locks."""
    had = []
    for disk in disks:
        with contextlib.suppress(Timeout), FileLock(disk.folder / name).acquire(timeout=0):
            had.append(f"{disk.key}={str(disk.folder)!r}")
    return f"has a lock in {' and '.join(had)} that the driver holds" if had else None


def check_locks(disks: Sequence[SharedDisk], *, probe: Probe = probe_locks) -> list[str]:
    """What to tell the user of each living node where locks do not exclude. It harms no result: artifacts are published whole."""
    nodes, name = _living(), f".probe-{uuid.uuid4().hex}.lock"
    with contextlib.ExitStack() as held:
        for disk in disks:
            held.callback((disk.folder / name).unlink, missing_ok=True)
            held.enter_context(FileLock(disk.folder / name).acquire(timeout=0))
        answers = _of_those_left(_ask(probe, disks, dict.fromkeys(nodes, name)))
    return [
        f"{_where(nodes[node_id])}: {answer}. What two nodes need at once each may compute, at double the cost; results stay "
        "right. Mount the folder with locks that hold between nodes, as NFS 4 has them"
        for node_id, answer in answers.items() if answer
    ]  # fmt: skip


def ask_node(task: ray.remote_function.RemoteFunction, node_id: str, *arguments: Any) -> ray.ObjectRef:
    """Runs it on that node, however busy it is, or nowhere."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments)


def _ask(probe: Probe, disks: Sequence[SharedDisk], files: Mapping[str, str]) -> dict[str, str | None]:
    """Node id -> its answer, in words where there was none."""
    task = ray.remote(probe)
    refs = {ask_node(task, node_id, disks, name): node_id for node_id, name in files.items()}
    ready, late = ray.wait(list(refs), num_returns=len(refs), timeout=ANSWER_TIMEOUT_S)
    answers: dict[str, str | None] = {refs[ref]: f"no answer within {ANSWER_TIMEOUT_S} s: does its disk hang?" for ref in late}
    for ref in ready:
        try:
            answers[refs[ref]] = ray.get(ref)
        except ray.exceptions.RayError as error:
            answers[refs[ref]] = f"{NOT_ASKED} ({type(error).__name__})"
    return answers


def _of_those_left(answers: Mapping[str, str | None]) -> dict[str, str | None]:
    """Without the nodes that have left meanwhile: spot nodes do at any moment, and those that could not be asked are about to."""
    deadline = time.monotonic() + LEAVES_WITHIN_S
    while True:
        living = _living()
        left = {node_id: answer for node_id, answer in answers.items() if node_id in living}
        if not any((answer or "").startswith(NOT_ASKED) for answer in left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_S)


def _problem(node: Mapping[str, Any], answer: str | None, disks: Sequence[SharedDisk], name: str) -> str | None:
    if answer is not None:
        return f"{_where(node)}: {answer}"
    unseen = [f"{disk.key}={str(disk.folder)!r}" for disk in disks if not (disk.folder / name).is_file()]
    if unseen:
        return f"{_where(node)}: what it writes to {' and '.join(unseen)} does not reach the driver; mount the same folder there"
    return None


def _living() -> dict[str, Mapping[str, Any]]:
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def _where(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']} ({node['NodeID'][:12]})"
