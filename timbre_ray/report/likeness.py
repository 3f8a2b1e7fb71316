"""What two arms differ in besides what is asked of them: where they do, their scores do not answer the question alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from timbre_ray.report.results import Arm, Results, flat, unread_of
from timbre_ray.specs import EvaluateSpec

#: Distances that depend on how many clips they are of.
DISTANCES = ("fad_", "kad_")
#: What a trial may have of its own, and what changes no score that two trials share.
_NO_MATTER = frozenset([
    "clips.path", "clips.held_out", "seed", "dreambooth.method",
    "evaluate.at_steps", "evaluate.fad", "evaluate.sampler.batch_size",
])  # fmt: skip
#: Folders, files and hub ids: the same one may lie elsewhere on another machine.
_PLACES = frozenset(["backbone.name", "backbone.audiomae", "evaluate.classifier", "evaluate.vggish", "evaluate.clap"])


def settings_apart(results: Results, one: Arm, other: Arm, *, length_matters: bool = True) -> tuple[str, ...]:
    """Settings besides method and teacher forcing that differ and that both read, in words.

    Of the teacher's only where both are taught: otherwise whether to teach is what is asked. length_matters: False where both
    are compared at a step that both have.
    """
    sides = [dict(_read(results.specs[arm.label])) for arm in (one, other)]
    if one.teacher != other.teacher or not one.teacher:
        sides = [{key: value for key, value in side.items() if not key.startswith("teacher.")} for side in sides]
    shared = [key for key in sides[0] if key in sides[1] and (length_matters or key != "dreambooth.steps")]
    return tuple(f"{key} {sides[0][key]} against {sides[1][key]}" for key in shared if sides[0][key] != sides[1][key])


def _read(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    skipped = _NO_MATTER | {f"dreambooth.{name}" for name in unread_of(spec)}
    for key, value in flat(spec):
        if key not in skipped:
            yield key, PurePath(value).name if key in _PLACES and value else value


def distances_apart(results: Results, metric: str, sides: tuple[tuple[str, int | None], tuple[str, int | None]]) -> str:
    """``20 clips against 40`` where a distance is of different numbers of clips, ``by vggish against clap`` where it is by
    different embedders; sides: label of an arm and step (None: the last)."""
    if not metric.startswith(DISTANCES):
        return ""
    embedders = [embedder_of(metric, results.specs[label]) for label, _ in sides]
    if embedders[0] != embedders[1]:
        return f"by {embedders[0]} against {embedders[1]}"
    numbers = [_words({int(number) for number in results.lines(*side, metric)["num_clips"]}) for side in sides]
    return f"{numbers[0]} clips against {numbers[1]}" if numbers[0] != numbers[1] else ""


def embedder_of(metric: str, spec: Mapping[str, Any]) -> str:
    """``fad_held_out/clap`` names its own; ``fad_held_out`` is by the first of ``evaluate.fad``."""
    name = metric.partition("/")[2]
    return name or spec.get("evaluate", {}).get("fad", EvaluateSpec.fad)[0]


def last_steps_apart(results: Results, metric: str, sides: tuple[tuple[str, int | None], tuple[str, int | None]]) -> str:
    """``last step 100 against 300`` where two arms were trained for different lengths."""
    if any(step is not None for _, step in sides):
        return ""
    steps = [_words({int(step) for step in results.lines(*side, metric)["step"]}) for side in sides]
    return f"last step {steps[0]} against {steps[1]}" if steps[0] != steps[1] else ""


def _words(numbers: set[int]) -> str:
    return "/".join(map(str, sorted(numbers)))
