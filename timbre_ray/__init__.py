"""Teach AudioLDM2 the timbre of an instrument, in many ways at once, and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AudioLDM2Pipeline

__all__ = ["load"]


def load(
    source: str, *, sweep: str | None = None, target: str | None = None, results: Path | str = "results",
    storage: Path | str | None = None,
) -> AudioLDM2Pipeline:  # fmt: skip
    """The model of a finished trial, adapters merged: ``timbre_ray.load("large-gpt2-lora")("A recording of a sks flute solo.")``.

    source: a trial's id or the end of it that reports print, or an arm (its first seed). sweep, target: names that say which,
    where several have that arm. results: folder that holds the results of the sweeps. storage: folder of the store (default: the
    sweep's own). Raises ValueError for a name or for weights that are not there, and for an arm that stands for several models.
    """
    from timbre_ray import finished
    from timbre_ray.stages import TrialStages

    place = None if storage is None else str(storage)
    trial = finished.trained(source, place, Path(results), sweep=sweep, target=target)
    return TrialStages(trial.spec, trial.store, "cpu").pipeline(trial.step)
