"""A picture of one song: its mel spectrogram, how many voices Basic Pitch hears, and what was kept or dropped why."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from timbre_ray.data.features import HOP, SAMPLE_RATE_HZ, log_mel
from timbre_ray.data.prepare import notes
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.song import JudgedSong, Piece

_INK, _QUIET = "#22303c", "#8795a1"
_KEPT = "#1b9e77"
#: First word of a reason -> colour of what it dropped.
_DROPPED = {
    "not solo": "#d95f02", "no note": "#e6ab02", "silence": "#b8c4ce", "too short": "#a6a2c9", "clipping": "#c0143c",
    "duplicate": "#7570b3",
}  # fmt: skip
#: Fonts with the letters of Chinese, Japanese and Korean names, of which a system may have some.
_EAST_ASIAN = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Heiti SC",
    "Microsoft YaHei", "SimHei", "Arial Unicode MS",
)  # fmt: skip
_COLUMNS = 2000
#: Samples that the mel's reflected edges need at least.
_SHORTEST = 432


def draw_song(song: JudgedSong, settings: PrepareSettings, path: Path) -> None:
    """Writes the picture as PNG."""
    duration_s = len(song.waveform) / SAMPLE_RATE_HZ
    heights = {"mel": 3.2, "ratio": 1.5, "pieces": 0.55} if song.heard else {"mel": 3.2, "pieces": 0.55}
    figure = Figure(figsize=(13, 1.5 + sum(heights.values())), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(hspace=0.03)
    axes = dict(zip(heights, figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights.values())), strict=True))
    _draw_mel(axes["mel"], song, duration_s)
    if song.heard:
        _draw_ratio(axes["ratio"], song.heard, duration_s, settings)
    _draw_pieces(axes["pieces"], song.pieces, duration_s)
    # Names of songs stand in the title and in reasons: a $ in them begins no formula.
    figure.suptitle(
        _title(song), x=0.012, ha="left", fontsize=13, fontweight="bold", color=_INK, parse_math=False, fontfamily=families()
    )
    kinds = list(dict.fromkeys(_kind(piece) for piece in song.dropped))
    handles = [Patch(color=_KEPT, label="kept"), *(Patch(color=_DROPPED[kind], label=f"dropped: {kind}") for kind in kinds)]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=10, labelcolor=_INK)
    with warnings.catch_warnings():  # without such a font a name is boxes, which the reader of the picture sees
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=110)


@functools.cache
def families() -> list[str]:
    """Fonts for names, the first that has a letter draws it."""
    there = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _EAST_ASIAN if name in there)]


def _title(song: JudgedSong) -> str:
    kept = song.kept
    words = [song.path.name]
    if song.heard:
        words.append("no note found" if song.ratio is None else f"solo ratio {song.ratio:.2f}")
    words.append(f"{len(kept)} clip{'s' * (len(kept) != 1)}, {sum(p.end_s - p.start_s for p in kept):.1f} s kept")
    return "   ·   ".join(words)


def _draw_mel(axes: Axes, song: JudgedSong, duration_s: float) -> None:
    """In dB below the loudest; what is dropped is paled."""
    # Minute by minute, as the spectrum of an hour would fill the memory.
    minutes = [part for part in song.waveform.split(60 * SAMPLE_RATE_HZ) if len(part) > _SHORTEST]
    mel = torch.cat([log_mel(part[None])[0] for part in minutes]).numpy() * (20 / np.log(10))  # (frames, 64), natural log -> dB
    pooled = _thinned(mel)
    axes.imshow(
        pooled.T, origin="lower", aspect="auto", cmap="magma", vmin=pooled.max() - 70, vmax=pooled.max(),
        extent=(0, len(mel) * HOP / SAMPLE_RATE_HZ, 0, mel.shape[1]), interpolation="nearest",
    )  # fmt: skip
    for piece in song.dropped:
        axes.axvspan(piece.start_s, piece.end_s, color="white", alpha=0.45, lw=0)
    for piece in song.kept:
        for edge in (piece.start_s, piece.end_s):
            axes.axvline(edge, color="white", lw=1.2, alpha=0.9)
    bands_hz = np.array([250, 500, 1000, 2000, 4000])
    axes.set_yticks([_band(hz) for hz in bands_hz], [f"{hz / 1000:g}" for hz in bands_hz])
    axes.set_ylabel("kHz (mel)", color=_INK)
    axes.set_xlim(0, duration_s)
    _quiet(axes)


def _draw_ratio(axes: Axes, heard: notes.Activity, duration_s: float, settings: PrepareSettings) -> None:
    """Notes that sound at once as an area, the ratio over the window around each moment as a line, the limit dashed."""
    counts = np.diff(heard.summed_s) / np.maximum(np.diff(heard.times_s), 1e-12)
    axes.stairs(counts, heard.times_s, fill=True, color="#c9d6df", label="notes at once")
    times = np.linspace(0, duration_s, _COLUMNS)
    window_s = min(settings.solo_window_s, duration_s)
    starts = np.clip(times - window_s / 2, 0, duration_s - window_s)
    axes.plot(times, heard.ratio(starts, starts + window_s), color=_INK, lw=1.8, label=f"ratio over {window_s:.4g} s")
    axes.axhline(settings.max_ratio, color=_DROPPED["not solo"], ls=(0, (5, 3)), lw=1.4, label=f"limit {settings.max_ratio:g}")
    axes.set_ylim(0, max(3.0, float(counts.max(initial=0)) + 0.6))
    axes.set_ylabel("notes, ratio", color=_INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper right", ncols=3, fontsize=9, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=_INK)
    _quiet(axes)


def _draw_pieces(axes: Axes, pieces: tuple[Piece, ...], duration_s: float) -> None:
    """A block a piece with its story, or as much of that as fits: clips by the number in their file's name."""
    number = 0
    for piece in pieces:
        kept, length_s = piece.reason is None, piece.end_s - piece.start_s
        color = _KEPT if kept else _DROPPED[_kind(piece)]
        axes.axvspan(piece.start_s, piece.end_s, facecolor=color, edgecolor="white", lw=1.5)
        stories = (f"{number:03d}  ·  {piece.loudness_lufs:.1f} LUFS", f"{number:03d}") if kept else (piece.reason, _kind(piece))
        number += kept
        fitting = [story for story in stories if length_s / duration_s > 0.0058 * len(story)]
        axes.text(
            (piece.start_s + piece.end_s) / 2, 0.5, fitting[0] if fitting else "", ha="center", va="center", fontsize=9,
            parse_math=False, fontfamily=families(),
            color=_INK if _kind(piece) in ("silence", "too short", "no note") else "white",
        )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xlabel("seconds", color=_INK)
    _quiet(axes)


def _kind(piece: Piece) -> str:
    return (piece.reason or "").partition(":")[0]


def _thinned(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(frames, 64) -> at most twice as many columns as the picture can show, each the loudest of its frames."""
    step = -(-len(mel) // _COLUMNS)
    return np.maximum.reduceat(mel, np.arange(0, len(mel), step), axis=0) if step > 1 else mel


def _band(hz: float) -> float:
    """Place of a frequency among the 64 mel bands (Slaney's scale: linear up to 1 kHz, then logarithmic)."""

    def mel(frequency_hz: float) -> float:
        return frequency_hz * 3 / 200 if frequency_hz < 1000 else 15 + 27 * float(np.log(frequency_hz / 1000) / np.log(6.4))

    return 64 * mel(hz) / mel(8000)


def _quiet(axes: Axes) -> None:
    axes.tick_params(colors=_INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_QUIET)
