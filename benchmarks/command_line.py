"""Row 3, second part: how soon the command line answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.measure import ENVIRONMENT, ROOT, Figure, Row

SCRIPT = "from timbre_ray.cli import main; main()"
COMMANDS = {"--help": (("--help",), 0.3), "plan": (("plan", "sweeps/mini-ablation.yaml"), 2.0)}


def imported(words: Sequence[str]) -> set[str]:
    """Modules that a command imports."""
    result = _run("-X", "importtime", "-c", SCRIPT, *words)
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)


def _seconds(*words: str) -> float:
    start = time.perf_counter()
    _run(*words)
    return time.perf_counter() - start


def measure(repeats: int) -> list[Figure]:
    figures = []
    for name, (words, goal) in COMMANDS.items():
        _run("-c", SCRIPT, *words)  # compiles what no process has compiled yet
        spent = tuple(_seconds("-c", SCRIPT, *words) for _ in range(repeats))
        figures.append(Figure(name=name, values=spent, unit="s", goal=goal, bound="at most"))
        of_torch = sum(module.partition(".")[0] == "torch" for module in imported(words))
        figures.append(Figure(name=f"modules of torch in {name}", values=(of_torch,), goal=0, bound="at most"))
    bare = tuple(_seconds("-c", "pass") for _ in range(repeats))
    return [*figures, Figure(name="Python alone, for comparison", values=bare, unit="s")]


ROW = Row(
    name="command-line", title="How soon the command line answers", measure=measure,
    setup="`timbre-ray --help` and `timbre-ray plan sweeps/mini-ablation.yaml` (72 trials), whole processes, warm disk.",
)  # fmt: skip
