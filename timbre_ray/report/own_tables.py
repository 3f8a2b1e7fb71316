"""Which files in a folder of tables a report has written: what an earlier one left goes, what a user laid there stays."""

from __future__ import annotations

from pathlib import Path

from timbre_ray.report.textforms import CSV_HEADER

SUFFIXES = (".csv", ".parquet", ".tex")
NAMES = frozenset(
    [
        f"{stem}{suffix}"
        for stem in ("table-2-teacher-forcing", "table-3-fad", "table-4-fad", "table-5-duet-rank", "table-6-duet-confidence",
                     "table-7-solo-piano", "effects")
        for suffix in SUFFIXES
    ]
    + [f"{stem}{suffix}" for stem in ("trials", "comparisons", "arms", "clips", "importances") for suffix in SUFFIXES[:2]]
)  # fmt: skip
OF_A_TARGET = "table-4-fad-"
"""How tables of targets beyond the second begin: the rest is the target's name."""


def find(folder: Path) -> list[Path]:
    """The report's own files in ``folder``, this one's or an earlier one's."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_file() and (path.name in NAMES or _is_of_a_target(path))]


def clear(folder: Path) -> None:
    """Removes them."""
    for path in find(folder):
        path.unlink()


def _is_of_a_target(path: Path) -> bool:
    """Anything may follow in such a name, so the .csv has to be one of the report's."""
    lines = path.with_suffix(SUFFIXES[0])
    if not path.name.startswith(OF_A_TARGET) or path.suffix not in SUFFIXES or not lines.is_file():
        return False
    with lines.open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") == ",".join(CSV_HEADER)
