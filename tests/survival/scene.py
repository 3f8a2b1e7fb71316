"""Where a fault plays: a Ray cluster of real processes, sweeps in folders of their own, drivers as processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.integration.ray_nodes import start_nodes
from tests.integration.stub_sweeps import by_token, stub_sweep, write_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.report import tables
from timbre_ray.report.results import load
from timbre_ray.store import Store

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "OMP_NUM_THREADS": "1"}
#: Generous: a busy machine starts Ray's processes slowly.
PATIENCE_S = 240
ARMS = ("a", "b")
STEPS = (0, 10)


@contextmanager
def cluster_of(num_workers: int = 1) -> Iterator[Cluster]:
    """A head without CPUs, and workers with two, unknown to any other ``ray.init`` of this machine."""
    short = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)  # sockets need short paths
    with short as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = start_nodes(num_workers)
        try:
            yield cluster
        finally:
            cluster.shutdown()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """The folder of one fault."""

    folder: Path
    clips: Path
    """The same for all, as recordings are part of a trial's identity."""
    cluster: Cluster
    drive: tuple[str, ...] = ("tests.survival.drive",)
    """The driver's module and its first words."""
    patience_s: float = PATIENCE_S
    """For a driver."""

    def write(self, *, name: str = "stubs", arms: tuple[str, ...] = ARMS, steps: tuple[int, ...] = STEPS, **run: Any) -> Path:
        """A sweep of stub trials, of one seed."""
        return self.put(name, stub_sweep(self.clips, arms=by_token(*arms), steps=steps), **run)

    def put(self, name: str, sweep: Mapping[str, Any], **run: Any) -> Path:
        """Any sweep, with its results here."""
        places = {"storage": str(self.store), "results": str(self.folder / "results")}
        return write_sweep(self.folder / f"{name}.yaml", sweep, name=name, **{**places, **run})

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def plan_strike(self, place: str, action: str) -> None:
        (self.folder / "strikes").mkdir(exist_ok=True)
        (self.folder / "strikes" / place).write_text(action)

    def start(self, *sweeps: Path, cluster: Cluster | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *self.drive, (cluster or self.cluster).address, *map(str, sweeps)]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self, driver: subprocess.Popen[str], *, exit_code: int = 0) -> str:
        """What the driver printed."""
        try:
            printed, _ = driver.communicate(timeout=self.patience_s)
        finally:
            driver.kill()
        assert driver.returncode == exit_code, f"exit code {driver.returncode}, not {exit_code}:\n{printed}"
        return printed

    def run(self, *sweeps: Path, exit_code: int = 0) -> str:
        return self.finish(self.start(*sweeps), exit_code=exit_code)

    def reached(self, place: str, driver: subprocess.Popen[str]) -> int:
        """Waits until the strike at ``place`` was met; the process that met it."""
        path, end = self.folder / "strikes" / f"{place}.reached", time.monotonic() + PATIENCE_S
        while not path.is_file():
            if driver.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the sweep never came to {place}:\n{self._last_words(driver)}")
            time.sleep(0.1)
        return int(path.read_text())

    def began(self, arm: str, driver: subprocess.Popen[str]) -> None:
        """Waits until a trial of that arm was scored once."""
        end = time.monotonic() + PATIENCE_S
        while not any(r["arm"] == arm and r["evaluations"] for r in Ledger(self.folder / "results" / "stubs").trials()):
            if driver.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{arm} never began:\n{self._last_words(driver)}")
            time.sleep(0.1)

    def _last_words(self, driver: subprocess.Popen[str]) -> str:
        driver.kill()
        return driver.communicate()[0]

    def record(self, arm: str, name: str = "stubs") -> dict[str, Any]:
        (record,) = [r for r in Ledger(self.folder / "results" / name).trials() if r["arm"] == arm]
        return record

    def state(self, name: str = "stubs") -> dict[str, Any]:
        """Everything a sweep ends in, without what depends on the clock."""
        folder = self.folder / "results" / name
        kept = ("trial_id", "trial_key", "arm", "point", "spec", "status", "evaluations", "losses")
        trials = [{key: record[key] for key in kept} for record in Ledger(folder).trials() if not record.get("orphaned")]
        return {"trials": trials, "baselines": Ledger(folder).baselines(), "tables": tables.build_all(load(folder), None)}

    def computed(self) -> Counter[str]:
        """``stage/key`` -> how often it was computed, as the store's log says."""
        return Counter(f"{e['stage']}/{e['key']}" for e in Store(self.store).log() if e["event"] == "computed")

    def num_retries(self) -> int:
        """Attempts at trials beyond the first of each."""
        return sum(len(path.read_text()) - 1 for path in self.store.glob("calls-*"))


def mounted_disk(folder: Path, num_bytes: int) -> bool:
    """A new folder, on a small disk of its own where mounting is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", folder]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def unmount(folder: Path) -> None:
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


def flip(path: Path, position: int) -> None:
    """One bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def kill(pid: int, sent: signal.Signals = signal.SIGKILL) -> None:
    """And waits until the process is gone."""
    process = psutil.Process(pid)
    process.send_signal(sent)
    psutil.wait_procs([process], timeout=60)
