"""One driver a sweep: by a lock in its folder of results, and where these lie behind a URL by a lease there. No torch, no Ray."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from timbre_ray import lease
from timbre_ray.ledger import mirror_of
from timbre_ray.object_storage import ObjectStorage, is_url

#: Object beside the records of a sweep; Ledger takes no record from it.
LEASE = "driver"
_ID_FILE = ".driver"
LOOK_S = 1.0
"""`timbre-ray status` holds the lock for a moment, to see whether a driver does."""


@contextlib.contextmanager
def alone(results: Path, storage: str, *, patience_s: float, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """No other driver runs the sweep of these results within the block; yields a check: RuntimeError if one does after all.

    Raises RuntimeError if one does already. The lock is the system's: kill -9 frees it. A lease that a dead driver left is taken
    over, at once where it was of this very folder, else when it was not renewed for a while.
    """
    results.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(results / ".lock")
    try:
        lock.acquire(timeout=LOOK_S)
    except filelock.Timeout:
        raise RuntimeError(f"{results}: another process runs this sweep at the moment. Wait for it, or stop it.") from None
    try:
        if not is_url(storage):
            yield lambda: None
            return
        mirror = mirror_of(storage, results.name, patience_s=patience_s)
        mine = _taken(mirror, results, say)
        with mine.kept():
            yield lambda: _check(mine, mirror)
    finally:
        lock.release()


def is_driven(mirror: ObjectStorage) -> bool:
    """True while a driver renews its lease of these results, as far as this machine's clock can tell."""
    ages = [time.time() - entry.modified for entry in mirror.entries() if entry.name == LEASE]
    return any(abs(age) < lease.LOST_AFTER_S for age in ages)


def _taken(mirror: ObjectStorage, results: Path, say: Callable[[str], None]) -> lease.Lease:
    folder, said = _id_of(results), False

    def stop(holder: Mapping[str, Any], renewed: bool) -> bool:
        nonlocal said
        if holder.get("folder") == folder:  # its driver held the lock that we hold now
            mirror.delete(LEASE)
            return False
        who = f"the driver {holder.get('process')} on {holder.get('host')}"
        if renewed:
            raise RuntimeError(f"{mirror.url}: {who} runs this sweep at the moment. Wait for it, or stop it.")
        if not said:
            say(f"{mirror.url}: {who} ran this sweep; looking for up to {lease.LOST_AFTER_S:.0f} s whether it still does")
            said = True
        return False

    mine = lease.Lease(mirror, LEASE, host=socket.gethostname(), process=str(os.getpid()), folder=folder)
    mine.take(stop)
    return mine


def _check(mine: lease.Lease, mirror: ObjectStorage) -> None:
    if mine.lost:
        raise RuntimeError(
            f"{mirror.url}: another driver took this sweep over, because this one could not reach the URL for "
            f"{lease.LOST_AFTER_S:.0f} s. What was finished is kept; this one ends."
        )


def _id_of(results: Path) -> str:
    """Of the folder, whatever the machine and its path are called: container images share both. A copy of it is another."""
    path = results / _ID_FILE
    if not path.is_file():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return f"{path.read_text(encoding='utf-8')}-{path.stat().st_ino}"
