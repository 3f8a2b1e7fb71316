"""Folders that appear whole or not at all, and never in the place of another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_free(out: Path) -> None:
    """Raises FileExistsError if ``out`` is there and is not an empty folder: nothing is written over."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out}: is there already, and is not written over; choose another --out, or remove it")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` that takes its name at the end, or is removed if the block fails."""
    check_free(out)
    target = out.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        check_free(target)  # somebody else may have been faster
        folder.rename(target)  # over an empty folder, or over nothing
    finally:
        shutil.rmtree(folder, ignore_errors=True)
