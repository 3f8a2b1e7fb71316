"""Files that a loss of power leaves whole: their content is on the disk before their name is. Standard library only."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def fsync(path: Path) -> None:
    """A file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, *, sync: bool = True) -> None:
    """By one rename: a reader never sees half of it. Makes the folder. sync: False for a copy of what lies elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
