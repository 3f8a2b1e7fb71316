"""A real Ray node from which the shared disk has gone: what it was given goes on elsewhere, and it is given nothing more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import stub_functions
from ray import cloudpickle
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray_nodes import add_worker, start_nodes
from rich.console import Console
from stub_sweeps import by_token, stub_sweep, write_clips, write_sweep

from timbre_ray.cluster import run
from timbre_ray.cluster.functions import Worker
from timbre_ray.cluster.notice import draining_nodes
from timbre_ray.cluster.resources import ray_session
from timbre_ray.cluster.scoring import Scorer
from timbre_ray.ledger import Ledger
from timbre_ray.shared_disk import SharedDisk
from timbre_ray.sweep import load_sweep

#: Read by every Python process of a node that has its folder in PYTHONPATH. The folder itself is there, on this one machine.
WITHOUT_DISK = """
import dataclasses
import pathlib
import timbre_ray.shared_disk

class Unmounted(type(pathlib.Path())):
    def read_text(self, *arguments, **named):
        raise FileNotFoundError(2, "No such file or directory", str(self))

read = timbre_ray.shared_disk.SharedDisk.check

def check(self, **named):
    read(dataclasses.replace(self, folder=Unmounted(self.folder)), **named)

timbre_ray.shared_disk.SharedDisk.check = check
"""
#: What only the good node has: where the scorers of a sweep go.
GOOD = "good"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, and a worker with two that can work."""
    cluster = start_nodes(num_workers=0)
    try:
        add_worker(cluster, resources={GOOD: 10})
        cluster.wait_for_nodes()
        with ray_session(address=cluster.address, threads=1):
            for module in (stub_functions, sys.modules[__name__]):  # the workers cannot import the tests
                cloudpickle.register_pickle_by_value(module)
            yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def add_unfit(cluster: Cluster, tmp_path: Path) -> Callable[..., str]:
    """A node joins that does not see the shared disk; returns Ray's id of it."""

    def add(**resources: int) -> str:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_DISK)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        before = {node["NodeID"] for node in ray.nodes()}
        add_worker(cluster, env_vars={"PYTHONPATH": path}, resources=resources)
        end = time.monotonic() + 60
        while not (joined := {node["NodeID"] for node in ray.nodes()} - before):  # wait_for_nodes would wait for those that left
            assert time.monotonic() < end, "the node never joined"
            time.sleep(0.1)
        return joined.pop()

    return add


def has_left(node_id: str) -> bool:
    (node,) = (node for node in ray.nodes() if node["NodeID"] == node_id)
    return not node["Alive"] or node_id in draining_nodes()


def run_stubs(cluster: Cluster, folder: Path, train: dict[str, int], *names: str) -> tuple[run.Outcome, str]:
    """Outcome and what was printed, of a sweep without retries."""
    path = write_sweep(
        folder / "sweep.yaml", stub_sweep(write_clips(folder / "flute"), arms=by_token(*names)),
        resources={"train": train, "score": {"cpu": 0, GOOD: 1}}, storage=str(folder / "store"), results=str(folder / "results"),
        max_failures=0,
    )  # fmt: skip
    console = Console(file=io.StringIO())
    outcome = run.run_sweep(load_sweep(path), address=cluster.address, functions=stub_functions.STUBS, console=console)
    return outcome, console.file.getvalue()


@pytest.fixture(autouse=True)
def was_mounted_when_the_run_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "check_every_node", lambda disks: 3)


def test_its_trials_go_on_elsewhere_and_the_user_is_told(cluster: Cluster, add_unfit: Callable[..., str], tmp_path: Path) -> None:
    unfit = add_unfit()
    outcome, printed = run_stubs(cluster, tmp_path, {"cpu": 1}, "a", "b", "c", "d")
    assert outcome.exit_code == 0 and len(outcome.finished) == 4, printed
    assert [record["status"] for record in Ledger(outcome.results).trials()] == ["finished"] * 4
    (told,) = [line for line in printed.splitlines() if "left the sweep" in line]
    assert told.startswith(f"node {ray.util.get_node_ip_address()} ({unfit[:12]}) left") and "run.storage=" in told, told
    assert "mount it on that node" in told
    assert has_left(unfit)


def test_one_that_no_other_can_stand_in_for_stays_and_the_trial_says_why(
    cluster: Cluster, add_unfit: Callable[..., str], tmp_path: Path
) -> None:
    unfit = add_unfit(rare=1)
    outcome, printed = run_stubs(cluster, tmp_path, {"cpu": 1, "rare": 1}, "a")
    (reason,) = outcome.failed.values()
    assert reason.startswith("DiskNotSharedError") and "mount it on that node" in reason
    assert "left the sweep" not in printed and not has_left(unfit)


def test_a_scorer_goes_on_elsewhere(cluster: Cluster, add_unfit: Callable[..., str], tmp_path: Path) -> None:
    unfit, disk = add_unfit(), SharedDisk.of("run.storage", tmp_path / "store")
    worker = Worker(
        store_root=disk.folder, device="cpu", threads=1, disks=(disk,), resources={"cpu": 1},
        driver_node=ray.get_runtime_context().get_node_id(),
    )  # fmt: skip
    actor = ray.remote(Scorer).options(
        num_cpus=1, max_restarts=-1, max_task_retries=3, scheduling_strategy=NodeAffinitySchedulingStrategy(unfit, soft=True)
    )

    def score(request, *, worker, store):
        return {"node": ray.get_runtime_context().get_node_id()}

    scorer = actor.remote(worker=worker, score=score, watchdog=contextlib.nullcontext)
    scores = ray.get(scorer.score.remote("request", "trial"), timeout=120)
    assert scores["node"] != unfit and has_left(unfit)
