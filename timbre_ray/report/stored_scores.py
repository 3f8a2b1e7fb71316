"""The score behind an evaluation, found by the audio that it heard and the recordings that this was held against.

Both, for targets share the untouched model's audio. Not by its key: the recordings and weights that went into a key may be elsewhere, or others, by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timbre_ray.store import Store

Manifest = Mapping[str, Any]


def manifests(store: Store) -> list[Manifest]:
    """Of every score in the store: read once, for all evaluations."""
    return [manifest for manifest in store.manifests() if manifest["stage"] == "score"]


def find(scores: Sequence[Manifest], audio: Mapping[str, str], trial: Mapping[str, Any]) -> list[Manifest]:
    """Scores of this audio as ``trial`` (a record of the ledger) has it judged, the newest first; several where the classifier's
    weights have changed."""
    evaluate = trial["spec"]["evaluate"]
    heard = {"audio": dict(audio), "encode_key": recordings_of(trial), "embedders": list(evaluate["fad"])}
    found = []
    for manifest in scores:
        spec = manifest["description"]["spec"]
        own = {"audio": dict(spec["audio"]), "encode_key": spec["encode_key"], "embedders": spec["embedders"]}
        if own == heard and manifest["description"]["classifier"] == evaluate["classifier"]:
            found.append(manifest)
    return sorted(found, key=lambda manifest: manifest["created"], reverse=True)


def recordings_of(trial: Mapping[str, Any]) -> str | None:
    """Key of the trial's encoded recordings; None in a record without stages."""
    return next((stage["key"] for stage in trial["stages"] if stage["stage"] == "encode"), None)
