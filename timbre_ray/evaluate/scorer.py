"""Scores published audio: a request names artifacts of the store, the answer is an artifact of the store."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from timbre_ray.data.clips import SILENCE_RMS, read_clips, recorded_samples
from timbre_ray.data.features import HOP, SAMPLE_RATE_HZ, cut_windows, normalise_waveform
from timbre_ray.evaluate.clap import clap_a, clap_t
from timbre_ray.evaluate.frechet import clip_distances, frechet_distance, frechet_infinity, infinity_shortfall
from timbre_ray.evaluate.kernel import kernel_distance, kernel_interval
from timbre_ray.evaluate.ranking import mean_confidences, rank
from timbre_ray.identity import JUDGES, weights_of
from timbre_ray.models.embedders import load_embedder
from timbre_ray.models.judges import Judges, load_judges
from timbre_ray.specs import EvaluateSpec, TrialSpec
from timbre_ray.stage_keys import ScoreRequest, StageKeys
from timbre_ray.store import DamagedArtifactError, Store

SEED = 0  # of resampling: the same draws in every arm
#: Samples of a padded recording that are heard at least: VGGish needs 0.975 s.
SHORTEST = SAMPLE_RATE_HZ


class Pending(Protocol):
    """A score under way."""

    def done(self) -> bool: ...

    def result(self) -> dict[str, Any]: ...


def embed_each(name: str, waveform: Tensor, batch_size: int = 16, weights: str = "mini") -> np.ndarray:
    """waveform: (num_clips, samples) -> embeddings (num_clips, windows, dim), float64."""
    embedder = load_embedder(name, weights=weights)
    return torch.cat([embedder(part) for part in waveform.split(batch_size)]).double().numpy()


def embed_clips(name: str, waveform: Tensor, batch_size: int = 16, weights: str = "mini") -> np.ndarray:
    """waveform: (num_clips, samples) -> embeddings (num_clips * windows, dim), float64."""
    return np.concatenate(embed_each(name, waveform, batch_size, weights))


@functools.lru_cache(maxsize=8)
def embed_references(name: str, target: Path, weights: str) -> dict[str, np.ndarray]:
    """Split -> embeddings of the recordings in ``target``, an encode artifact's folder: what it holds never changes, and every
    score of a sweep hears the same, so they are embedded once a process.
    """
    return {split: embed_recordings(name, read_clips(target, split), weights=weights) for split in ("held_out", "train")}


def embed_recordings(name: str, waveform: Tensor, weights: str = "mini") -> np.ndarray:
    """``embed_clips`` of recordings without the padding that fills their last windows: silence that nobody recorded would be a
    distance of every model. (The shipped flute's own clips, its held-out windows half filled: a FAD of 63 with it, 12 without.)
    """
    by_length: dict[int, list[Tensor]] = {}
    for clip in waveform:
        length = max(recorded_samples(clip), min(SHORTEST, len(clip)))
        by_length.setdefault(length, []).append(clip[:length])
    return np.concatenate([embed_clips(name, torch.stack(clips), weights=weights) for clips in by_length.values()])


@torch.no_grad()
def classify_clips(judges: Judges, waveform: Tensor, batch_size: int = 32) -> np.ndarray:
    """waveform: (num_clips, samples) -> confidences (num_clips, num_classes), float64.

    Clips longer than what the classifier hears at once (2.56 s) are heard in windows, whose confidences are averaged. It learnt
    from windows that sound, at peak 0.5: so are these, as the end of a piano's note would count as no piano.
    """
    heard = cut_windows(waveform, judges.audiomae.config["num_frames"] * HOP)
    sounds = heard.square().mean(2).sqrt() >= SILENCE_RMS
    sounds |= ~sounds.any(1, keepdim=True)  # a clip without any is heard as it is
    if heard.shape[1] > 1:  # a clip of one window is at peak 0.5 already
        heard = normalise_waveform(heard)
    parts = [judges.classifier.confidences(judges.audiomae.loa_of_waveform(w)) for w in heard[sounds].split(batch_size)]
    found = torch.zeros(*heard.shape[:2], len(judges.classifier.classes))
    found[sounds] = torch.cat(parts).cpu()
    return (found.sum(1) / sounds.sum(1, keepdim=True)).double().numpy()


def score_clips(request: ScoreRequest, store: Store) -> dict[str, Any]:
    """Distances, ranking and confidences of one model at one step. Any clip that cannot be scored fails the whole score."""
    stage = request.stage()

    def produce(folder: Path) -> None:
        (folder / "scores.json").write_text(json.dumps(compute_scores(request, store), indent=2) + "\n")

    description = {**stage.description(), **{name: getattr(request, name) for name in JUDGES}}
    try:
        artifact = store.get_or_compute(stage.name, stage.key, produce, description=description)
    except DamagedArtifactError:
        embed_references.cache_clear()  # they may be of the damaged recordings
        raise
    return json.loads(artifact.file("scores.json").read_text())


def compute_scores(request: ScoreRequest, store: Store) -> dict[str, Any]:
    """What scores.json holds, computed anew from the clips in the store."""
    judges = load_judges(classifier=request.classifier)
    target = store.get("encode", request.encode_key).folder
    clips = {prompt: read_clips(store.get("generate", key).folder) for prompt, key in request.audio}
    for prompt, waveform in clips.items():
        _check(prompt, waveform, request.num_clips)
    references = {name: embed_references(name, target, weights_of(name, request)) for name in request.embedders}
    found = [_distances(name, request, clips["solo"], references[name]) for name in request.embedders]
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, one in zip(request.embedders, found, strict=True):
        suffix = "" if one is found[0] else f"/{name}"
        metrics |= {f"{metric}{suffix}": value for metric, value in one.metrics.items()}
        intervals |= {f"{metric}{suffix}": value for metric, value in one.intervals.items()}
    if "clap" in request.embedders:
        audio = found[request.embedders.index("clap")].clips
        prompt = _prompt_of(dict(request.audio)["solo"], store)
        metrics |= _similarities(prompt, audio, references["clap"]["held_out"], request.clap)
    classes = judges.classifier.classes
    confidences = {p: mean_confidences(classes, classify_clips(judges, w)) for p, w in clips.items()}
    metrics["solo_target_confidence"] = confidences["solo"][request.target_class]
    metrics["duet_target_confidence"] = confidences["duet"][request.target_class]
    metrics["duet_partner_confidence"] = confidences["duet"][request.partner]
    metrics["duet_partner_rank"] = float(rank(request.partner, confidences["duet"]))
    metrics["partner_confidence"] = confidences["partner"][request.partner]
    metrics["partner_rank"] = float(rank(request.partner, confidences["partner"]))
    return {
        "num_clips": len(clips["solo"]), "metrics": metrics, "intervals": intervals, "outliers": found[0].outliers,
        "confidences": confidences,
    }  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Distances:
    """What one embedder finds of the solo clips."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 %, over clips."""
    outliers: list[dict[str, float]]
    """Each clip's own distance to the held-out recordings, the farthest first."""
    clips: np.ndarray
    """Embeddings of the solo clips (num_clips * windows, dim)."""


def _distances(name: str, request: ScoreRequest, solo: Tensor, references: dict[str, np.ndarray]) -> _Distances:
    """references: split -> embeddings (num_clips * windows, dim)."""
    clips = embed_each(name, solo, weights=weights_of(name, request))
    held_out, metrics = references["held_out"], {}
    for split, reference in references.items():
        metrics[f"fad_{split}"] = frechet_distance(np.concatenate(clips), reference)
        metrics[f"kad_{split}"] = kernel_distance(np.concatenate(clips), reference)
    if infinity_shortfall(*clips.shape) is None:
        metrics["fad_inf_held_out"] = frechet_infinity(clips, held_out, seed=SEED)
    own = clip_distances(clips, held_out)
    return _Distances(
        metrics=metrics, intervals={"kad_held_out": kernel_interval(clips, held_out, seed=SEED)},
        outliers=[{"clip": int(i), "fad_held_out": float(own[i])} for i in np.argsort(-own, kind="stable")],
        clips=np.concatenate(clips),
    )  # fmt: skip


def _similarities(prompt: str, audio: np.ndarray, held_out: np.ndarray, weights: str) -> dict[str, float]:
    """audio, held_out: CLAP's embeddings of the solo clips and of the recordings."""
    text = load_embedder("clap", weights=weights).embed_text([prompt])[0].double().numpy()
    return {"clap_t": clap_t(audio, text), "clap_a": clap_a(audio, held_out)}


def _prompt_of(generate_key: str, store: Store) -> str:
    return json.loads(store.get("generate", generate_key).file("clips.json").read_text())["prompt"]


def _check(prompt: str, waveform: Tensor, num_clips: int) -> None:
    """A clip that is missing, silent or not finite fails the whole score."""
    if len(waveform) != num_clips:
        raise ValueError(f"score: prompt {prompt!r} has {len(waveform)} clips, not {num_clips}")
    broken = ~torch.isfinite(waveform).all(1) | (waveform.abs().amax(1) == 0)
    if broken.any():
        raise ValueError(f"score: clips {broken.nonzero().flatten().tolist()} of prompt {prompt!r} are silent or not finite")


def score_floor(spec: TrialSpec, store: Store) -> dict[str, Any]:
    """The real-versus-real row of the target, which is encoded already: up to ``num_clips`` training clips against the held-out
    ones -> clips used, metrics, key of the audio.
    """
    key = StageKeys(spec).encode.key
    num_clips, metrics = compute_floor(key, spec.clips.target_class, spec.evaluate, store)
    return {"num_clips": num_clips, "metrics": metrics, "audio": {"real": key}}


def compute_floor(encode_key: str, target_class: str, evaluate: EvaluateSpec, store: Store) -> tuple[int, dict[str, float]]:
    """-> clips used, metrics."""
    judges = load_judges(classifier=evaluate.classifier)
    target = store.get("encode", encode_key).folder
    real = (read_clips(target, "train")[: evaluate.num_clips], read_clips(target, "held_out"))
    means = mean_confidences(judges.classifier.classes, classify_clips(judges, real[1]))
    first = evaluate.fad[0]
    embedded = [embed_recordings(first, clips, weights_of(first, evaluate)) for clips in real]
    metrics = {"fad_held_out": frechet_distance(*embedded), "kad_held_out": kernel_distance(*embedded)}
    if "clap" in evaluate.fad:
        metrics["clap_a"] = clap_a(*(embed_recordings("clap", clips, evaluate.clap) for clips in real))
    return len(real[0]), {**metrics, "solo_target_confidence": means[target_class]}
