"""Folders of one's own recordings, split by song: what is cut from one song is never on both sides of a split.

A file in the folder is a song; a folder in it is a song in several files. In a folder that `timbre-ray data prepare` wrote, the
manifest says which song each clip was cut from.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from timbre_ray.clip_sets import SUFFIXES, recordings_in
from timbre_ray.data.recordings import DatasetError, Window, sounding_windows
from timbre_ray.manifest import ManifestError, file_sha256, is_prepared, read_manifest

#: Share of the songs in each of the splits ``valid`` and ``test``: at least one song in each.
HELD_OUT_SHARE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    files: tuple[Path, ...]
    label: str
    digest: str
    """Of the bytes of its files, or of the one that its clips were cut from: a song is its content, whatever it is called."""

    def windows(self, num_samples: int) -> Iterator[Window]:
        """The windows that sound, file after file."""
        for path in self.files:
            for index in sounding_windows(path, num_samples):
                yield Window(path=path, label=self.label, source=self.digest, index=index)


def find_songs(folders: Iterable[tuple[str, Path]]) -> tuple[Song, ...]:
    """(class, folder) pairs -> songs in an order of their content. A song that stands there twice counts once."""
    songs: dict[str, Song] = {}
    for label, folder in folders:
        for files, digest in _songs_of_folder(label, folder):
            song = Song(files=files, label=label, digest=digest)
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


def _songs_of_folder(label: str, folder: Path) -> list[tuple[tuple[Path, ...], str]]:
    """-> files and digest of each."""
    if not folder.is_dir():
        raise DatasetError(f"{label}={folder}: no such folder of recordings")
    if is_prepared(folder):
        return _songs_of_manifest(folder)
    found = [(path,) for path in recordings_in(folder)]
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(".") and (audio := recordings_in(entry, below=True)):
            found.append(audio)
    if not found:
        raise DatasetError(f"{label}={folder}: no recording in it ({', '.join(sorted(SUFFIXES))} are read)")
    return [(files, _digest(map(file_sha256, files))) for files in sorted(found)]


def _songs_of_manifest(folder: Path) -> list[tuple[tuple[Path, ...], str]]:
    """A song that was cut to clips is the file it was cut from: preparing it again, or not at all, makes no new song of it."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        raise DatasetError(str(error)) from None
    digests = {song.source: song.sha256 for song in manifest.songs}
    by_source: dict[str, list[Path]] = {}
    for clip in manifest.clips:
        by_source.setdefault(clip.source, []).append(folder / clip.file)
    return [(tuple(files), _digest([digests[source]])) for source, files in by_source.items()]


def _digest(sha256s: Iterable[str]) -> str:
    """Of a song from those of its files."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, sha256s))).hexdigest()[:20]
