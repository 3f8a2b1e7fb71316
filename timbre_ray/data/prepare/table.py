"""What was made of each song, as a table, and what a sweep will do with it, in words. No torch."""

from __future__ import annotations

import collections
from pathlib import Path

from rich.table import Table
from rich.text import Text

from timbre_ray.manifest import Dropped, Manifest


def summary_table(manifest: Manifest) -> Table:
    """One row a song, then one for each that was left out whole."""
    table = Table(title="From songs to clips", caption=_caption(manifest), caption_justify="left", header_style="bold")
    table.add_column("song", overflow="fold")
    for name in ("rate\nkHz", "length\ns", "ratio", "clips", "kept\ns", "loudness\nLUFS"):
        table.add_column(name, justify="right")
    table.add_column("dropped")
    table.add_column("split")
    for song in manifest.songs:
        clips = [clip for clip in manifest.clips if clip.source == song.source]
        reasons = collections.Counter(one.reason.partition(":")[0] for one in manifest.dropped if one.source == song.source)
        loudness = sum(clip.loudness_lufs for clip in clips) / len(clips) if clips else None
        table.add_row(
            _name(song.source), f"{song.sample_rate_hz / 1000:g}", f"{song.duration_s:.1f}",
            "–" if song.ratio is None else f"{song.ratio:.2f}",
            Text(str(len(clips)), style="bold green" if clips else "red"), f"{sum(c.end_s - c.start_s for c in clips):.1f}",
            "–" if loudness is None else f"{loudness:.1f}",
            ", ".join(reason if count == 1 else f"{count} {reason}" for reason, count in reasons.items()),
            {"train": "train", "held_out": "held out", None: "–"}[song.split],
        )  # fmt: skip
    for song in left_out(manifest):
        table.add_row(_name(song.source), "–", "–", "–", Text("0", style="red"), "0.0", "–", "unusable", "–")
    return table


def left_out(manifest: Manifest) -> list[Dropped]:
    """The songs that could not be decoded to their end."""
    songs = {song.source for song in manifest.songs}
    return [dropped for dropped in manifest.dropped if dropped.source not in songs]


def next_step(manifest: Manifest, out: Path) -> str:
    """How the clips are divided, and how a sweep takes them."""
    parts = []
    for split, words in (("train", "to train on"), ("held_out", "held out")):
        clips = [clip for clip in manifest.clips if clip.split == split]
        seconds, songs = sum(clip.end_s - clip.start_s for clip in clips), len({clip.source for clip in clips})
        parts.append(f"{_count(len(clips), 'clip')} ({seconds:.1f} s) of {_count(songs, 'song')} {words}")
    lines = [f"{'; '.join(parts)}.", f"In a sweep: clips: {{path: {out}}}"]
    if not any(clip.split == "held_out" for clip in manifest.clips):
        lines.insert(
            1,
            "No song is held out (clips of one song never stand on both sides): a sweep will hold out the last quarter of this "
            "folder's windows and score against songs that it has heard, which flatters. Add a song, or set clips.held_out.",
        )
    return "\n".join(lines)


def _name(source: str) -> Text:
    """Brackets in it are no markup."""
    return Text(Path(source).name)


def _caption(manifest: Manifest) -> str:
    if not manifest.settings["solo_filter"]:
        return "ratio: not measured (--no-solo-filter)"
    return f"ratio: durations of the notes over the time in which any sounds; solo up to {manifest.settings['max_ratio']:g}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
