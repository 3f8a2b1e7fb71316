"""The score behind an evaluation, found by the audio that it heard and the recordings that this was held against.

Both, for targets share the untouched model's audio. Not by its key: the recordings and weights that went into a key may be
elsewhere, or others, by now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from timbre_ray.identity import JUDGES
from timbre_ray.store import Store

Manifest = Mapping[str, Any]
Place = tuple[frozenset[tuple[str, str]], str | None, tuple[str, ...], tuple[str, ...]]
"""Audio by prompt, recordings, embedders, judges."""
Scores = Mapping[Place, Sequence[Manifest]]
"""The newest first; several where a judge's weights have changed."""


def manifests(store: Store) -> Scores:
    """Of every score in the store: read once, for all evaluations."""
    found: dict[Place, list[Manifest]] = defaultdict(list)
    for manifest in store.manifests("score"):
        spec, judges = manifest["description"]["spec"], judges_of(manifest["description"])
        found[_place(dict(spec["audio"]), spec["encode_key"], spec["embedders"], judges)].append(manifest)
    return {place: sorted(some, key=lambda manifest: manifest["created"], reverse=True) for place, some in found.items()}


def find(scores: Scores, audio: Mapping[str, str], trial: Mapping[str, Any]) -> Sequence[Manifest]:
    """Scores of this audio as ``trial`` (a record of the ledger) has it judged."""
    evaluate = trial["spec"]["evaluate"]
    return scores.get(_place(audio, recordings_of(trial), evaluate["fad"], judges_of(evaluate)), ())


def _place(audio: Mapping[str, str], recordings: str | None, embedders: Sequence[str], judges: tuple[str, ...]) -> Place:
    return frozenset(audio.items()), recordings, tuple(embedders), judges


def judges_of(evaluate: Mapping[str, Any]) -> tuple[str, ...]:
    """What judged, as a record's ``evaluate`` or a score's description names it; they say nothing of one from before it could be
    named."""
    return tuple(evaluate.get(name, "mini") for name in JUDGES)


def recordings_of(trial: Mapping[str, Any]) -> str | None:
    """Key of the trial's encoded recordings; None in a record without stages."""
    return next((stage["key"] for stage in trial["stages"] if stage["stage"] == "encode"), None)
