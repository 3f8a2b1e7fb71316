"""An artifact's folder on the disk: the digests in its ``artifact.json``, the rename that publishes it, and damage since then."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from timbre_ray.durable import fsync

MANIFEST = "artifact.json"
#: Of a stage and a key, which become folders.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: Of this machine, as a part of a folder's name.
HOST = re.sub(r"[^A-Za-z0-9_.]+", "_", socket.gethostname())
#: Files that this process found whole, by path, size and times: a file is read for its digest once a process.
MOST_REMEMBERED = 200_000
_found_whole: set[tuple[Path, int, int, int]] = set()


def write_manifest(folder: Path, entry: dict[str, Any]) -> None:
    """Writes artifact.json; may be called again after it failed."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    assert MANIFEST not in files, f"{folder}: a stage must not write {MANIFEST} itself"
    entry |= {"created": time.time(), "files": files}
    try:
        (folder / MANIFEST).write_text(json.dumps(entry, indent=1), encoding="utf-8")
    except OSError:
        with contextlib.suppress(OSError):
            (folder / MANIFEST).unlink(missing_ok=True)
        raise


def publish(folder: Path, published: Path) -> bool:
    """One rename, once all of the folder is on the disk; may be called again after it failed. False where another host has
    published meanwhile: a network folder's locks and its list of names are not always of one moment.
    """
    if folder.is_dir():
        for path in (*folder.rglob("*"), folder):
            fsync(path)
        published.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(folder, published)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
    for named in (published.parent, published.parent.parent):  # a stage's first artifact comes with a folder of its own
        fsync(named)
    return True


@contextlib.contextmanager
def own_folder(place: Path) -> Iterator[Path]:
    """An empty folder of this process alone below ``place``, removed in the end: where a disk's locks do not hold between hosts,
    two that compute the same must not write into one. Those of this host's processes that were killed go first."""
    folder = place / f"{HOST}-{os.getpid()}"
    for left in place.glob(f"{HOST}-*"):
        if left == folder or not _is_alive(left.name.rpartition("-")[2]):
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # there may be others in it
            place.rmdir()


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def leads_out(folder: Path, name: str) -> bool:
    """True for a file's name in an artifact.json that is no place below the artifact's folder."""
    parts = PurePosixPath(name)
    return parts.is_absolute() or ".." in parts.parts or not (folder / name).resolve().is_relative_to(folder.resolve())


def damage_of(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong with the first file that is not as it was published."""
    for name, entry in files.items():
        path = folder / name
        if leads_out(folder, name):
            return f"{name} leads out of the artifact's folder; it was not read"
        if not path.is_file():
            return f"{name} is missing"
        stat = path.stat()
        seen = (path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if seen in _found_whole:
            continue
        if stat.st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            return f"{name} is not what was published (another digest)"
        if len(_found_whole) >= MOST_REMEMBERED:  # an evaluation actor sees every clip of a sweep
            _found_whole.clear()
        _found_whole.add(seen)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
