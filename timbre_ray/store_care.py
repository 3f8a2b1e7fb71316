"""Looking after a store: is every file what it was, how much lies where, and what may go."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from timbre_ray.artifact_files import MANIFEST, NAME, leads_out
from timbre_ray.store import Store

DAY_S = 86_400.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """One artifact after a look at all of its files."""

    stage: str
    key: str
    problems: tuple[str, ...]
    """Empty: every file has the digest of artifact.json, and there is no other file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    stage: str
    num_artifacts: int
    num_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Garbage:
    """A folder that no process works on."""

    folder: Path | str
    """A URL, where the store is behind one."""
    reason: str
    num_bytes: int


def checked_root(root: Path) -> Path:
    """Raises FileNotFoundError where there is no store: a wrong path must not look like a store without a fault."""
    if not (root / "artifacts").is_dir():
        raise FileNotFoundError(f"{root}: no store there (it has no folder artifacts); name it, as run.storage of the sweep does")
    return root


def verify(root: Path) -> Iterator[Checked]:
    """Every artifact, by stage and key."""
    for stage, key, folder in _entries(root / "artifacts"):
        try:
            problems = tuple(_problems(stage, key, folder))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems = (f"{MANIFEST} cannot be used ({type(error).__name__}: {error})",)
        yield Checked(stage=stage, key=key, problems=problems)


def usage(root: Path) -> list[Usage]:
    """By stage, the largest first."""
    found: dict[str, list[int]] = {}
    for stage, _, folder in _entries(root / "artifacts"):
        found.setdefault(stage, []).append(_num_bytes(folder))
    rows = [Usage(stage=stage, num_artifacts=len(sizes), num_bytes=sum(sizes)) for stage, sizes in found.items()]
    return sorted(rows, key=lambda row: -row.num_bytes)


def collect_garbage(root: Path, *, days: float, remove: bool, now: float | None = None) -> list[Garbage]:
    """What writers that are gone left in tmp/, and checkpoints in scratch/ that nobody touched for so many days.

    Each folder is judged, and removed if asked to, while this process holds the lock of its key: no writer can be at it.
    """
    store, now, found = Store(root), time.time() if now is None else now, []
    for kind in ("tmp", "scratch"):
        for stage, key, folder in _entries(root / kind):
            # Whoever trains holds the lock of the run from its first step to its last.
            with contextlib.suppress(Timeout), contextlib.ExitStack() as locks:
                for name in (stage, f"{stage}_run") if kind == "scratch" else (stage,):
                    locks.enter_context(store.lock(name, key).acquire(timeout=0))
                reason = _reason(kind, folder, days=days, now=now) if folder.is_dir() else None
                if reason is None:
                    continue
                found.append(Garbage(folder=folder, reason=reason, num_bytes=_num_bytes(folder)))
                if remove:
                    shutil.rmtree(folder)
    return found


def _reason(kind: str, folder: Path, *, days: float, now: float) -> str | None:
    """Why a folder whose lock is free may go; None: it may not."""
    if kind == "tmp":
        return "its writer is gone"
    age_days = (now - max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))) / DAY_S
    return f"untouched for {age_days:.0f} days" if age_days > days else None


def _problems(stage: str, key: str, folder: Path) -> Iterator[str]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if (manifest["stage"], manifest["key"]) != (stage, key):
        yield f"{MANIFEST} is that of {manifest['stage']}/{manifest['key']}"
    for name, entry in manifest["files"].items():
        if problem := _problem(folder, name, entry["sha256"], entry["bytes"]):
            yield f"{name}: {problem}"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    for name in sorted(there - {*manifest["files"], MANIFEST}):
        yield f"{name}: not in {MANIFEST}"


def _problem(folder: Path, name: str, sha256: str, num_bytes: int) -> str | None:
    path = folder / name
    if leads_out(folder, name):
        return "leads out of the artifact's folder; it was not read"
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != num_bytes:
        return f"{size} bytes instead of {num_bytes}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == sha256 else f"sha256 {found[:12]}... instead of {sha256[:12]}..."


def _entries(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(stage, key, folder) of each folder two levels down. A link, or a name that no stage or key has, is none of the store's."""
    for stage in sorted(_folders(folder)):
        for entry in sorted(_folders(stage)):
            if NAME.fullmatch(stage.name) and NAME.fullmatch(entry.name):
                yield stage.name, entry.name, entry


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()] if folder.is_dir() else []


def _num_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
