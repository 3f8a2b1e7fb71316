"""The cluster files: Ray's own validator takes them, and nothing is open without the token."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "docs/cluster/gcp.yaml", "docs/cluster/on-premises.yaml")


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture(params=FILES)
def cluster(request) -> dict:
    """As Ray sees it: with its defaults filled in."""
    return prepare_config(read(request.param))


def test_ray_takes_the_file(cluster):
    validate_config(cluster)
    assert cluster["head_node_type"] in cluster["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_key_is_refused(name):
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validate_config(prepare_config(read(name) | {"idle_timeout_minuts": 5}))


def test_both_starts_ask_for_the_token_and_the_dashboard_stays_on_loopback(cluster):
    head, worker = (start_command(cluster[f"{kind}_start_ray_commands"]) for kind in ("head", "worker"))
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token ray start" in command
    assert "--dashboard-host=127.0.0.1" in head
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    drivers = (ROOT / "docs" / "cluster" / "env.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in drivers
    assert any("docs/cluster/env.sh" in command for command in cluster["head_setup_commands"])


def test_every_command_is_whole(cluster):
    """In YAML a ``#`` after a blank ends an unquoted command, in the middle of its own quotes; Ray's validator lets it pass."""
    for kind in ("head", "worker"):
        for command in (*cluster[f"{kind}_setup_commands"], *cluster[f"{kind}_start_ray_commands"]):
            checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
            assert not checked.returncode, f"{command}\n{checked.stderr}"


def start_command(commands: list[str]) -> str:
    (start,) = [command for command in commands if "ray start" in command]
    return start


def test_head_and_workers_are_set_up_alike_with_the_pinned_environment(cluster):
    assert cluster["head_setup_commands"] == cluster["worker_setup_commands"]
    (install,) = [command for command in cluster["worker_setup_commands"] if "uv pip install" in command]
    assert "--constraint constraints.txt" in install and "'.[cluster]'" in install
    mounts = [command for command in cluster["worker_setup_commands"] if "/mnt/timbre-ray" in command]
    assert len(mounts) == 1 and mounts[0].startswith("mountpoint -q")


@pytest.mark.parametrize("name", ["cluster.yaml", "docs/cluster/gcp.yaml"])
def test_gpu_workers_are_spot_first_then_on_demand_and_start_from_none(name):
    types = prepare_config(read(name))["available_node_types"]
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["priority"] > on_demand["priority"]
    assert "spot" in str(spot["node_config"]).lower() and "spot" not in str(on_demand["node_config"]).lower()
    assert spot["resources"] == on_demand["resources"] and spot["resources"]["GPU"] == 1
    assert [types[kind]["min_workers"] for kind in types] == [0, 0, 0]
    assert "GPU" not in types["head"]["resources"]


@pytest.mark.parametrize("pattern", read("cluster.yaml")["rsync_exclude"])
def test_what_is_not_copied_is_no_part_of_the_package(pattern):
    """rsync takes a pattern without a slash at its start anywhere in the tree: ``data`` would leave out timbre_ray/data."""
    left_out = [ROOT / pattern[1:]] if pattern.startswith("/") else (ROOT / "timbre_ray").rglob(pattern)
    assert not [path for path in left_out if (path / "__init__.py").exists() or path.suffix]


def test_the_variants_run_what_cluster_yaml_runs():
    """Three copies of the start commands: they may not drift apart."""
    first, *others = [read(name) for name in FILES]
    for other in others:
        for key in ("head_start_ray_commands", "worker_start_ray_commands", "file_mounts", "rsync_exclude"):
            assert other[key] == first[key], key


@pytest.mark.parametrize("name", ["cluster.yaml", "docs/cluster/gcp.yaml"])
def test_the_shared_disk_is_mounted_as_its_locks_need(name):
    """Locks of NFS 3 outlive a node that died; and a name that was absent must not be taken for absent from memory."""
    mount = read(name)["metadata"]["mount"]
    assert "-t nfs4" in mount and all(option in mount for option in ("nfsvers=4.1", "hard", "lookupcache=positive"))
