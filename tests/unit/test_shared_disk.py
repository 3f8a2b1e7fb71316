"""A shared folder's id: one for all drivers, and a node without the folder is named."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from timbre_ray.cluster.functions import Worker
from timbre_ray.shared_disk import ID_FILE, DiskNotSharedError, SharedDisk


def test_every_driver_finds_the_same_id(tmp_path):
    first, second = (SharedDisk.of("run.storage", tmp_path / "store") for _ in range(2))
    assert first == second and len(first.id) == 32
    assert [path.name for path in (tmp_path / "store").iterdir()] == [ID_FILE]
    first.check()


def test_another_folder_or_none_names_node_key_and_remedy(tmp_path):
    disk = SharedDisk.of("run.storage", tmp_path / "store")
    others = (dataclasses.replace(disk, id="other"), dataclasses.replace(disk, folder=tmp_path / "absent"))
    for other, what in zip(others, ("another folder", "No such file"), strict=True):
        with pytest.raises(DiskNotSharedError, match=f"run.storage=.*{socket.gethostname()}.*{what}.*mount it"):
            other.check()
        # A worker on that node refuses before it writes anything.
        worker = Worker(store_root=other.folder, device="cpu", threads=1, disks=(other,))
        with pytest.raises(DiskNotSharedError):
            worker.store()
    assert not (tmp_path / "absent").exists()
