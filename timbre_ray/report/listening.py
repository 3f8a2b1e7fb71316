"""Clips to listen to: the same clip index (so the same initial noise) of every arm, at one loudness, as data URIs."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from timbre_ray.report.results import Results
from timbre_ray.store import Store

CLIP = 0
PROMPTS = ("solo", "duet", "partner")
LOUDEST_RMS = 0.1
"""Linear, full scale = 1: clips are never raised above -20 dBFS."""
HEADROOM_PEAK = 0.89
"""The codec may overshoot a sample's peak by about 1 dB."""
SILENCE_RMS = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """One clip; ``uri`` None: ``note`` says why there is nothing to hear."""

    label: str
    uri: str | None
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListeningRow:
    label: str
    players: Mapping[str, Player]
    """By column: real, solo, duet, partner."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listening:
    target: str
    prompts: Mapping[str, str]
    """Prompt text of each column, as the clips' own record has it."""
    rows: tuple[ListeningRow, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    samples: np.ndarray
    sample_rate_hz: int
    prompt: str


def gather(results: Results, store_root: Path) -> tuple[Listening, ...]:
    """One listening table a target: the real clip, the untouched backbone, then each arm's first finished seed at its end."""
    store = Store(store_root)
    tables = []
    for target in results.targets:
        found: dict[str, dict[str, _Found | str]] = {}
        real = results.baselines.get(target, {}).get("audio", {}).get("real")
        if real:
            found["a recording"] = {"solo": _read(store, "encode", real, f"train_{CLIP:04d}.flac")}
        if results.untouched:
            evaluation = _evaluation(results, results.untouched.label, target, first_step=True)
            if evaluation and evaluation["step"] == 0:
                found["untouched backbone"] = _clips(store, evaluation)
        for arm in results.arms:
            evaluation = _evaluation(results, arm.label, target, first_step=False)
            if evaluation:
                found[arm.label] = _clips(store, evaluation)
        if found:
            tables.append(_level(target, found))
    return tuple(tables)


def _evaluation(results: Results, arm: str, target: str, *, first_step: bool) -> Mapping[str, Any] | None:
    own = results.frame[(results.frame["arm"] == arm) & (results.frame["target"] == target)].sort_values("seed")
    if own.empty:
        return None
    trial = next(t for t in results.trials if t["trial_id"] == own["trial_id"].iloc[0])
    choose = min if first_step else max
    return choose(trial["evaluations"], key=lambda evaluation: evaluation["step"])


def _clips(store: Store, evaluation: Mapping[str, Any]) -> dict[str, _Found | str]:
    keys = evaluation.get("audio", {})
    return {prompt: _read(store, "generate", keys[prompt], f"clip_{CLIP:04d}.flac") for prompt in PROMPTS if prompt in keys}


def _read(store: Store, stage: str, key: str, name: str) -> _Found | str:
    """The clip, or a note: a report made away from its store still has its tables."""
    if not store.has(stage, key):
        return "not in the store"
    folder = store.get(stage, key).folder
    samples, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
    described = folder / "clips.json"
    prompt = json.loads(described.read_text(encoding="utf-8")).get("prompt", "") if described.exists() else ""
    return _Found(samples=samples.mean(axis=1), sample_rate_hz=rate, prompt=str(prompt))


def _level(target: str, found: Mapping[str, Mapping[str, _Found | str]]) -> Listening:
    """Every clip of the table at one RMS, the highest at which none clips."""
    clips = [clip for row in found.values() for clip in row.values() if isinstance(clip, _Found) and _rms(clip) > SILENCE_RMS]
    level = min([LOUDEST_RMS, *(HEADROOM_PEAK * _rms(clip) / float(np.abs(clip.samples).max()) for clip in clips)])
    rows = []
    for label, row in found.items():
        players = {prompt: _player(f"{label}, {prompt}", clip, level) for prompt, clip in row.items()}
        rows.append(ListeningRow(label=label, players=players))
    prompts = {
        prompt: clip.prompt for row in found.values() for prompt, clip in row.items() if isinstance(clip, _Found) and clip.prompt
    }
    return Listening(target=target, prompts=prompts, rows=tuple(rows))


def _player(label: str, clip: _Found | str, level: float) -> Player:
    if isinstance(clip, str):
        return Player(label=label, uri=None, note=clip)
    rms = _rms(clip)
    if rms <= SILENCE_RMS:
        return Player(label=label, uri=None, note="silence")
    return Player(label=label, uri=_ogg_uri(clip.samples * (level / rms), clip.sample_rate_hz), note="")


def _rms(clip: _Found) -> float:
    return math.sqrt(float(np.mean(np.square(clip.samples, dtype=np.float64))))


def _ogg_uri(samples: np.ndarray, sample_rate_hz: int) -> str:
    """Opus in Ogg: 10.4 kB for 2.56 s at 16 kHz as measured, where Vorbis at its default takes 11 to 16 kB."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="OGG", subtype="OPUS")
    return "data:audio/ogg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
