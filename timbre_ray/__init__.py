"""Teach AudioLDM2 the timbre of an instrument, in many ways at once, and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AudioLDM2Pipeline

__all__ = ["load"]


def load(source: str, *, results: Path | str = "results", storage: Path | str | None = None) -> AudioLDM2Pipeline:
    """The model of a finished trial, adapters merged: ``timbre_ray.load("large-gpt2-lora")("A recording of a sks flute solo.")``.

    source: a trial's id, or an arm (its first seed). results: folder that holds the results of the sweeps. storage: folder of
    the store (default: the sweep's own). Raises ValueError for a name or for weights that are not there.
    """
    from timbre_ray import finished
    from timbre_ray.stages import TrialStages

    trial = finished.trained(source, None if storage is None else str(storage), Path(results))
    return TrialStages(trial.spec, trial.store, "cpu").pipeline(trial.step)
