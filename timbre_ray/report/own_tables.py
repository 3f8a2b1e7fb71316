"""Which files in a folder a report has written: what an earlier one left goes, what a user laid there stays."""

from __future__ import annotations

import os
from pathlib import Path

from timbre_ray.report import effect_forms, importances
from timbre_ray.report.textforms import CSV_HEADER

SUFFIXES = (".csv", ".parquet", ".tex")
NAMES = frozenset(
    [
        f"{stem}{suffix}"
        for stem in ("table-2-teacher-forcing", "table-3-fad", "table-4-fad", "table-5-duet-rank", "table-6-duet-confidence",
                     "table-7-solo-piano")
        for suffix in SUFFIXES
    ]
    + [f"{stem}{suffix}" for stem in ("trials", "comparisons", "arms", "clips") for suffix in SUFFIXES[:2]]
)  # fmt: skip
#: What not every report has, and a user may have given such a name: the .csv has to begin as the report's does.
HEADERS = {"effects": effect_forms.CSV_HEADER, "importances": importances.CSV_HEADER}
OF_A_TARGET = "table-4-fad-"
"""How tables of targets beyond the second begin: the rest is the target's name."""


#: What says of a file in a report's folder that it is one.
MARKS = {"index.html": " · timbre-ray</title>", "report.md": "\n## Made with\n"}


def check(out: Path) -> None:
    """Raises FileExistsError where a page or text that is no report's would be written over."""
    for name, mark in MARKS.items():
        path = out / name
        if path.exists() and path.stat().st_size and mark not in path.read_text(encoding="utf-8", errors="replace"):
            raise FileExistsError(
                f"{path}: is no report of timbre-ray, and is not written over; choose another --out, or remove it"
            )


def write(path: Path, text: str) -> None:
    """Whole or not at all: what is cut off would be taken for somebody else's."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def find(folder: Path) -> list[Path]:
    """The report's own files in ``folder``, this one's or an earlier one's."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_file() and (path.name in NAMES or _begins_as_ours(path))]


def clear(folder: Path) -> None:
    """Removes them."""
    for path in find(folder):
        path.unlink()


def _begins_as_ours(path: Path) -> bool:
    header = CSV_HEADER if path.name.startswith(OF_A_TARGET) else HEADERS.get(path.stem)
    lines = path.with_suffix(SUFFIXES[0])
    if header is None or path.suffix not in SUFFIXES or not lines.is_file():
        return False
    with lines.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") == ",".join(header)
