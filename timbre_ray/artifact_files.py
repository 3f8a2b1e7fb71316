"""An artifact's folder on the disk: the digests in its ``artifact.json``, the rename that publishes it, and damage since then."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "artifact.json"
#: Of a stage and a key, which become folders.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: Files that this process found whole, by path, size and times: a file is read for its digest once a process.
_found_whole: set[tuple[Path, int, int, int]] = set()


def write_manifest(folder: Path, entry: dict[str, Any]) -> None:
    """Writes artifact.json."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    assert MANIFEST not in files, f"{folder}: a stage must not write {MANIFEST} itself"
    entry |= {"created": time.time(), "files": files}
    (folder / MANIFEST).write_text(json.dumps(entry, indent=1), encoding="utf-8")


def publish(folder: Path, published: Path) -> None:
    """One rename, once all of the folder is on the disk."""
    for path in (*folder.rglob("*"), folder):
        _fsync(path)
    published.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, published)
    _fsync(published.parent)


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
        _found_whole.add(seen)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
