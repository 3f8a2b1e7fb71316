"""What each arm is: teacher forcing, method, and the settings that differ between arms, from the trials' own specs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from timbre_ray.report.numbers import NOTHING
from timbre_ray.report.results import Results, flat

HEADERS = ("arm", "teacher forcing", "method", "what else differs")
OWN_COLUMN = frozenset({"teacher.epochs", "dreambooth.method"})
OF_ROWS = frozenset({"clips.path", "clips.held_out", "seed"})
"""Targets and seeds: what an arm is repeated over, and not what it is."""
MAX_ARMS = 40
"""Beyond so many the sweep's YAML says it in less room."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    arm: str
    teacher: str
    method: str
    others: str
    """Settings that are not the same in all arms, as ``key=value``."""

    @property
    def cells(self) -> tuple[str, ...]:
        return self.arm, self.teacher, self.method, self.others


def gather(results: Results) -> tuple[Setting, ...]:
    """One an arm, in the sweep's order; none for a search, whose trials are told by their points, and beyond MAX_ARMS."""
    if results.sweep.get("objectives") or len(results.arms) > MAX_ARMS:
        return ()
    found: dict[str, dict[str, set[str]]] = {arm.label: defaultdict(set) for arm in results.arms}
    for trial in results.trials:
        for key, value in flat(trial["spec"]):
            found[results.labels[trial["trial_id"]]][key].add(str(value))
    keys = sorted(set().union(*found.values()) - OF_ROWS - OWN_COLUMN)
    differing = [key for key in keys if len({frozenset(own[key]) for own in found.values()}) > 1]
    return tuple(
        Setting(
            arm=arm,
            teacher=_epochs(own["teacher.epochs"]),
            method=_either(own["dreambooth.method"]),
            others=", ".join(f"{key}={_either(own[key])}" for key in differing if own[key]) or NOTHING,
        )
        for arm, own in found.items()
    )


def reading(results: Results) -> str:
    """What the two main scores are, in one sentence."""
    return (
        "FAD is the Fréchet audio distance between an arm’s clips and recordings of the instrument (lower is nearer); the rank "
        f"in the duet is the place of the {results.partner} among the classifier’s classes by mean confidence (1 is best)."
    )


def _either(values: set[str]) -> str:
    return " or ".join(sorted(values))


def _epochs(values: set[str]) -> str:
    text = _either(values)
    return NOTHING if text == "0" else f"{text} epoch{'s' * (text != '1')}"
