"""Teach AudioLDM2 the timbre of an instrument, in many ways at once, and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AudioLDM2Pipeline

__all__ = ["load"]


def load(
    source: str, *, sweep: str | None = None, target: str | None = None, step: int | None = None,
    results: Path | str = "results", storage: Path | str | None = None,
) -> AudioLDM2Pipeline:  # fmt: skip
    """The model of a finished trial, adapters merged: ``timbre_ray.load("large-gpt2-lora")("A recording of a sks flute solo.")``.

    source: a trial's id or the end of it that reports print, or an arm (its first seed). sweep, target: names that say which,
    where several have that arm. step: a scored one (default: the last). results: folder that holds the results of the sweeps.
    storage: folder of the store (default: the sweep's own). The pipeline is the caller's own: whatever becomes of it, another
    that is loaded is as it was trained. Raises ValueError for a name, a step or weights that are not there, and for an arm that
    stands for several models; FileNotFoundError for a ``storage`` that is no store.
    """
    from timbre_ray import finished
    from timbre_ray.models.backbone import load_backbone
    from timbre_ray.stages import TrialStages

    place = None if storage is None else str(storage)
    trial = finished.trained(source, place, Path(results), sweep=sweep, target=target, step=step)
    load_backbone.cache_clear()
    try:
        return TrialStages(trial.spec, trial.store, "cpu", recordings=trial.recordings).pipeline(trial.step)
    finally:
        load_backbone.cache_clear()  # trials share their backbone; what is handed out is shared with nobody
