"""Nodes that leave while the driver asks whether they see its folders; real nodes are asked in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from timbre_ray.cluster import storage_probe
from timbre_ray.shared_disk import DiskNotSharedError, SharedDisk

STAYS, GOES = ({"NodeID": name * 14, "NodeManagerAddress": f"192.0.2.{i}", "Alive": True} for i, name in enumerate(("ab", "cd")))


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SharedDisk, ...]:
    """Two nodes are up, and only one of them answers."""
    disks = (SharedDisk.of("run.storage", tmp_path / "store"),)
    monkeypatch.setattr(storage_probe, "LOOK_S", 0.01)

    def ask(probe: storage_probe.Probe, disks: tuple[SharedDisk, ...], files: dict[str, str]) -> dict[str, str | None]:
        here = probe(disks, files[STAYS["NodeID"]])
        return {STAYS["NodeID"]: here, GOES["NodeID"]: f"{storage_probe.NOT_ASKED} (TaskUnschedulableError)"}

    monkeypatch.setattr(storage_probe, "_ask", ask)
    return disks


def test_a_node_that_leaves_meanwhile_is_nobodys_matter(disks: tuple[SharedDisk, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[STAYS, GOES], [STAYS, GOES], [STAYS]])
    monkeypatch.setattr(storage_probe.ray, "nodes", lambda: next(looks))
    assert storage_probe.check_every_node(disks) == 1
    assert next(looks, None) is None, "it was looked at until it was gone"


def test_a_node_that_stays_and_does_not_answer_is_named(disks: tuple[SharedDisk, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_probe.ray, "nodes", lambda: [STAYS, GOES])
    monkeypatch.setattr(storage_probe, "LEAVES_WITHIN_S", 0.05)
    with pytest.raises(DiskNotSharedError, match=r"^node 192\.0\.2\.1 \(cdcdcdcdcdcd\): is up, and could not be asked \(TaskUn"):
        storage_probe.check_every_node(disks)
