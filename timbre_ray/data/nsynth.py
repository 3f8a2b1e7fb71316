"""NSynth's published layout, read as a stream: ``SPLIT/examples.json`` beside ``SPLIT/audio/NOTE.wav``.

``nsynth-train/examples.json`` describes 289,205 notes: its entries are parsed one by one, and no audio is read here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from timbre_ray.data.recordings import DatasetError, Window

FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
SPLITS = ("train", "valid", "test")
_CHUNK_CHARS = 1 << 20
_KEY = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*')
_END = re.compile(r"[\s,]*\}\s*$")


def split_folder(root: Path, split: str) -> Path:
    """``nsynth-SPLIT`` or ``SPLIT`` under ``root``. Raises DatasetError if neither is there."""
    for name in (f"nsynth-{split}", split):
        if (root / name).is_dir():
            return root / name
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; NSynth's layout is wanted: nsynth-train, nsynth-valid and nsynth-test in it")
    there = sorted(p.name for p in root.iterdir() if p.is_dir())
    near = difflib.get_close_matches(f"nsynth-{split}", there, n=1)
    hint = f"nearest: {near[0]}" if near else f"it holds {', '.join(there) or 'no folder'}"
    raise DatasetError(f"{root}: neither nsynth-{split} nor {split} in it; {hint}")


def read_notes(root: Path, split: str, rename: Mapping[str, str] | None = None) -> Iterator[Window]:
    """The notes of a split in the order of its index, labelled by family, or by what ``rename`` calls the family.

    A note is one window: its first samples, as many as AudioMAE hears at once.
    """
    folder = split_folder(root, split)
    index, audio = folder / "examples.json", folder / "audio"
    for path in (index, audio):
        if not path.exists():
            raise DatasetError(f"{path}: missing; a split in NSynth's layout is examples.json beside audio/*.wav")
    there = {path.stem for path in audio.iterdir() if path.suffix.lower() == ".wav"}
    for note, entry in stream_entries(index):
        family = _text(index, note, entry, "instrument_family_str")
        if family not in FAMILIES:
            near = difflib.get_close_matches(family, FAMILIES, n=1)
            hint = f"nearest: {near[0]}" if near else f"one of {', '.join(FAMILIES)}"
            raise DatasetError(f"{index}: {note}.instrument_family_str={family!r}: no family of NSynth; {hint}")
        if note not in there:
            remedy = "fetch the split again, or remove the entry"
            raise DatasetError(f"{audio / note}.wav: missing, though {index.name} names it; {remedy}")
        source = _text(index, note, entry, "instrument_str")
        yield Window(path=audio / f"{note}.wav", label=(rename or {}).get(family, family), source=source)


def stream_entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a JSON object of objects, one at a time. Raises DatasetError where the file is none."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(_CHUNK_CHARS).lstrip()
        if not text.startswith("{"):
            raise DatasetError(f"{path}: no JSON object of notes; fetch it again")
        text = text[1:]
        position, num_entries = 0, 0
        while True:
            key = _KEY.match(text, position)
            try:
                value, end = decoder.raw_decode(text, key.end()) if key else (None, position)
            except json.JSONDecodeError:
                key = None  # the chunk ends within this entry
            if key:
                if not isinstance(value, dict):
                    raise DatasetError(f"{path}: {key[1]}={value!r}: must be an object that describes a note")
                yield json.loads(key[1]), value
                position, num_entries = end, num_entries + 1
                continue
            if more := file.read(_CHUNK_CHARS):
                text, position = text[position:] + more, 0
                continue
            if not _END.match(text, position):
                raise DatasetError(f"{path}: not valid JSON after {num_entries} notes; fetch it again")
            return


def _text(index: Path, note: str, entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        said = f"={value!r}: must be text" if name in entry else ": missing"
        raise DatasetError(f"{index}: {note}.{name}{said}; NSynth's index has it for every note")
    return value
