"""A disk that fails for a while, as a network folder does whose server is away: waited for, and named where it stays away."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from timbre_ray import artifact_files, patience
from timbre_ray.cluster.failures import is_transient
from timbre_ray.leaving import Leaving
from timbre_ray.ledger import Ledger
from timbre_ray.object_storage import StorageError
from timbre_ray.run_specs import RunSpec
from timbre_ray.store import Store
from timbre_ray.train import checkpoint

#: What of the system's calls a disk can refuse here. Python has no hook for the others.
CALLS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}


class Disk:
    """Everything below a folder fails while the disk is away."""

    def __init__(self) -> None:
        self.root, self.code = "", errno.EIO
        self.refused = 0
        self._back_at = 0.0

    def away(self, seconds: float) -> None:
        self._back_at = time.monotonic() + seconds

    def mend(self) -> None:
        self._back_at = 0.0

    def hook(self, event: str, arguments: tuple) -> None:
        if not self.root or event not in CALLS or time.monotonic() > self._back_at:
            return
        if str(arguments[0]).startswith(self.root):
            self.refused += 1
            raise OSError(self.code, os.strerror(self.code), str(arguments[0]))


DISK = Disk()
sys.addaudithook(DISK.hook)  # none can be taken away again: it does nothing unless a test uses it


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    DISK.root, DISK.code, DISK.refused = str(tmp_path / "disk"), errno.EIO, 0
    yield DISK
    DISK.root = ""
    DISK.mend()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.1)


def produce(calls: list[str], meanwhile: Callable[[], None] = lambda: None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        calls.append("call")
        if len(calls) == 1:
            meanwhile()
        (folder / "weights").write_bytes(b"seven")

    return write


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_store_waits_for_its_disk(tmp_path, disk, code):
    disk.code = code
    store, calls = Store(tmp_path / "disk"), []
    disk.away(0.5)
    assert not store.get_or_compute("encode", "a", produce(calls), description={}).reused
    assert calls == ["call"] and disk.refused > 2
    disk.away(0.5)  # amid the work: it is done again, and published once
    store.get_or_compute("encode", "b", produce(calls := [], lambda: disk.away(0.5)), description={})
    assert len(calls) > 1
    disk.away(0.5)
    assert Store(tmp_path / "disk").get("encode", "b").file("weights").read_bytes() == b"seven"
    assert [(e["event"], e["key"]) for e in store.log()] == [("computed", "a"), ("computed", "b")]
    assert not list((tmp_path / "disk" / "tmp" / "encode").iterdir())


def test_a_disk_that_stays_away_is_named_and_nothing_is_lost(tmp_path, disk):
    store, calls = Store(tmp_path / "disk", patience_s=0.3), []
    store.get_or_compute("encode", "a", produce([]), description={})
    disk.away(600)
    with pytest.raises(StorageError) as caught:
        store.get_or_compute("encode", "b", produce(calls), description={})
    assert f"{tmp_path / 'disk'}: cannot keep encode/b for 0.3 s (run.storage_patience_s): [Errno 5]" in str(caught.value)
    assert "the same command goes on" in str(caught.value) and is_transient(caught.value)
    disk.mend()
    assert store.get_or_compute("encode", "a", produce([]), description={}).reused
    assert not store.get_or_compute("encode", "b", produce(calls), description={}).reused


def test_what_took_long_to_compute_survives_a_disk_that_fails_for_a_moment(tmp_path, monkeypatch):
    """Computing does not use patience up, and publishing is tried again for itself."""
    refused, rename = [], os.rename

    def fails_once(source: Path, target: Path) -> None:
        if not refused:
            refused.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        rename(source, target)

    monkeypatch.setattr(artifact_files.os, "rename", fails_once)
    store, calls = Store(tmp_path / "disk", patience_s=0.5), []
    store.get_or_compute("encode", "a", produce(calls, lambda: time.sleep(0.8)), description={})
    assert refused and calls == ["call"] and store.get("encode", "a").file("weights").read_bytes() == b"seven"


def test_a_lock_is_waited_for_aloud(tmp_path):
    """A hundred who wait do not ask all the time, and each can be told to stop waiting."""
    one, other, looks = Store(tmp_path), Store(tmp_path), []
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with one.holding("dreambooth_run", "k"):
            held.set()
            free.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)

    def leave() -> None:
        raise Leaving("spot")

    other.while_waiting = leave
    with pytest.raises(Leaving), other.holding("dreambooth_run", "k"):
        pytest.fail("somebody else holds it")
    other.while_waiting = lambda: (looks.append(time.monotonic()), free.set() if len(looks) == 4 else None)
    with other.holding("dreambooth_run", "k"):
        assert len(looks) >= 4 and looks[3] - looks[2] > 1.2 * (looks[1] - looks[0])
    holder.join()
    with one.holding("dreambooth_run", "k"), one.holding("dreambooth_run", "k"):
        pass  # its holder may ask again


def test_a_full_disk_is_not_waited_for(tmp_path, disk):
    disk.code = errno.ENOSPC
    began = time.monotonic()
    with pytest.raises(OSError, match="No space left"):
        Store(tmp_path / "disk").get_or_compute("encode", "a", produce([], lambda: disk.away(600)), description={})
    assert time.monotonic() - began < 20


def test_a_ledger_waits_for_its_disk(tmp_path, disk):
    ledger = Ledger(tmp_path / "disk" / "stubs", patience_s=30)
    disk.away(0.5)
    ledger.write_trial({"trial_id": "a", "status": "finished"})
    assert disk.refused > 2
    disk.away(0.5)
    threading.Timer(0.1, disk.mend).start()
    assert ledger.trial("a") == {"trial_id": "a", "status": "finished"}
    disk.away(600)
    with pytest.raises(StorageError, match=rf"{tmp_path / 'disk' / 'stubs'}: cannot write b.json for 0.2 s"):
        Ledger(tmp_path / "disk" / "stubs", patience_s=0.2).write_trial({"trial_id": "b"})


def test_a_training_goes_on_without_a_checkpoint(tmp_path, disk):
    path = tmp_path / "disk" / "resume.pt"
    path.parent.mkdir()
    weight = torch.nn.Parameter(torch.ones(3))
    arguments = ({"w": weight}, torch.optim.AdamW([weight]), [])
    checkpoint.save(path, 1, *arguments)
    disk.away(600)
    with pytest.warns(UserWarning, match=r"resume\.pt: no checkpoint written .*Input/output error.*; the training goes on"):
        checkpoint.save(path, 2, *arguments)
    disk.code = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, 2, *arguments)
    disk.mend()
    assert checkpoint.reached(path) == 1


def test_what_libraries_in_rust_say_is_understood(tmp_path, monkeypatch):
    with pytest.raises(Exception, match="os error 2") as caught:
        save_file({"a": torch.ones(1)}, tmp_path / "absent" / "a.safetensors")
    assert not isinstance(caught.value, OSError) and not patience.may_pass(caught.value)
    monkeypatch.setattr(patience, "PASSING", frozenset({errno.ENOENT}))
    assert patience.may_pass(caught.value)


def test_no_patience_below_nothing():
    with pytest.raises(ValueError, match="storage_patience_s=-1"):
        RunSpec(storage_patience_s=-1)
