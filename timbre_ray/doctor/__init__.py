"""What a sweep lacks on this machine, found before a night of GPU time is lost. One function a check, in one table.

Nothing is fetched, trained or written; torch is imported only by the checks that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timbre_ray.doctor import content, machine
from timbre_ray.doctor.case import Case, Finding
from timbre_ray.sweep import Sweep, SweepError

CHECKS: Mapping[str, Callable[[Case], Finding]] = {
    "GPU": machine.gpu,
    "GPU memory": machine.memory,
    "weights": machine.weights,
    "disk": machine.disk,
    "folders": machine.folders,
    "classes": content.classes,
    "token": content.token,
    "recordings": content.recordings,
    "embedders": content.embedders,
    "distances": content.distances,
}


def examine(sweep: Sweep) -> dict[str, Finding]:
    """Every check, by name."""
    case = Case(sweep=sweep)
    return {name: check(case) for name, check in CHECKS.items()}


def unusable(error: SweepError) -> dict[str, Finding]:
    """A sweep that cannot be read: each mistake a finding, and no check can say more."""
    remedy = f"correct {error.path}"
    return {f"sweep, {i + 1}": Finding(level="error", found=problem, remedy=remedy) for i, problem in enumerate(error.problems)}
