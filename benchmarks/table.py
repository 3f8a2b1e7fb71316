"""README.md of the measurements, from the rows' JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.rows import MODULES

HEAD = """# Speed

Written by `make speed`. Each row is ours against the peers' way ([benchmarks/baseline.py](../../benchmarks/baseline.py)) in one
run, sides in turns. A ratio is of two neighbouring runs; the table has the median of the repetitions and, in brackets, the
smallest and the largest. Rows without a model's name are at the miniature's size, on one CPU thread unless they say otherwise;
those of audioldm2 and audioldm2-large are of random weights in the published shapes on a GPU (times do not depend on what the
weights are).
What was tried and what did not work: [log.md](log.md).
"""


def write(folder: Path) -> Path:
    """Reads every row's JSON in ``folder``; returns the README written beside them."""
    found = sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda row: list(MODULES).index(row["row"])
    )
    lines = [HEAD, "| row | goal | found | repetitions | kind |", "|:--|:--|:--|--:|:--|"]
    for row in found:
        lines += _lines(row)
    lines += ["", "## How"]
    for row in found:
        lines += ["", f"**{row['title']}.** {row['setup']} `{row['command']}`; {row['machine']}, {row['date']}.{_note(row)}"]
    path = folder / "README.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def _note(row: dict[str, Any]) -> str:
    """What somebody wrote into the JSON of a row afterwards."""
    return f" **{row['note']}**" if "note" in row else ""


def _lines(row: dict[str, Any]) -> list[str]:
    if row["status"] != "measured":
        reason = f": {row['reason'].strip().splitlines()[0].replace('|', '/')}" if "reason" in row else ""
        return [f"| {row['title']} | | {row['status']}{reason} | | |"]
    return [
        f"| {row['title']}: {f['name']} | {_goal(f)} | {_found(f)} | {len(f['values'])} | {f['kind']} |" for f in row["figures"]
    ]


def _goal(figure: dict[str, Any]) -> str:
    if figure["goal"] is None:
        return ""
    return f"{figure['bound']} {figure['goal']:g} {figure['unit']}".strip()


def _found(figure: dict[str, Any]) -> str:
    values = figure["values"]
    text = f"{figure['median']:.3g} {figure['unit']}".strip()
    if len(values) > 1:
        text += f" ({min(values):.3g} to {max(values):.3g})"
    return text if figure["met"] is None else f"**{text}**" if figure["met"] else f"{text}, missed"
