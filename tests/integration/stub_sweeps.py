"""Sweeps of stub trials (stub_functions.py) as files: recordings that nobody reads, and a YAML file over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_clips(folder: Path) -> Path:
    """Four recordings, of which only the digests are wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (folder / f"{folder.name}_{number}.wav").write_bytes(f"never read: {folder.name} {number}".encode())
    return folder


def by_token(*names: str) -> dict[str, Any]:
    """An arm a name, whose token it is: a stub behaves as its token says."""
    return {name: {"clips": {"token": name}} for name in names}


def stub_sweep(clips: Path | str, *, arms: Mapping[str, Any], steps: Sequence[int] = (0, 25)) -> dict[str, Any]:
    """Base and arms: an evaluation of two clips at each of ``steps``, and no training."""
    base = {
        "clips": {"path": str(clips)},
        "dreambooth": {"steps": steps[-1]},
        "evaluate": {"at_steps": list(steps), "num_clips": 2},
    }
    return {"base": base, "arms": dict(arms)}


def write_sweep(path: Path, sweep: Mapping[str, Any], *, name: str = "stubs", **run: Any) -> Path:
    """The file of a sweep whose trials take a CPU each and whose scores take none, unless ``run`` says otherwise."""
    run = {"resources": {"train": {"cpu": 1}, "score": {"cpu": 0}}, **run}
    path.write_text("# Question: what becomes of its trials?\n" + yaml.safe_dump({"name": name, **sweep, "run": run}))
    return path
