"""``timbre-ray data``: from songs to the folder of clips that a sweep takes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.data.prepare.settings import PrepareSettings

if TYPE_CHECKING:
    from timbre_ray.data.prepare.song import JudgedSong
    from timbre_ray.manifest import Dropped

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_DEFAULT = PrepareSettings()


@app.callback()
def group() -> None:
    """Recordings to learn from.

    \b
    Example:
      timbre-ray data prepare songs/ --out clips/my_flute
    """


@app.command()
def prepare(
    songs: Annotated[
        list[Path], typer.Argument(metavar="SONGS", help="Files, or folders of them: wav, flac, mp3, ogg, m4a, ...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; it must not have anything in it.")],
    clip_seconds: Annotated[
        float, typer.Option(help="Longest clip: 10.24 for AudioLDM2, 2.56 for the miniature.")
    ] = _DEFAULT.clip_s,
    min_seconds: Annotated[float | None, typer.Option(help="Shortest clip and shortest solo part; default: half a clip.")] = None,
    solo_filter: Annotated[bool, typer.Option(help="Keep only parts in which Basic Pitch hears one voice.")] = True,
    max_ratio: Annotated[
        float, typer.Option(help="Solo up to this ratio: durations of the notes over the time in which any sounds.")
    ] = _DEFAULT.max_ratio,
    silence_db: Annotated[float, typer.Option(help="Silent: so many dB below the song's loud moments.")] = _DEFAULT.silence_db,
    max_silence: Annotated[float, typer.Option(help="Largest silent share of a clip.")] = _DEFAULT.max_silence,
    max_clipped: Annotated[
        float, typer.Option(help="Largest share of a clip's samples cut off at full scale.")
    ] = _DEFAULT.max_clipped,
    max_similarity: Annotated[
        float, typer.Option(help="Drop a clip whose log-mel has a larger cosine with an earlier one's.")
    ] = _DEFAULT.max_similarity,
    held_out: Annotated[float, typer.Option(help="Share of the songs to hold out for scoring.")] = _DEFAULT.held_out,
    seed: Annotated[int, typer.Option(help="Draws the held-out songs.")] = _DEFAULT.seed,
) -> None:
    """Turn songs into clips: find the solo parts, cut them at silences, drop what is silent, clipped or there twice.

    Writes train/ and held_out/ (whole songs are held out, never clips), pictures/ (one a song) and manifest.json, which says
    where each clip comes from and why others were dropped. A sweep takes the folder as clips.path. A song that proves damaged
    further in than its header is left out and named; the others are prepared.

    \b
    Examples:
      timbre-ray data prepare songs/*.mp3 --out clips/my_flute
      timbre-ray data prepare songs/ --out clips/my_flute --clip-seconds 2.56 --no-solo-filter
    """
    with clear_errors():
        settings = PrepareSettings(
            clip_s=clip_seconds, min_s=min_seconds, solo_filter=solo_filter, max_ratio=max_ratio, silence_db=silence_db,
            max_silence=max_silence, max_clipped=max_clipped, max_similarity=max_similarity, held_out=held_out, seed=seed,
        )  # fmt: skip
        _prepare(songs, out, settings)


@app.command()
def forget(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Written by `timbre-ray data prepare`.")],
) -> None:
    """Take clips that you deleted out of a prepared folder's manifest: listen to all, throw the bad ones away, then say so.

    What a manifest names must be there: a clip that is gone by accident would change the result in silence. The split by songs
    stays as it is. A sweep with other clips is another sweep: its trials are run anew.

    \b
    Example:
      timbre-ray data forget clips/my_flute
    """
    with clear_errors():
        from timbre_ray.manifest import NAME, forget_missing

        for clip in (missing := forget_missing(folder)):
            typer.echo(f"{clip.file}: forgotten")
        clips = f"{len(missing)} clip{'s' * (len(missing) != 1)}"
        typer.echo(f"{clips} taken out of {folder / NAME}" if missing else f"{folder}: no clip is missing")


def _prepare(paths: list[Path], out: Path, settings: PrepareSettings) -> None:
    from rich.console import Console

    from timbre_ray.data.prepare.decode import find_songs
    from timbre_ray.data.prepare.run import prepare
    from timbre_ray.data.prepare.table import left_out, next_step, summary_table
    from timbre_ray.data.prepare.transcribe import load_basic_pitch
    from timbre_ray.whole import check_free

    check_free(out)  # before anything is opened
    songs = find_songs(paths)
    transcriber = load_basic_pitch() if settings.solo_filter else None
    numbers = itertools.count(1)

    def on_song(song: JudgedSong | Dropped) -> None:
        typer.echo(f"[{next(numbers)}/{len(songs)}] {_song_line(song)}", err=True)

    manifest = prepare(songs, out, settings, transcriber=transcriber, on_song=on_song)
    console = Console(width=max(Console().width, 110))
    console.print(summary_table(manifest))
    typer.echo(next_step(manifest, out))
    if missing := left_out(manifest):
        lines = [f"{len(missing)} of {len(songs)} songs left out:", *(f"  {song.source}: {song.reason}" for song in missing)]
        typer.echo("\n".join(lines), err=True)


def _song_line(song: JudgedSong | Dropped) -> str:
    from timbre_ray.manifest import Dropped

    if isinstance(song, Dropped):
        return f"{Path(song.source).name}: left out, {song.reason}"
    ratio = f"ratio {song.ratio:.2f}, " if song.ratio is not None else ""
    return f"{song.path.name}: {ratio}{len(song.kept)} kept, {len(song.dropped)} dropped"
