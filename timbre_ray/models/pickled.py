"""Weights in torch's own format, whoever wrote them: no code of theirs runs, and no archive unpacks to more than it is."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def load_pickled(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU. Raises pickle.UnpicklingError for anything but plain values and tensors, and for an
    archive that a small file would fill the memory from."""
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:  # torch's older format is none, has no bomb
        unpacked, size = sum(part.file_size for part in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise pickle.UnpicklingError(f"it has {size} bytes and would unpack to {unpacked}; torch packs nothing")
    return torch.load(path, map_location="cpu", weights_only=True)
