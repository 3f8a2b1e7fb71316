"""Clips to listen to: rows are prompts and seeds, columns the recording, the untouched backbone and the arms.

All of a target's clips begin from the same noise (clip 0) and are brought to one loudness, as data URIs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timbre_ray.audio_file import open_audio
from timbre_ray.report.embedding import mel_picture_uri, ogg_uri
from timbre_ray.report.results import Results
from timbre_ray.specs import digest
from timbre_ray.store import DamagedArtifactError, Store

CLIP = 0
PROMPTS = ("solo", "duet", "partner")
"""Prompts of an evaluation; the page calls the last by the partner's name."""
RECORDING, UNTOUCHED = "a recording", "untouched backbone"
LOUDEST_RMS = 0.1
"""Linear, full scale = 1: clips are never raised above -20 dBFS."""
HEADROOM_PEAK = 0.89
"""The codec may overshoot a sample's peak by about 1 dB."""
SILENCE_RMS = 1e-5
MAX_CLIPS = 300
"""Of the arms, in the whole page: 4 MB. Beyond, fewer seeds are shown, then fewer arms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One cell; ``uri`` None: ``note`` says why there is nothing to hear."""

    label: str
    column: str
    is_arm: bool
    uri: str | None
    picture: str | None
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    kind: str
    """solo, duet or partner."""
    prompt: str
    """How the page names it."""
    text: str
    """The prompt itself."""
    seed: int
    is_first: bool
    """First seed of its prompt: the references stand here, for they are the same at every seed."""
    clips: tuple[Clip | None, ...]
    """By column; None: nothing there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listening:
    target: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    instrument: str
    """What the recording plays, as the trials' specs name it."""
    note: str
    """What is left out; empty where all is shown."""
    digest: str
    """Of the clips as they were stored: Opus files of the same clip differ from one encoding to the next."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    samples: np.ndarray
    sample_rate_hz: int
    prompt: str


_Cells = dict[tuple[str, int, str], "_Found | str"]
"""(prompt, seed, column) -> the clip, or why it is not there."""


def gather(results: Results, store: Store | Path) -> tuple[Listening, ...]:
    """One listening table a target: the real clip, the untouched backbone, then each arm's last step at every seed shown."""
    store = store if isinstance(store, Store) else Store(store)
    tables = []
    for target in results.targets:
        own = results.frame[results.frame["target"] == target]
        seeds = sorted({int(seed) for seed in own["seed"]})
        finished = set(own["arm"].unique())
        arms = [arm.label for arm in results.arms if arm.label in finished]
        room = MAX_CLIPS // (len(PROMPTS) * len(results.targets))
        shown_arms = arms[: max(1, room)]
        shown_seeds = seeds[: max(1, room // max(1, len(shown_arms)))]
        cells = dict(_references(results, store, target, shown_seeds[:1]))
        for arm in shown_arms:
            for seed in shown_seeds:
                cells |= _clips(store, _evaluation(results, results.of_arm(arm), target, seed, last=True), seed, arm)
        if cells:
            left_out = f"Showing {len(shown_seeds)} of {len(seeds)} seeds and {len(shown_arms)} of {len(arms)} arms."
            note = left_out if (len(shown_seeds), len(shown_arms)) < (len(seeds), len(arms)) else ""
            columns = [RECORDING, UNTOUCHED, *shown_arms]
            table = _table(target, columns, cells, note, results.partner, results.instrument(target))
            tables.append(table)
    return tuple(tables)


def _references(results: Results, store: Store, target: str, seeds: Sequence[int]) -> Iterator[tuple[tuple[str, int, str], Any]]:
    real = results.baselines.get(target, {}).get("audio", {}).get("real")
    untouched = results.untouched[results.untouched["target"] == target]
    for seed in seeds:
        if real:
            yield ("solo", seed, RECORDING), _read(store, "encode", real, f"train_{CLIP:04d}.flac")
        there = sorted({int(each) for each in untouched["seed"]}, key=lambda each: (each != seed, each))
        for other in there[:1]:  # of this seed where it has finished; the clips are the same at every seed
            yield from _clips(store, _evaluation(results, untouched, target, other, last=False), seed, UNTOUCHED).items()


def _evaluation(results: Results, lines: pd.DataFrame, target: str, seed: int, *, last: bool) -> Mapping[str, Any] | None:
    """The first or the last one of the first trial among these lines of ``Results.frame``."""
    own = lines[(lines["target"] == target) & (lines["seed"] == seed)]
    if own.empty:
        return None
    evaluations = results.by_id[own["trial_id"].iloc[0]]["evaluations"]
    return (max if last else min)(evaluations, key=lambda evaluation: evaluation["step"])


def _clips(store: Store, evaluation: Mapping[str, Any] | None, seed: int, column: str) -> _Cells:
    keys = evaluation.get("audio", {}) if evaluation else {}
    name = f"clip_{CLIP:04d}.flac"
    return {(prompt, seed, column): _read(store, "generate", keys[prompt], name) for prompt in PROMPTS if prompt in keys}


def _read(store: Store, stage: str, key: str, name: str) -> _Found | str:
    """The clip, or a note: a report made away from its store still has its tables."""
    if not store.has(stage, key):
        return "not in the store"
    try:
        folder = store.get(stage, key).folder
    except DamagedArtifactError:
        return "damaged in the store"
    with open_audio(folder / name) as file:
        samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    described = folder / "clips.json"
    prompt = json.loads(described.read_text(encoding="utf-8")).get("prompt", "") if described.exists() else ""
    return _Found(samples=samples.mean(axis=1), sample_rate_hz=rate, prompt=str(prompt))


def _table(target: str, wanted: Sequence[str], cells: _Cells, note: str, partner: str, instrument: str) -> Listening:
    """Every clip at one RMS, the highest at which none clips."""
    heard = [clip for clip in cells.values() if isinstance(clip, _Found) and _rms(clip) > SILENCE_RMS]
    level = min([LOUDEST_RMS, *(HEADROOM_PEAK * _rms(clip) / float(np.abs(clip.samples).max()) for clip in heard)])
    columns = tuple(column for column in wanted if any(key[2] == column for key in cells))
    rows = []
    for prompt in PROMPTS:
        name = partner if prompt == "partner" else prompt
        seeds = sorted({seed for kind, seed, _ in cells if kind == prompt})
        texts = [c.prompt for (kind, _, _), c in cells.items() if kind == prompt and isinstance(c, _Found) and c.prompt]
        for seed in seeds:
            clips = tuple(
                _clip(f"{target}, {column}, {name}, seed {seed}", column, cells.get((prompt, seed, column)), level)
                for column in columns
            )
            row = Row(kind=prompt, prompt=name, text=texts[0] if texts else "", seed=seed, is_first=seed == seeds[0], clips=clips)
            rows.append(row)
    stored = [[*k, hashlib.sha256(c.samples.tobytes()).hexdigest()] for k, c in cells.items() if isinstance(c, _Found)]
    own = digest([target, sorted(stored)])
    return Listening(target=target, columns=columns, rows=tuple(rows), instrument=instrument, note=note, digest=own)


def _clip(label: str, column: str, found: _Found | str | None, level: float) -> Clip | None:
    if found is None:
        return None
    is_arm = column not in (RECORDING, UNTOUCHED)
    silent = not isinstance(found, str) and _rms(found) <= SILENCE_RMS
    if isinstance(found, str) or silent:
        note = found if isinstance(found, str) else "silence"
        return Clip(label=label, column=column, is_arm=is_arm, uri=None, picture=None, note=note)
    samples, rate = found.samples * (level / _rms(found)), found.sample_rate_hz
    uri, picture = ogg_uri(samples, rate), mel_picture_uri(samples, rate)
    return Clip(label=label, column=column, is_arm=is_arm, uri=uri, picture=picture, note="")


def _rms(clip: _Found) -> float:
    return math.sqrt(float(np.mean(np.square(clip.samples, dtype=np.float64))))
