"""Where and with what a sweep ran: kept beside the results, never part of their identity."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "timbre-ray",
    "torch",
    "torchaudio",
    "ray",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "optuna",
    "timm",
    "numpy",
)


def provenance() -> dict[str, Any]:
    """Versions of the packages that decide results (None: not installed), Python, platform and the source's git commit."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "git_commit": _git_commit(Path(__file__).resolve().parents[2]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit(source: Path) -> str | None:
    """The commit that is checked out, or None: an installed package has no repository, and git may be absent."""
    if not (source / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
