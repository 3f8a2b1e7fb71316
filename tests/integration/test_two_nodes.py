"""Two Ray nodes on one machine: every node is asked for the shared folders, and the autoscaler's file is read on the head."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import stub_functions
import yaml
from ray import cloudpickle
from ray_nodes import start_nodes
from rich.console import Console
from stub_sweeps import by_token, stub_sweep, write_clips, write_sweep

from timbre_ray.cluster.autoscaling import CONFIG, startable_nodes
from timbre_ray.cluster.resources import InfeasibleError, ray_session
from timbre_ray.cluster.run import run_sweep
from timbre_ray.cluster.storage_probe import check_every_node, check_locks, probe_locks, probe_node
from timbre_ray.ledger import Ledger
from timbre_ray.shared_disk import DiskNotSharedError, SharedDisk
from timbre_ray.sweep import load_sweep


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A head without CPUs and a worker with two, in a home of their own that holds what `ray up` writes there."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        node_types = {"head": {"resources": {}, "max_workers": 0}, "gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": 3}}
        config = {"max_workers": 3, "head_node_type": "head", "available_node_types": node_types}
        Path(CONFIG).expanduser().write_text(yaml.safe_dump(config))
        cluster = start_nodes(num_workers=1)
        try:
            with ray_session(address=cluster.address, threads=1):
                for module in (stub_functions, sys.modules[__name__]):  # the workers cannot import the tests
                    cloudpickle.register_pickle_by_value(module)
                yield cluster.address
        finally:
            cluster.shutdown()


@pytest.fixture
def disks(tmp_path) -> tuple[SharedDisk, ...]:
    return (SharedDisk.of("run.storage", tmp_path / "store"), SharedDisk.of("run.results", tmp_path / "results"))


def test_every_node_is_asked_and_nothing_is_left(address, disks):
    assert check_every_node(disks) == 2
    assert all([path.name for path in disk.folder.iterdir()] == [".timbre-ray-disk"] for disk in disks)


def test_a_node_that_cannot_see_the_folder_is_named(address, disks):
    (bad,) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") == 2]

    def probe(disks, name):
        on_bad = ray.get_runtime_context().get_node_id() == bad
        return "run.storage: no such folder" if on_bad else probe_node(disks, name)

    with pytest.raises(DiskNotSharedError) as caught:
        check_every_node(disks, probe=probe)
    assert str(caught.value).splitlines() == [f"node {ray.util.get_node_ip_address()} ({bad[:12]}): run.storage: no such folder"]

    def silent(disks, name):
        """Sees what the driver wrote, but writes elsewhere."""
        return None if ray.get_runtime_context().get_node_id() == bad else probe_node(disks, name)

    with pytest.raises(DiskNotSharedError, match=rf"\({bad[:12]}\): what it writes to run.storage=.* and run.results="):
        check_every_node(disks, probe=silent)


def test_a_node_on_which_locks_do_not_hold_is_told(address, disks):
    assert check_locks(disks) == []
    assert all([path.name for path in disk.folder.iterdir()] == [".timbre-ray-disk"] for disk in disks)
    (bad,) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") == 2]

    def probe(disks, name):
        on_bad = ray.get_runtime_context().get_node_id() == bad
        return probe_locks(disks, f"{name}-another" if on_bad else name)

    (told,) = check_locks(disks, probe=probe)
    assert told.startswith(f"node {ray.util.get_node_ip_address()} ({bad[:12]}): has a lock in run.storage=") and "NFS 4" in told


def test_what_the_autoscaler_may_start_is_read_on_the_head(address):
    found = startable_nodes()
    assert found.num_nodes == 2  # of three, one worker is up
    assert [(kind.name, kind.resources) for kind in found.types] == [("gpu", {"cpu": 2, "gpu": 1})]


def test_a_sweep_runs_on_the_cluster_and_a_hopeless_one_is_refused(address, tmp_path):
    def sweep(resources: dict):
        body = stub_sweep(write_clips(tmp_path / "flute"), arms=by_token("good"))
        run = {"resources": {"train": resources}, "storage": str(tmp_path / "store"), "results": str(tmp_path / "results")}
        return load_sweep(write_sweep(tmp_path / "two_nodes.yaml", body, name="two-nodes", **run))

    console = Console(file=io.StringIO())
    with pytest.raises(InfeasibleError, match=r"gpu=2: no node has that much, or could be started with it.*node types gpu has 1"):
        run_sweep(sweep({"gpu": 2}), address=address, functions=stub_functions.STUBS, console=console)
    outcome = run_sweep(sweep({"cpu": 1}), address=address, functions=stub_functions.STUBS, console=console)
    assert outcome.exit_code == 0 and len(outcome.finished) == 1
    assert [record["status"] for record in Ledger(outcome.results).trials()] == ["finished"]
