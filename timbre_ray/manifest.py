"""The manifest of a prepared folder: which clip came from where in which song, how it sounds, and what was dropped why.

Written by ``timbre-ray data prepare`` as ``manifest.json``; ``clip_sets.py`` reads it when ``clips.path`` of a sweep names it.
Standard library and pydantic only, as sweeps are planned without torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from timbre_ray.durable import replace

NAME = "manifest.json"
KIND = "timbre-ray clips"
#: Raise it when a field changes its name or its meaning.
SCHEMA = 1
Split = Literal["train", "held_out"]
_REMEDY = "prepare the folder again with `timbre-ray data prepare`"


class ManifestError(ValueError):
    """A prepared folder that cannot be used; the message names the file, the key, its value and what to do."""


class _Strict:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song(_Strict):
    source: str
    """Path of the file, as it was given."""
    sha256: str
    """Of the file's bytes."""
    duration_s: float
    sample_rate_hz: int
    num_channels: int
    ratio: float | None
    """Sum of the notes' durations over the time in which any sounds; None: no note found, or not asked for."""
    split: Split | None
    """None: no clip of it was kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(_Strict):
    file: str
    """Below the folder, with forward slashes."""
    source: str
    """``source`` of its song."""
    start_s: float
    end_s: float
    ratio: float | None
    loudness_lufs: float
    """Integrated loudness, ITU-R BS.1770-4."""
    sha256: str
    """Of the clip's bytes."""
    split: Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropped(_Strict):
    source: str
    start_s: float
    end_s: float
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(_Strict):
    settings: dict[str, float | int | bool | None]
    """What ``data prepare`` was asked for."""
    songs: tuple[Song, ...]
    clips: tuple[Clip, ...]
    dropped: tuple[Dropped, ...]
    """Parts of songs; from 0 s to 0 s: a file that could not be decoded, which is none of ``songs``."""
    kind: Literal["timbre-ray clips"] = KIND
    schema: Literal[1] = SCHEMA


def is_prepared(folder: Path) -> bool:
    return (folder / NAME).is_file()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    data = {"kind": manifest.kind, "schema": manifest.schema, **dataclasses.asdict(manifest)}  # what it is stands first
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    replace(folder / NAME, f"{text}\n".encode())


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks a manifest, the clips' bytes included. Raises ManifestError with everything found wrong."""
    manifest = _parsed(folder)
    _check(manifest, folder)
    return manifest


def forget_missing(folder: Path) -> tuple[Clip, ...]:
    """Takes the clips whose files are gone out of the manifest, and returns them: who listened to all may have thrown some away.

    They count as dropped, and a song without a clip is in neither split any more. Raises ManifestError, and changes nothing, for
    anything else that is wrong, and where nothing would be left to learn from.
    """
    manifest = _parsed(folder)
    missing = tuple(clip for clip in manifest.clips if not (folder / clip.file).is_file())
    clips = tuple(clip for clip in manifest.clips if clip not in missing)
    used, gone = {clip.source for clip in clips}, {clip.source for clip in missing}
    forgotten = tuple(
        Dropped(source=clip.source, start_s=clip.start_s, end_s=clip.end_s, reason="taken out by hand") for clip in missing
    )
    songs = tuple(dataclasses.replace(song, split=None) if song.source in gone - used else song for song in manifest.songs)
    left = dataclasses.replace(manifest, songs=songs, clips=clips, dropped=manifest.dropped + forgotten)
    _check(left, folder)
    if missing:
        write_manifest(left, folder)
    return missing


def _parsed(folder: Path) -> Manifest:
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read as JSON ({error}); {_REMEDY}") from None
    try:
        return _adapter().validate_python(data)
    except ValidationError as error:
        raise ManifestError("\n".join(f"{path}: {_words(one)}" for one in error.errors())) from None


def _check(manifest: Manifest, folder: Path) -> None:
    problems = [f"{folder / NAME}: {problem}" for problem in (*_split_problems(manifest), *_file_problems(manifest, folder))]
    if problems:
        raise ManifestError("\n".join(problems))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; read again only after the file has changed."""
    return _sha256(path, path.stat().st_mtime_ns)


@functools.cache
def _sha256(path: Path, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def _split_problems(manifest: Manifest) -> list[str]:
    """Songs, not clips, are held out: a clip in the other split than its song would be heard in training and scored against."""
    songs = {song.source: song for song in manifest.songs}
    problems = []
    for i, clip in enumerate(manifest.clips):
        song = songs.get(clip.source)
        if song is None:
            problems.append(f"clips.{i}.source={clip.source!r}: no such song in songs; {_REMEDY}")
        elif clip.split != song.split:
            problems.append(f"clips.{i}.split={clip.split!r}: its song {clip.source} is in {song.split!r}; {_REMEDY}")
    if not any(clip.split == "train" for clip in manifest.clips):
        problems.append(f"clips: none has split='train', so there is nothing to learn from; {_REMEDY}")
    return problems


def _file_problems(manifest: Manifest, folder: Path) -> list[str]:
    problems = []
    for i, clip in enumerate(manifest.clips):
        parts = PurePosixPath(clip.file).parts
        path = folder.joinpath(*parts)
        if not parts or parts[0] == "/" or ".." in parts:
            problems.append(f"clips.{i}.file={clip.file!r}: must lie below the folder; {_REMEDY}")
        elif not path.is_file():
            problems.append(f"clips.{i}.file={clip.file!r}: no such file; put it back, or {_forgetting(folder)}")
        elif (found := file_sha256(path)) != clip.sha256:
            was, now = f"{clip.sha256[:12]}...", f"{found[:12]}..."
            problems.append(f"clips.{i}.sha256={was}: {clip.file} has changed since (now {now}); put it back, or {_REMEDY}")
    return problems


def _forgetting(folder: Path) -> str:
    return f"say that you took it out: `timbre-ray data forget {folder}`"


def _words(error: Any) -> str:
    key, value = ".".join(str(part) for part in error["loc"]), error["input"]
    match key, error["type"]:
        case ("kind", _) | (_, "dataclass_type"):
            shown = f"kind={value!r}" if key else "not a mapping"
            return f"{shown}: not a manifest of `timbre-ray data prepare`; take it out of the folder of recordings, or {_REMEDY}"
        case "schema", _:
            return f"schema={value!r}: this version of timbre-ray reads {SCHEMA}; {_REMEDY}"
        case _, "missing":
            return f"{key}: missing; {_REMEDY}"
        case _, "unexpected_keyword_argument":
            return f"{key}={value!r}: unknown key; {_REMEDY}"
        case _:
            return f"{key}={value!r}: {error['msg'][0].lower()}{error['msg'][1:]}; {_REMEDY}"
