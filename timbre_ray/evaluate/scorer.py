"""Scores published audio: a request names artifacts of the store, the answer is an artifact of the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from timbre_ray.data.clips import read_clips
from timbre_ray.data.features import HOP, cut_windows
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.kernel import kernel_distance
from timbre_ray.evaluate.ranking import mean_confidences, rank
from timbre_ray.models.backbone import Judges, load_judges
from timbre_ray.models.embedders import load_embedder
from timbre_ray.stage_keys import ScoreRequest
from timbre_ray.store import Store


class Pending(Protocol):
    """A score under way."""

    def done(self) -> bool: ...

    def result(self) -> dict[str, Any]: ...


def embed_clips(name: str, waveform: Tensor, batch_size: int = 16) -> np.ndarray:
    """waveform: (num_clips, samples) -> embeddings (num_clips * windows, dim), float64."""
    embedder = load_embedder(name)
    return torch.cat([embedder(part) for part in waveform.split(batch_size)]).flatten(0, 1).double().numpy()


@torch.no_grad()
def classify_clips(judges: Judges, waveform: Tensor, batch_size: int = 32) -> np.ndarray:
    """waveform: (num_clips, samples) -> confidences (num_clips, num_classes), float64.

    Clips longer than what the classifier hears at once (2.56 s) are heard in windows, whose confidences are averaged.
    """
    length = judges.audiomae.config["num_frames"] * HOP
    heard = cut_windows(waveform, length)
    parts = [judges.classifier.confidences(judges.audiomae.loa_of_waveform(w)) for w in heard.flatten(0, 1).split(batch_size)]
    return torch.cat(parts).unflatten(0, heard.shape[:2]).mean(1).double().numpy()


def score_clips(request: ScoreRequest, store: Store) -> dict[str, Any]:
    """FAD, ranking and confidences of one model at one step. Any clip that cannot be scored fails the whole score."""
    stage = request.stage()

    def produce(folder: Path) -> None:
        (folder / "scores.json").write_text(json.dumps(_score(request, store), indent=2) + "\n")

    description = {**stage.description(), "classifier": request.classifier}
    artifact = store.get_or_compute(stage.name, stage.key, produce, description=description)
    return json.loads(artifact.file("scores.json").read_text())


def _score(request: ScoreRequest, store: Store) -> dict[str, Any]:
    judges = load_judges(classifier=request.classifier)
    target = store.get("encode", request.encode_key).folder
    references = {"held_out": read_clips(target, "held_out"), "train": read_clips(target, "train")}
    clips = {prompt: read_clips(store.get("generate", key).folder) for prompt, key in request.audio}
    for prompt, waveform in clips.items():
        _check(prompt, waveform, request.num_clips)
    metrics: dict[str, float] = {}
    for i, name in enumerate(request.embedders):
        solo = embed_clips(name, clips["solo"])
        suffix = f"/{name}" if i else ""
        for split, reference in references.items():
            embedded = embed_clips(name, reference)
            metrics[f"fad_{split}{suffix}"] = frechet_distance(solo, embedded)
            metrics[f"kad_{split}{suffix}"] = kernel_distance(solo, embedded)
    classes = judges.classifier.classes
    confidences = {p: mean_confidences(classes, classify_clips(judges, w)) for p, w in clips.items()}
    metrics["solo_target_confidence"] = confidences["solo"][request.target_class]
    metrics["duet_target_confidence"] = confidences["duet"][request.target_class]
    metrics["duet_partner_confidence"] = confidences["duet"][request.partner]
    metrics["duet_partner_rank"] = float(rank(request.partner, confidences["duet"]))
    metrics["partner_confidence"] = confidences["partner"][request.partner]
    metrics["partner_rank"] = float(rank(request.partner, confidences["partner"]))
    return {"num_clips": len(clips["solo"]), "metrics": metrics, "confidences": confidences}


def _check(prompt: str, waveform: Tensor, num_clips: int) -> None:
    """A clip that is missing, silent or not finite fails the whole score."""
    if len(waveform) != num_clips:
        raise ValueError(f"score: prompt {prompt!r} has {len(waveform)} clips, not {num_clips}")
    broken = ~torch.isfinite(waveform).all(1) | (waveform.abs().amax(1) == 0)
    if broken.any():
        raise ValueError(f"score: clips {broken.nonzero().flatten().tolist()} of prompt {prompt!r} are silent or not finite")


def score_floor(
    encode_key: str, num_clips: int, target_class: str, embedder: str, store: Store, classifier: str = "mini"
) -> tuple[int, dict[str, float]]:
    """The real-versus-real row: up to ``num_clips`` training clips against the held-out ones -> clips used, metrics."""
    judges = load_judges(classifier=classifier)
    target = store.get("encode", encode_key).folder
    train, held_out = read_clips(target, "train")[:num_clips], read_clips(target, "held_out")
    classes = judges.classifier.classes
    means = mean_confidences(classes, classify_clips(judges, held_out))
    embedded = [embed_clips(embedder, clips) for clips in (train, held_out)]
    return len(train), {
        "fad_held_out": frechet_distance(*embedded),
        "kad_held_out": kernel_distance(*embedded),
        "solo_target_confidence": means[target_class],
    }
