"""Folders of one's own recordings, split by song: what is cut from one song is never on both sides of a split.

A file in the folder is a song; a folder in it is a song in several files. In a folder that `timbre-ray data prepare` wrote, the
manifest says which song each clip was cut from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from timbre_ray.clip_sets import SUFFIXES, recordings_in
from timbre_ray.data.recordings import DatasetError, Window, sounding_windows

#: Share of the songs in each of the splits ``valid`` and ``test``: at least one song in each.
HELD_OUT_SHARE = 0.2
#: What `timbre-ray data prepare` writes beside its clips.
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    files: tuple[Path, ...]
    label: str
    digest: str
    """SHA-256 of the files' bytes: a song is its content, whatever it is called."""

    def windows(self, num_samples: int) -> Iterator[Window]:
        """The windows that sound, file after file."""
        for path in self.files:
            for index in sounding_windows(path, num_samples):
                yield Window(path=path, label=self.label, source=self.digest, index=index)


def find_songs(folders: Iterable[tuple[str, Path]]) -> tuple[Song, ...]:
    """(class, folder) pairs -> songs in an order of their content. A song that stands there twice counts once."""
    songs: dict[str, Song] = {}
    for label, folder in folders:
        for files in _files_of_songs(label, folder):
            song = Song(files=files, label=label, digest=_digest(files))
            known = songs.setdefault(song.digest, song)
            if known.label != label:
                there = f"{known.label!r} in {known.files[0].parent}"
                raise DatasetError(f"{files[0]}: the same recording is {there} and {label!r} here; take it out of one")
    return tuple(sorted(songs.values(), key=lambda song: song.digest))


def split_songs(songs: Iterable[Song]) -> dict[str, str]:
    """Digest of a song -> ``train``, ``valid`` or ``test``; a fifth of a class's songs, at least one, in each of the last two."""
    by_label: dict[str, list[Song]] = {}
    for song in songs:
        by_label.setdefault(song.label, []).append(song)
    splits: dict[str, str] = {}
    for label, own in by_label.items():
        if len(own) < 3:
            where = own[0].files[0].parent
            raise DatasetError(f"{label!r}: {len(own)} songs in {where}; splitting by song needs three: train, valid and test")
        held_out = max(1, round(HELD_OUT_SHARE * len(own)))
        for rank, song in enumerate(sorted(own, key=lambda song: song.digest)):
            splits[song.digest] = "test" if rank < held_out else "valid" if rank < 2 * held_out else "train"
    return splits


def songs_of(songs: Iterable[Song], split: str, known: Mapping[str, str]) -> Iterator[Song]:
    """The songs of a split. ``known``: digest -> split when the classifier was trained; a song it never met is a test song."""
    return (song for song in songs if known.get(song.digest, "test") == split)


def _files_of_songs(label: str, folder: Path) -> list[tuple[Path, ...]]:
    if not folder.is_dir():
        raise DatasetError(f"{label}={folder}: no such folder of recordings")
    if (folder / MANIFEST).is_file():
        return _files_by_source(folder)
    found = [(path,) for path in recordings_in(folder)]
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(".") and (audio := recordings_in(entry, below=True)):
            found.append(audio)
    if not found:
        raise DatasetError(f"{label}={folder}: no recording in it ({', '.join(sorted(SUFFIXES))} are read)")
    return sorted(found)


def _files_by_source(folder: Path) -> list[tuple[Path, ...]]:
    by_source: dict[str, list[Path]] = {}
    try:
        for clip in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["clips"]:
            by_source.setdefault(clip["source"], []).append(folder / clip["file"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        known = f"not what `timbre-ray data prepare` writes ({error!r})"
        raise DatasetError(f"{folder / MANIFEST}: {known}; prepare the folder again") from None
    missing = [path for files in by_source.values() for path in files if not path.is_file()]
    if missing or not by_source:
        wrong = f"{missing[0]} is missing" if missing else "it names no clip"
        raise DatasetError(f"{folder / MANIFEST}: {wrong}; prepare the folder again")
    return [tuple(files) for files in by_source.values()]


def _digest(files: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:20]
