"""Whose CLAP hears a sweep's clips: ``mini``, or that of a pipeline, checked before anything starts. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from timbre_ray.backbones import HUB_ID, existing
from timbre_ray.specs import TrialSpec

#: Of a pipeline: its ClapModel, and what reads text and audio for it.
PARTS = ("text_encoder", "tokenizer", "feature_extractor")
MIN_CLIPS = 2
"""Of each split: CLAP may hear a clip as one row (10 s of the published one), and a distance needs two."""


def resolved_clap(spec: TrialSpec, folder: Path, place: Callable[[str], str]) -> tuple[TrialSpec, list[str]]:
    """The same trial with an absolute path of its CLAP, and what is wrong with that folder.

    folder: of the sweep's YAML; a relative path is looked up there first, then in the working folder.
    place: dotted key -> dotted key where it stands in the YAML.
    """
    wanted = spec.evaluate.clap
    if wanted == "mini":
        return spec, []
    where = f"{place('evaluate.clap')}={wanted!r}"
    if problem := unheard("clap", spec, place):
        return spec, [f"{where}: {problem}"]
    found = existing(wanted, folder)
    if found is None:
        known = HUB_ID.fullmatch(wanted)
        return spec, [] if known else [f"{where}: no such folder, and no hub id (owner/name) of a pipeline with a CLAP"]
    missing = [f"{part}/" for part in PARTS if not (found / part).is_dir()]
    if missing:
        return spec, [f"{where}: no {' and no '.join(missing)} in {found}; a diffusers pipeline with a CLAP is needed"]
    if _fuses(found / "feature_extractor" / "preprocessor_config.json"):
        return spec, [f"{where}: its feature extractor fuses long clips (truncation: fusion); name a CLAP that hears one window"]
    return dataclasses.replace(spec, evaluate=dataclasses.replace(spec.evaluate, clap=str(found))), []


def unheard(embedder: str, spec: TrialSpec, place: Callable[[str], str]) -> str | None:
    """What is wrong where weights are named for an embedder that nothing asks for."""
    if embedder in spec.evaluate.fad:
        return None
    return f"{place('evaluate.fad')}={list(spec.evaluate.fad)} has no {embedder}; add it or name no weights"


def _fuses(config: Path) -> bool:
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("truncation") == "fusion"
