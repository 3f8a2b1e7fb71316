"""Where a target's recordings lie: shipped sets, prepared folders and plain ones, checked before anything starts.

Reads bytes, but no audio.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Set
from pathlib import Path

from timbre_ray.manifest import ManifestError, file_sha256, is_prepared, read_manifest
from timbre_ray.specs import ClipsSpec
from timbre_ray.sweep_yaml import nearest

SHIPPED_FOLDER = Path(__file__).parent / "mini" / "clips"
#: Sets in it.
SHIPPED = ("chinese_flute_v1", "chinese_flute_v2", "chinese_lute")
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


class ClipError(ValueError):
    """A recording that cannot be used; the message names the file and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """The recordings of a target: what is trained on and what is scored against."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    """Empty: the last windows of the only training file."""

    def digests(self) -> dict[str, list[str]]:
        """SHA-256 of each file's bytes: a clip is its content, wherever it lies."""
        return {name: [file_sha256(p)[:20] for p in getattr(self, name)] for name in ("train", "held_out")}

    def on_both_sides(self) -> list[tuple[Path, Path]]:
        """Pairs of a training file and a held-out one with the same bytes: what was learnt by heart would be scored against."""
        trained = {file_sha256(path): path for path in self.train}
        return [(trained[digest], path) for path in self.held_out if (digest := file_sha256(path)) in trained]


def find_files(spec: ClipsSpec) -> Files:
    """Lists the recordings.

    A folder that ``data prepare`` wrote has its own split by songs; a ``held_out`` beside it replaces what that holds out.
    In a plain folder without ``held_out`` the last quarter of the files (at least one of two) is held out.
    """
    if spec.path.startswith("mini:"):
        folder = SHIPPED_FOLDER / spec.path.removeprefix("mini:")
        return Files(train=_audio_files(folder / "train"), held_out=_audio_files(folder / "held_out"))
    folder = Path(spec.path)
    prepared = prepared_files(folder) if is_prepared(folder) else None
    train = prepared.train if prepared else _audio_files(folder)
    if spec.held_out:
        return Files(train=train, held_out=_all_files(Path(spec.held_out)))
    if prepared:
        return prepared
    num_held_out = math.ceil(len(train) / 4) if len(train) > 1 else 0
    return Files(train=train[: len(train) - num_held_out], held_out=train[len(train) - num_held_out :])


def recordings_in(folder: Path, suffixes: Set[str] = SUFFIXES, *, below: bool = False) -> tuple[Path, ...]:
    """The recordings of a folder, sorted; ``below``: those in the folders in it, too.

    What is hidden is none (macOS lays a ``._song.wav`` beside a song), nor is a folder with such a name. Raises ClipError for a
    link that leads nowhere: who laid it there believes that it is read.
    """
    there = sorted(folder.rglob("*") if below else folder.iterdir())
    seen = [path for path in there if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    named = [path for path in seen if path.suffix.lower() in suffixes]
    for path in named:
        if path.is_symlink() and not path.exists():
            raise ClipError(f"{path}: a link to {os.readlink(path)}, which is not there; mend the link, or remove it")
    return tuple(path for path in named if path.is_file())


def recording_digests(spec: ClipsSpec) -> dict[str, list[str]]:
    """Of all files of a target, by split: what stands for its recordings in keys."""
    return find_files(spec).digests()


def prepared_files(folder: Path) -> Files:
    """What the manifest of a folder that ``data prepare`` wrote names. Raises ManifestError if anything is wrong with it."""
    clips = read_manifest(folder).clips
    of = {split: tuple(sorted(folder / clip.file for clip in clips if clip.split == split)) for split in ("train", "held_out")}
    return Files(**of)


def _all_files(folder: Path) -> tuple[Path, ...]:
    """Of a prepared folder both splits: who names it to score against takes all of it."""
    if not is_prepared(folder):
        return _audio_files(folder)
    files = prepared_files(folder)
    return files.train + files.held_out


def _audio_files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise ClipError(f"{folder}: no such folder of recordings")
    files = recordings_in(folder)
    if not files:
        raise ClipError(f"{folder}: no recording in it ({', '.join(sorted(SUFFIXES))} are read)")
    return files


def target_name(clips: ClipsSpec) -> str:
    """Last part of the path: what rows of tables call the target."""
    return Path(clips.path.removeprefix("mini:")).name


def resolved_clips(clips: ClipsSpec, folder: Path, place: Callable[[str], str]) -> tuple[ClipsSpec, list[str]]:
    """The same clips with absolute folders, and what is wrong with them.

    folder: of the sweep's YAML; relative folders are looked up there first, then in the working folder.
    place: field -> dotted key where it stands in the YAML.
    """
    problems: list[str] = []
    changes: dict[str, str] = {}
    for field in ("path", "held_out"):
        value = getattr(clips, field)
        if value is None:
            continue
        if field == "path" and value.startswith("mini:"):
            if value not in (choices := [f"mini:{name}" for name in SHIPPED]):
                problems.append(f"{place(field)}={value!r}: no such set is shipped; {nearest(value, choices)}")
            continue
        found = _existing(value, folder)
        if isinstance(found, Path):
            changes[field] = str(found)
            problems += [f"{place(field)}={value!r}: {problem}" for problem in _manifest_problems(found)]
        else:
            problems.append(f"{place(field)}={value!r}: {found}")
    resolved = dataclasses.replace(clips, **changes)
    if not problems and (shared := find_files(resolved).on_both_sides()):
        field = "held_out" if clips.held_out else "path"
        problems = [f"{place(field)}={getattr(clips, field)!r}: {_words_on_shared(shared, clips)}"]
    return resolved, problems


def _words_on_shared(shared: list[tuple[Path, Path]], clips: ClipsSpec) -> str:
    trained, held_out = shared[0]
    more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
    remedy = "name others, or leave held_out out: a part of path is held out then" if clips.held_out else "take one of them out"
    return f"the same recording is trained on and scored against: {trained} and {held_out}{more}; {remedy}"


def _manifest_problems(folder: Path) -> list[str]:
    try:
        if is_prepared(folder):
            read_manifest(folder)
    except ManifestError as error:
        return str(error).splitlines()
    return []


def _existing(value: str, folder: Path) -> Path | str:
    """The folder, or why it cannot be used."""
    wanted = Path(value).expanduser()
    tried = list(dict.fromkeys((place / wanted).resolve() for place in (folder, Path.cwd())))
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        if file := next((path for path in tried if path.exists()), None):
            return f"{file} is a file; name the folder of the recordings"
        parents = [path.parent for path in tried if path.parent.is_dir()]
        siblings = sorted({str(wanted.parent / path.name) for parent in parents for path in parent.iterdir() if path.is_dir()})
        near = difflib.get_close_matches(str(wanted), siblings, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        remedy = f"`timbre-ray data prepare SONGS --out {value}` makes it"
        return f"no such folder (looked for {' and '.join(map(str, tried))}); {remedy}{hint}"
    try:
        if not is_prepared(found) and not recordings_in(found):
            return f"no recording in {found} ({', '.join(sorted(SUFFIXES))} are read)"
    except ClipError as error:
        return str(error)
    return found
