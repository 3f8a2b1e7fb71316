"""The plain functions that the cluster runs. Everything heavy is imported in the worker, on first use."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timbre_ray.ledger import Ledger
from timbre_ray.memory import imported, release
from timbre_ray.object_storage import PATIENCE_S, ObjectStorage
from timbre_ray.remote_tier import RemoteTier
from timbre_ray.shared_disk import SharedDisk
from timbre_ray.specs import TrialSpec
from timbre_ray.store import ArtifactNotFoundError, DamagedArtifactError, Store

Score = Callable[[Any], Any]
"""ScoreRequest -> Pending."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """Where a function runs: what a worker process needs to know of the run's settings."""

    store_root: Path
    """Absolute, on a disk that every node sees; with ``remote_url`` a cache on each node's own, where ``~`` is its user's."""
    device: str
    """``cpu``, ``cuda`` or ``auto``."""
    threads: int
    """Torch threads of a process."""
    disks: tuple[SharedDisk, ...] = ()
    """What a node must see before it writes a result; empty on one machine."""
    remote_url: str | None = None
    """Where results are kept, if not in ``store_root``."""
    patience_s: float = PATIENCE_S
    """For how long failing storage is waited for."""
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What the process takes of its node: another that has as much could do its work."""
    driver_node: str = ""
    """Ray's id of the driver's node; empty on one machine."""

    def store(self) -> Store:
        """Raises DiskNotSharedError on a node that joined without the shared disk: its results would be lost with it."""
        for disk in self.disks:
            disk.check(patience_s=self.patience_s)
        remote = RemoteTier(ObjectStorage(self.remote_url, patience_s=self.patience_s)) if self.remote_url else None
        return Store(self.store_root, remote, patience_s=self.patience_s)

    def ledger(self, folder: Path) -> Ledger:
        """folder: the driver's. Behind a URL a node where it cannot be made keeps its copy of the records in its cache."""
        if self.remote_url:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                folder = self.store_root.expanduser() / "results" / folder.name
        return Ledger.of(folder, self.remote_url, patience_s=self.patience_s)


def run_trial(
    spec: TrialSpec, *, worker: Worker, store: Store, score: Score, on_progress: Callable[[Any], None],
    companions: Sequence[TrialSpec] = (),
) -> Iterator[Any]:  # fmt: skip
    trial = imported("timbre_ray.trial")
    device = _prepare_torch(worker)
    if device == "cuda":
        check_gpu()
    try:
        yield from trial.run_trial(
            spec, store=store, score=score, device=device, on_progress=on_progress, companions=companions
        )
    finally:
        release()  # the process goes on to another trial


class NoGpuError(RuntimeError):
    """A trial that computes on a GPU has a node where torch finds none."""


def check_gpu() -> None:
    """Raises NoGpuError naming this node and the remedy: on the CPU a trial would take days for hours, and nobody be told."""
    import torch

    if not torch.cuda.is_available():
        raise NoGpuError(
            f"node {socket.gethostname()}: the trial computes on a GPU (run.resources.train.gpu, run.device), but torch "
            f"{torch.__version__} finds none there. Check `nvidia-smi` and the environment on that node, or set run.device: cpu"
        )


def device_of_a_trial(wanted: str, train: Mapping[str, float]) -> str:
    """wanted: ``run.device``; ``auto`` means the GPU that the trial was given, and none outside Ray's accounting."""
    if wanted != "auto":
        return wanted
    return "cuda" if train.get("gpu") else "cpu"


def score_clips(request: Any, *, worker: Worker, store: Store) -> dict[str, Any]:
    scorer = imported("timbre_ray.evaluate.scorer")
    _prepare_torch(worker)
    return scorer.score_clips(request, store)


def prepare_scoring(worker: Worker) -> None:
    """What the first score would wait for otherwise, as far as no request is needed for it."""
    imported("timbre_ray.evaluate.scorer")
    _prepare_torch(worker)


def baseline(spec: TrialSpec, *, worker: Worker, store: Store) -> dict[str, Any]:
    """The real-versus-real row of a target: what no model can be expected to beat."""
    scorer = imported("timbre_ray.evaluate.scorer")
    device = _prepare_torch(worker)
    try:
        return scorer.score_floor(spec, store)
    except (ArtifactNotFoundError, DamagedArtifactError):
        # Where the recordings are not encoded already, and then alone: it takes seconds.
        imported("timbre_ray.stages").TrialStages(spec, store, device).encode()
        return scorer.score_floor(spec, store)


def _prepare_torch(worker: Worker) -> str:
    """Sets the threads of this process and resolves the device; both are cheap to repeat in a reused process."""
    import torch

    torch.set_num_threads(worker.threads)
    if worker.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return worker.device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Functions:
    """One bundle for the driver to send out; tests put stubs without torch here."""

    trial: Callable[..., Iterator[Any]] = run_trial
    score: Callable[..., dict[str, Any]] = score_clips
    baseline: Callable[..., dict[str, Any]] = baseline
    prepare_scoring: Callable[[Worker], None] = prepare_scoring
