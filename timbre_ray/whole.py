"""Folders that appear whole or not at all, and never in the place of another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_no_file(folder: Path, said: str) -> None:
    """Raises NotADirectoryError if a file lies where ``folder`` would be, or above it. said: how the user wrote it."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise NotADirectoryError(f"{said}: {'' if there == folder else f'{there} '}is a file; name a folder")


def check_free(out: Path) -> None:
    """Raises FileExistsError if ``out`` is there and is not an empty folder: nothing is written over."""
    check_no_file(out, f"--out {out}")
    if out.exists() and any(out.iterdir()):
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
