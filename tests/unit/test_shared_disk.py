"""A shared folder's id: one for all drivers, and a node without the folder is named."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from pathlib import Path

import pytest

from timbre_ray import patience
from timbre_ray.cluster.functions import Worker
from timbre_ray.shared_disk import ID_FILE, DiskNotSharedError, SharedDisk


def test_every_driver_finds_the_same_id(tmp_path):
    first, second = (SharedDisk.of("run.storage", tmp_path / "store") for _ in range(2))
    assert first == second and len(first.id) == 32
    assert [path.name for path in (tmp_path / "store").iterdir()] == [ID_FILE]
    first.check()


def test_a_disk_that_fails_for_a_while_is_waited_for(tmp_path, monkeypatch):
    disk, answers = SharedDisk.of("run.storage", tmp_path / "store"), [errno.EIO, errno.ESTALE]
    read = Path.read_text

    def failing(path, **named):
        if path.name == ID_FILE and answers:
            number = answers.pop(0)
            raise OSError(number, os.strerror(number))
        return read(path, **named)

    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(Path, "read_text", failing)
    Worker(store_root=disk.folder, device="cpu", threads=1, disks=(disk,)).store()
    assert not answers
    answers += [errno.EIO] * 1000
    with pytest.raises(DiskNotSharedError, match=r"run.storage=.*Input/output error, for 0.05 s\).*mount it"):
        disk.check(patience_s=0.05)
    answers[:] = [errno.ENOENT]
    with pytest.raises(DiskNotSharedError, match="No such file"):  # nothing is mounted, and nothing to wait for
        disk.check(patience_s=60)
    assert not answers


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
