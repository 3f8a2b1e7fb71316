"""Room on a node's disk where that is the cache of a store behind a URL: what lies there too goes when the disk fills up."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from timbre_ray.artifact_files import MANIFEST, own_folder

if TYPE_CHECKING:
    from timbre_ray.store import Store

KEEP_FREE_BYTES, KEEP_FREE_SHARE = 25e9, 0.25
"""The less of both: a large U-Net's weights and two of its checkpoints are 20 GB, and some disks are small."""
UNUSED_S = 2 * 3600.0
"""Another trial of this node may still be reading what it was given since."""


def note_use(folder: Path) -> None:
    """Of an artifact, now: those that are used least lately go first."""
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)


def make_room(store: Store, in_use: Collection[tuple[str, str]] = ()) -> int:
    """Removes artifacts that the URL has, and checkpoints, that nobody has used for UNUSED_S, the longest unused first, until
    there is room; returns how many. in_use: stage and key of what stays whatever its age.
    """
    removed = 0
    if _is_free(store.root):
        return removed
    before = time.time() - UNUSED_S
    for used, kind, folder in sorted(_entries(store.root)):
        if used > before or _is_free(store.root):
            break
        stage, key = folder.parent.name, folder.name
        if kind == "artifacts" and (stage, key) in in_use:
            continue
        # Somebody is at it, or it went meanwhile: another trial of this node may make room, too.
        with contextlib.suppress(Timeout, FileNotFoundError), contextlib.ExitStack() as locks:
            for name in (stage, f"{stage}_run") if kind == "scratch" else (stage,):
                locks.enter_context(store.lock(name, key).acquire(timeout=0))
            # A checkpoint that nobody behind the URL knows of is of a training that was given up (ASHA), or could not be sent.
            if kind == "scratch" or store.remote.has(stage, key):
                with own_folder(store.root / "tmp" / stage / key) as aside:
                    os.rename(folder, aside / "unused")  # readers see all of it or nothing
                removed += 1
    return removed


def _is_free(root: Path) -> bool:
    usage = shutil.disk_usage(root)
    return usage.free >= min(KEEP_FREE_BYTES, KEEP_FREE_SHARE * usage.total)


def _entries(root: Path) -> Iterator[tuple[float, str, Path]]:
    """(last use, kind, folder) of each artifact and each folder of checkpoints."""
    for manifest in (root / "artifacts").glob(f"*/*/{MANIFEST}"):
        with contextlib.suppress(FileNotFoundError):
            yield manifest.stat().st_mtime, "artifacts", manifest.parent
    for folder in (root / "scratch").glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # published meanwhile
            yield max(path.stat().st_mtime for path in (folder, *folder.iterdir())), "scratch", folder
