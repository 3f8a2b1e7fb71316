"""A target's recordings as a run will read them: what is wrong with any, and what they amount to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from timbre_ray.audio_file import open_audio
from timbre_ray.clip_sets import SUFFIXES, ClipError, Files, find_files, prepared_files, recordings_in
from timbre_ray.data.clips import load_target, load_windows, recorded_samples
from timbre_ray.data.features import SAMPLE_RATE_HZ
from timbre_ray.data.prepare.decode import SONG_SUFFIXES
from timbre_ray.manifest import is_prepared
from timbre_ray.specs import ClipsSpec

#: Share of the windows that may be padding without a word.
MAX_PADDING = 0.2
NUM_NAMED = 3
"""Recordings that are not read, of those of a folder that are named."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """Every recording of a target, read."""

    num_files: int
    rates_hz: tuple[int, ...]
    """Distinct, ascending."""
    duration_s: float
    num_train: int
    """Windows that are trained on."""
    num_held_out: int
    """Windows that are scored against."""
    problems: tuple[str, ...]
    """What a run would fail on: files that cannot be read, silence, too little to hold out."""
    doubts: tuple[str, ...]
    """What a run would take, and should perhaps not."""


def inspect_target(spec: ClipsSpec, num_samples: int) -> Inspection:
    """num_samples: of a window at 16 kHz. Reads every file once, one at a time."""
    files = find_files(spec)
    problems, doubts, rates, duration_s = [], _left_out(spec, files), set(), 0.0
    counts, padding = {"train": 0, "held_out": 0}, 0
    for split in counts:
        for path in getattr(files, split):
            try:
                windows = load_windows((path,), num_samples)
            except ClipError as error:
                problems.append(str(error))
                continue
            counts[split] += len(windows)
            padding += sum(num_samples - recorded_samples(window) for window in windows)
            with open_audio(path) as file:
                rate_hz, file_duration_s = file.samplerate, file.frames / file.samplerate
            rates.add(rate_hz)
            duration_s += file_duration_s
            doubts += _doubts(path, rate_hz, file_duration_s, num_samples / SAMPLE_RATE_HZ)
    if (share := padding / max(1, sum(counts.values()) * num_samples)) > MAX_PADDING:
        doubts.append(f"{share:.0%} of their windows of {num_samples / SAMPLE_RATE_HZ:g} s is padding, learnt as silence")
    if not files.held_out and not problems:
        try:
            counts = dict(zip(counts, map(len, load_target(spec, num_samples)), strict=True))
        except ClipError as error:
            problems.append(str(error))
    return Inspection(
        num_files=len(files.train) + len(files.held_out), rates_hz=tuple(sorted(rates)), duration_s=duration_s,
        num_train=counts["train"], num_held_out=counts["held_out"], problems=tuple(problems), doubts=tuple(doubts),
    )  # fmt: skip


def _left_out(spec: ClipsSpec, files: Files) -> list[str]:
    """Recordings in the folders that no run reads: who put them there may believe that they count."""
    found = []
    for folder in (Path(name) for name in (spec.path, spec.held_out) if name and not name.startswith("mini:")):
        try:
            songs = recordings_in(folder, SONG_SUFFIXES, below=True)
        except ClipError as error:
            found.append(str(error))
            continue
        known = [files, prepared_files(folder)] if is_prepared(folder) else [files]
        read = {path.resolve() for one in known for path in (*one.train, *one.held_out)}
        if others := [str(path.relative_to(folder)) for path in songs if path.resolve() not in read]:
            names = ", ".join(others[:NUM_NAMED]) + (f" and {len(others) - NUM_NAMED} more" if len(others) > NUM_NAMED else "")
            what = "1 recording is" if len(others) == 1 else f"{len(others)} recordings are"
            found.append(f"{folder.name}: {what} not read ({names}): only {_what_is_read(folder)}")
    return found


def _what_is_read(folder: Path) -> str:
    if is_prepared(folder):
        return "what its manifest.json names is; prepare a new folder from these songs and the others, or take them out"
    return f"{', '.join(sorted(SUFFIXES))} directly in the folder are"


def _doubts(path: Path, rate_hz: int, duration_s: float, window_s: float) -> list[str]:
    found = []
    if rate_hz < SAMPLE_RATE_HZ:
        found.append(f"{path.name}: {rate_hz} Hz, so it has nothing above {rate_hz / 2000:g} kHz")
    if duration_s < window_s / 2:
        found.append(f"{path.name}: {duration_s:.1f} s, so most of its clip of {window_s:g} s is padding")
    return found
