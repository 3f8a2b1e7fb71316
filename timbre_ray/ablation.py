"""Arms made of factors that are on or off: every combination, each factor alone, or all but one.

    ablation:
      design: factorial
      factors:
        teacher: {teacher: {epochs: 50}}
        prior: {dreambooth: {method: prior}}

makes the arms ``baseline``, ``teacher``, ``prior`` and ``teacher+prior``: what ``arms`` would make of the same settings, under
the same keys. An arm is named by the factors that it has, whatever the design, so that a design that grows keeps its trials.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from timbre_ray.specs import _Strict
from timbre_ray.sweep_yaml import flatten

BASELINE = "baseline"
"""Name of the arm without any factor."""
JOIN = "+"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMPARABLE = ("clips", "evaluate", "seed")
"""Groups of settings that must be the same in all arms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationSpec(_Strict):
    """Instead of ``arms``: factors, each on or off, and which of their combinations are run. The report has their effects."""

    factors: Mapping[str, Mapping[str, Any]]
    """Factor -> the settings that it changes in base where it is on. Factors that are on together must change different ones."""
    design: Literal["factorial", "add_one", "leave_one_out"] = "factorial"
    """factorial: every combination (2 to the number of factors); add_one: the baseline, and each factor alone; leave_one_out: all
    factors together, which should be the winner so far, and all but each."""

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("factors={}: an ablation needs at least one factor")
        for name, change in self.factors.items():
            if not _NAME.fullmatch(name) or name == BASELINE:
                words = f"a name of letters (A to Z, a to z), digits and . _ - is needed, other than {BASELINE}"
                raise ValueError(f"factors.{name}={name!r}: {words}; arms are named by it")
            for key, value in flatten(change):
                if key.split(".")[0] in _COMPARABLE:
                    words = "arms that differ in it cannot be compared; use base or grid"
                    raise ValueError(f"factors.{name}.{key}={value!r}: {words}")
        for one, other, key in self._conflicts():
            value = dict(flatten(self.factors[other]))[key]
            words = f"the factor {one!r} sets this key too, and an arm has both; take one of them out, or use design: add_one"
            raise ValueError(f"factors.{other}.{key}={value!r}: {words}")

    def _conflicts(self) -> Iterator[tuple[str, str, str]]:
        keys = {name: dict(flatten(change)) for name, change in self.factors.items()}
        for on in self.arms.values():
            for one, other in itertools.combinations(on, 2):
                yield from ((one, other, key) for key in keys[other] if key in keys[one])

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """Name -> the factors that are on; the arm that the others are compared with comes first."""
        names = tuple(self.factors)
        match self.design:
            case "factorial":
                chosen = [on for size in range(len(names) + 1) for on in itertools.combinations(names, size)]
            case "add_one":
                chosen = [(), *((name,) for name in names)]
            case "leave_one_out":
                chosen = [names, *(tuple(other for other in names if other != name) for name in names)]
        return {arm_name(on): on for on in chosen}


def arm_name(on: Sequence[str]) -> str:
    return JOIN.join(on) or BASELINE


def idle(ablation: AblationSpec, keys: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong where two arms are one trial. keys: (arm, key of its trial) at one point of the grid."""
    problems, seen = [], dict[str, str]()
    for arm, key in keys:
        other = seen.setdefault(key, arm)
        if other != arm:
            factors = sorted({*ablation.arms[arm]} ^ {*ablation.arms[other]})
            problems.append(
                f"ablation.factors.{factors[0]}: changes nothing ({other} and {arm} are one and the same trial); base or grid "
                "sets the same, so change it there or take the factor out"
            )
    return problems
