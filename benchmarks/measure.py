"""What a row measures, and how: both sides in one run, in turns."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
#: One thread for every library that asks the environment.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity of a row, once a repetition."""

    name: str
    values: tuple[float, ...]
    """Ratios, each of two neighbouring runs; or plain quantities."""
    unit: str = ""
    """Empty for a ratio."""
    goal: float | None = None
    bound: Literal["at least", "at most"] = "at least"
    kind: Literal["measured", "computed"] = "measured"
    sides: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    """What the ratios were taken from, with the unit in the name."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.bound == "at least" else self.median <= self.goal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the goals."""

    name: str
    title: str
    setup: str
    """What both sides do, and with how much of it."""
    measure: Callable[[int], list[Figure]]
    """Repetitions -> figures."""
    needs_gpu: bool = False
    limit_s: int = 900
    """A row that takes longer is stopped and counted as failed."""


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both sides ``repeats`` times, the one that goes first changing, so that a drift of the machine meets both alike."""
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for i in range(repeats):
        order = [("ours", ours), ("theirs", theirs)]
        for name, run in order if i % 2 == 0 else order[::-1]:
            found[name].append(run())
    return tuple(found["ours"]), tuple(found["theirs"])


def seconds(run: Callable[[], Any]) -> Callable[[], float]:
    """The same call, timed."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


def speedup(name: str, ours_s: Sequence[float], theirs_s: Sequence[float], goal: float | None) -> Figure:
    """How many times faster: their seconds over ours, pair by pair."""
    ratios = tuple(t / o for o, t in zip(ours_s, theirs_s, strict=True))
    return Figure(name=name, values=ratios, goal=goal, sides={"ours_s": tuple(ours_s), "theirs_s": tuple(theirs_s)})


def child(*words: str) -> dict[str, Any]:
    """Runs ``python -m WORDS`` in a process of its own; its last line of output is JSON. Raises RuntimeError if it fails."""
    command = [sys.executable, "-m", *words]
    result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"python -m {' '.join(words)} ended with {result.returncode}: {result.stderr.strip()[-1000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
