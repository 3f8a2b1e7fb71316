"""``timbre-ray store``: looking after the folder, or the URL, that holds every result."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.object_storage import check_place, folder_of, is_url

if TYPE_CHECKING:  # at run time only where a command needs it: --help is read more often
    from timbre_ray import store_care

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Root = Annotated[str, typer.Option("--storage", help="Folder or URL of the store, as run.storage of a sweep.")]


@app.callback()
def group() -> None:
    """The store of artifacts: are they whole, how large are they, what may go.

    \b
    Example:
      timbre-ray store verify
    """


@app.command()
def verify(storage: Root = "store") -> None:
    """Read every file of every artifact and compare it with artifact.json. Exit code 1 if one is not what it was.

    \b
    Example:
      timbre-ray store verify --storage store
    """
    with clear_errors():
        num, bad = 0, 0
        for checked in _care(storage).verify():
            num += 1
            bad += bool(checked.problems)
            for problem in checked.problems:
                typer.echo(f"{storage}/artifacts/{checked.stage}/{checked.key}: {problem}", err=True)
        typer.echo(f"{num} artifacts, {bad} bad")
        if bad:
            typer.echo(
                "Remove the folder (behind a URL: artifact.json) of a bad one: the next trial that needs it computes it again. "
                "A finished trial does not run again unless its record below results/<sweep>/trials is removed too.",
                err=True,
            )
            raise typer.Exit(1)


@app.command()
def du(storage: Root = "store") -> None:
    """Show how much each stage's artifacts take, the largest first.

    \b
    Example:
      timbre-ray store du
    """
    with clear_errors():
        rows = _care(storage).usage()
        for row in rows:
            typer.echo(f"{row.stage:16} {row.num_artifacts:6} artifacts {_size(row.num_bytes):>10}")
        total = sum(row.num_artifacts for row in rows)
        typer.echo(f"{'all':16} {total:6} artifacts {_size(sum(row.num_bytes for row in rows)):>10}")


@app.command()
def gc(
    storage: Root = "store",
    days: Annotated[
        float, typer.Option(min=0, help="Checkpoints, and uploads behind a URL, that nobody touched for longer are garbage.")
    ] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
) -> None:
    """List what killed processes left behind and old checkpoints of stages that were never finished. Artifacts always stay.

    \b
    Examples:
      timbre-ray store gc
      timbre-ray store gc --days 7 --yes
    """
    with clear_errors():
        found = _care(storage).collect_garbage(days=days, remove=yes)
        for item in found:
            typer.echo(f"{item.folder}: {item.reason}, {_size(item.num_bytes)}")
        words = "removed" if yes else "to remove (nothing was: add --yes)"
        typer.echo(f"{len(found)} folders, {_size(sum(item.num_bytes for item in found))} {words}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Care:
    """What can be done to a store, wherever it is."""

    verify: Callable[[], Iterable[store_care.Checked]]
    usage: Callable[[], list[store_care.Usage]]
    collect_garbage: Callable[..., list[store_care.Garbage]]


def _care(storage: str) -> _Care:
    check_place(storage, key="--storage")
    if is_url(storage):
        from timbre_ray import remote_care as module

        place = module.checked_tier(storage)
    else:
        from timbre_ray import store_care as module

        place = module.checked_root(folder_of(storage))
    care = {name: functools.partial(getattr(module, name), place) for name in ("verify", "usage", "collect_garbage")}
    return _Care(**care)


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
