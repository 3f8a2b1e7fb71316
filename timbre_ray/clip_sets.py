"""Where a target's recordings lie: shipped sets and folders, checked before anything starts. Reads names only, no audio."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path

from timbre_ray.specs import ClipsSpec
from timbre_ray.sweep_yaml import nearest

#: Sets under mini/clips/.
SHIPPED = ("chinese_flute_v1", "chinese_flute_v2", "chinese_lute")
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"})


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
        else:
            problems.append(f"{place(field)}={value!r}: {found}")
    return dataclasses.replace(clips, **changes), problems


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
        return f"no such folder (looked for {' and '.join(map(str, tried))}){hint}"
    if not any(path.suffix.lower() in SUFFIXES for path in found.iterdir()):
        return f"no recording in {found} ({', '.join(sorted(SUFFIXES))} are read)"
    return found
