"""The paper's own values, where somebody has put them on file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from timbre_ray.report.results import Results

COLUMN_HEADER = "paper (audioldm2-large, other data)"
UNTOUCHED_KEY = "untouched"
TABLE_NUMBERS = ("2", "3", "4", "5", "6", "7")

PaperValues = Mapping[str, Mapping[str, Mapping[str, str]]]
"""table number -> arm (or ``untouched``) -> target -> the value as text."""


def load(path: Path, results: Results) -> PaperValues | None:
    """Read ``table: {arm: value}``; None without the file.

    A value is a number, a text (several columns of the paper, say "12.1 / 9.8 / 7.3") or a mapping from this sweep's
    targets to either.
    """
    if not path.exists():
        return None
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {content!r}: must map tables ({', '.join(TABLE_NUMBERS)}) to arms to values")
    arms = [UNTOUCHED_KEY, *(arm.label for arm in results.arms)]
    values: dict[str, dict[str, dict[str, str]]] = {}
    for table, rows in content.items():
        _require(path, "table", str(table), str(table), TABLE_NUMBERS)
        if not isinstance(rows, dict):
            raise ValueError(f"{path}: {table}={rows!r}: must map arms to values")
        for arm, value in rows.items():
            key = f"{table}.{arm}"
            _require(path, "arm", key, str(arm), arms)
            values.setdefault(str(table), {})[str(arm)] = _by_target(path, key, value, results.targets)
    return values


def _by_target(path: Path, key: str, value: Any, targets: tuple[str, ...]) -> dict[str, str]:
    if isinstance(value, dict):
        for target in value:
            _require(path, "target", f"{key}.{target}", str(target), targets)
        return {str(target): _text(path, f"{key}.{target}", each) for target, each in value.items()}
    return {target: _text(path, key, value) for target in targets}


def _text(path: Path, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{path}: {key}={value!r}: must be a number or a text")
    return str(value)


def _require(path: Path, kind: str, key: str, name: str, choices: Iterable[str]) -> None:
    known = list(choices)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(f"{path}: {key}: no such {kind}; nearest: {nearest[0]}; all: {', '.join(known)}")
