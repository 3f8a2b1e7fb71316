"""What a sweep under fire runs on: nodes that are lost and come back, a driver that is started again, a store on a small disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from ray.cluster_utils import Cluster

from tests.chaos.seams import AtWork, at_work
from tests.integration.ray_nodes import add_worker
from tests.survival.scene import PATIENCE_S, Scene, cluster_of, kill

#: Every process that the runner starts inherits it.
MARK = "TIMBRE_RAY_CHAOS"
NUM_NODES = 2
#: For a whole sweep of the miniature on a machine that has other work.
SWEEP_PATIENCE_S = 1200
NAME = "chaos"
"""Of the sweep."""
DISK_BYTES = 1 << 30
Found = TypeVar("Found")


class NotNowError(Exception):
    """There is nothing to strike, and the sweep waits for nobody: the fault comes later."""


class Ground:
    """The cluster. A context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Ground:
        self.cluster: Cluster = self._stack.enter_context(cluster_of(NUM_NODES))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def lose_head(self) -> None:
        """And with it the cluster; another stands in its place."""
        for name in ("gcs_server", "raylet"):
            kill(self.cluster.head_node.all_processes[name][0].process.pid)
        self._stack.close()
        self.__enter__()

    def raylets(self) -> dict[int, Any]:
        """Process -> node, of all but the head, which holds no trial."""
        return {node.all_processes["raylet"][0].process.pid: node for node in self.cluster.worker_nodes}

    def lose_node(self, raylet: int) -> None:
        """Another joins at once."""
        node = self.raylets()[raylet]
        kill(raylet)
        self.cluster.remove_node(node, allow_graceful=False)
        add_worker(self.cluster)


@dataclasses.dataclass(kw_only=True)
class Sweep:
    """One sweep under fire. Its command is given again whenever its driver is gone before all is done."""

    ground: Ground
    scene: Scene
    path: Path
    run: dict[str, Any]
    """The other settings of how it runs."""
    body: dict[str, Any]
    keys: frozenset[str]
    """``stage/key`` of all that it will publish."""
    commands: int = 0
    printed: list[str] = dataclasses.field(default_factory=list)
    """By drivers that ended by themselves."""
    flipped: list[str] = dataclasses.field(default_factory=list)
    """``stage/key`` of the artifacts that were damaged."""

    def command(self, path: Path | None = None) -> subprocess.Popen[str]:
        return self.scene.start(path or self.path, cluster=self.ground.cluster)

    def go(self) -> None:
        self.driver = self.command()
        self.commands += 1

    def ended(self) -> int | None:
        """The driver's exit code, once it has ended."""
        if self.driver.poll() is not None:
            self.printed.append(self.driver.communicate()[0])
        return self.driver.returncode

    def lose_driver(self, sent: signal.Signals = signal.SIGKILL) -> None:
        if self.driver.poll() is None:
            kill(self.driver.pid, sent)
            self.driver.communicate()

    def at_work(self, role: str | None = None) -> list[AtWork]:
        return at_work(self.scene.folder, role)

    def wait_for(self, look: Callable[[], Found]) -> Found:
        """What ``look`` finds, once it is something. Raises NotNowError if the driver ends before."""
        found: list[Found] = []

        def looked() -> bool:
            found[:] = [look()]
            return bool(found[0]) or self.driver.poll() is not None

        until(looked, timeout_s=PATIENCE_S)
        if not found[0]:
            raise NotNowError
        return found[0]

    def published(self) -> set[str]:
        root = self.scene.store / "artifacts"
        return {path.parent.relative_to(root).as_posix() for path in root.glob("*/*/artifact.json")}


def until(look: Callable[[], object], *, timeout_s: float) -> bool:
    """Whether it found something in time."""
    end = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def fill(folder: Path) -> None:
    """The small disk shrinks to what lies on it."""
    for _ in range(100):
        stat = os.statvfs(folder)
        if resized(folder, (stat.f_blocks - stat.f_bfree) * stat.f_frsize):
            return
    raise AssertionError(f"{folder}: written to faster than it can be filled")


def resized(folder: Path, num_bytes: int) -> bool:
    options = f"remount,size={max(num_bytes, 4096)}"  # 0 would be no limit
    return not subprocess.run(["mount", "-o", options, folder], capture_output=True, check=False).returncode


def strays(mark: str) -> list[str]:
    """Processes that are left of those started under this mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found
