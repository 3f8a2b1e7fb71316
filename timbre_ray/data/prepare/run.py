"""Songs to a prepared folder: ``train/``, ``held_out/``, ``pictures/`` and ``manifest.json``, whole or not at all."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from timbre_ray.audio_file import write_flac
from timbre_ray.clip_sets import ClipError
from timbre_ray.data.features import SAMPLE_RATE_HZ
from timbre_ray.data.prepare.decode import Recording, decode
from timbre_ray.data.prepare.duplicates import Fingerprints
from timbre_ray.data.prepare.picture import draw_song
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.song import JudgedSong, drop_duplicates, judge_song
from timbre_ray.data.prepare.split import split_songs
from timbre_ray.data.prepare.transcribe import Transcriber
from timbre_ray.manifest import Clip, Dropped, Manifest, Song, Split, file_sha256, write_manifest
from timbre_ray.whole import whole_folder

#: Bytes that common file systems take for a name, and those that a number of a song or a clip and a suffix may need of them.
_MAX_NAME, _ROOM = 255, 24


def prepare(
    songs: list[Path], out: Path, settings: PrepareSettings, *, transcriber: Transcriber | None,
    on_song: Callable[[JudgedSong | Dropped], None] = lambda song: None,
) -> Manifest:  # fmt: skip
    """Prepares ``out`` from files that ``find_songs`` listed. Raises FileExistsError if
    ``out`` is not empty, ValueError if no clip is kept.

    A song that cannot be decoded to its end is left out whole, and named in the manifest's ``dropped``.
    transcriber: None takes every part of every song. on_song: called with each song as soon as it is judged or left out.
    """
    known, songs_found, clips, dropped = Fingerprints(), [], [], []
    with whole_folder(out) as folder:
        (folder / "clips").mkdir()
        (folder / "pictures").mkdir()
        for path, name in zip(songs, _names(songs), strict=True):
            try:
                recording = decode(path)
            except ClipError as error:  # an hour of other songs need not wait for it
                dropped.append(_left_out(path, error))
                on_song(dropped[-1])
                continue
            judged = drop_duplicates(judge_song(path, recording, settings, transcriber), path.name, known, settings)
            songs_found.append(_song(judged, recording))
            clips += _write_clips(judged, folder / "clips", name)
            dropped += [
                Dropped(source=str(path), start_s=piece.start_s, end_s=piece.end_s, reason=piece.reason)
                for piece in judged.dropped
            ]  # fmt: skip
            draw_song(judged, settings, folder / "pictures" / f"{name}.png")
            on_song(judged)
        if not clips:
            raise ValueError(f"no clip was kept, so nothing was written to {out}: {_reasons(dropped)}; see --help for the limits")
        manifest = _split(songs_found, clips, dropped, settings, folder)
        write_manifest(manifest, folder)
    return manifest


def _names(songs: list[Path]) -> list[str]:
    """A distinct file name for each song, its own where it can be, with room for a clip's number and suffix."""
    names: list[str] = []
    for song in songs:
        allowed = re.sub(r"[^\w.-]+", "-", song.stem).strip(".-")
        base = allowed.encode()[: _MAX_NAME - _ROOM].decode(errors="ignore").rstrip(".-") or "song"
        taken = {name.lower() for name in names}  # file systems may ignore case
        numbered = (base if i == 1 else f"{base}-{i}" for i in range(1, len(songs) + 1))
        names.append(next(name for name in numbered if name.lower() not in taken))
    return names


def _left_out(path: Path, error: ClipError) -> Dropped:
    """How long it is may not be known, so it stands there without a length."""
    return Dropped(source=str(path), start_s=0.0, end_s=0.0, reason=f"unusable: {str(error).removeprefix(f'{path}: ')}")


def _song(judged: JudgedSong, recording: Recording) -> Song:
    return Song(
        source=str(judged.path), sha256=file_sha256(judged.path), duration_s=round(recording.duration_s, 4),
        sample_rate_hz=recording.rate_hz, num_channels=recording.num_channels, ratio=_rounded(judged.ratio), split=None,
    )  # fmt: skip


def _write_clips(judged: JudgedSong, folder: Path, name: str) -> list[Clip]:
    """The split is not known yet: all are written to one folder, as of ``train``."""
    clips = []
    for i, piece in enumerate(judged.kept):
        assert piece.loudness_lufs is not None
        path = folder / f"{name}_{i:03d}.flac"
        write_flac(path, judged.waveform[piece.samples].clamp(-1, 1).numpy(), SAMPLE_RATE_HZ)
        clips.append(
            Clip(
                file=path.name,
                source=str(judged.path),
                start_s=piece.start_s,
                end_s=piece.end_s,
                ratio=_rounded(piece.ratio),
                loudness_lufs=round(piece.loudness_lufs, 2),
                sha256=file_sha256(path),
                split="train",
            )  # fmt: skip
        )
    return clips


def _split(songs: list[Song], clips: list[Clip], dropped: list[Dropped], settings: PrepareSettings, folder: Path) -> Manifest:
    """Moves the clips to the folders of their splits."""
    used = {clip.source for clip in clips}
    splits = split_songs([song.sha256 for song in songs if song.source in used], held_out=settings.held_out, seed=settings.seed)
    by_source: dict[str, Split] = {song.source: splits[song.sha256] for song in songs if song.source in used}
    for split in ("train", "held_out"):
        (folder / split).mkdir()
    placed = []
    for clip in clips:
        split = by_source[clip.source]
        (folder / "clips" / clip.file).rename(folder / split / clip.file)
        placed.append(dataclasses.replace(clip, file=f"{split}/{clip.file}", split=split))
    (folder / "clips").rmdir()
    return Manifest(
        settings={**dataclasses.asdict(settings), "min_s": settings.shortest_s},
        songs=tuple(dataclasses.replace(song, split=by_source.get(song.source)) for song in songs),
        clips=tuple(placed), dropped=tuple(dropped),
    )  # fmt: skip


def _reasons(dropped: Iterable[Dropped]) -> str:
    counts = collections.Counter(one.reason.partition(":")[0] for one in dropped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "the songs are empty"


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)
