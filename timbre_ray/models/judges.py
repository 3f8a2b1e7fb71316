"""The models that score, apart from the backbone's: an evaluation actor that hears with VGGish alone imports neither diffusers
nor transformers, which takes half its start."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from timbre_ray.backbones import MINI
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.classifier import InstrumentClassifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judges:
    """What scores, whatever backbone is scored; never trained in a trial."""

    audiomae: AudioMAE  # what the classifier listens through
    classifier: InstrumentClassifier


@functools.lru_cache(maxsize=2)
def load_judges(device: str = "cpu", classifier: str = "mini") -> Judges:
    """The miniature's classifier or one's own (a folder), with the AudioMAE that it knows."""
    folder = MINI / "classifier" if classifier == "mini" else Path(classifier)
    audiomae = MINI / "audiomae" if classifier == "mini" else folder / "audiomae"
    return Judges(
        audiomae=AudioMAE.from_pretrained(audiomae).to(device).requires_grad_(False),
        classifier=InstrumentClassifier.from_pretrained(folder).to(device).requires_grad_(False),
    )
