"""``timbre-ray init``: a sweep for one's own recordings, after a few questions or none."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from timbre_ray.cli_errors import clear_errors

QUESTIONS = {
    "clips": "Folder of recordings of the new instrument",
    "instrument": "Known instrument that it is a kind of",
    "partner": "Known instrument that must survive",
    "target_class": "The classifier's class for it",
}


def init(
    path: Annotated[Path, typer.Argument(metavar="SWEEP", help="YAML file to write; must not be there yet.")],
    clips: Annotated[str | None, typer.Option(metavar="PATH", help="Folder of recordings, or mini:NAME.")] = None,
    instrument: Annotated[str | None, typer.Option(help="Known instrument that the new one is a kind of.")] = None,
    partner: Annotated[str | None, typer.Option(help="Known instrument whose survival is measured.")] = None,
    target_class: Annotated[str | None, typer.Option(help="The classifier's class for the new instrument.")] = None,
    token: Annotated[str, typer.Option(help="Rare word that will name the new timbre.")] = "sks",
    backbone: Annotated[str, typer.Option(help="mini, a hub id such as cvssp/audioldm2-large, or a folder.")] = "mini",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Seeds of every arm.")] = 3,
) -> None:
    """Write a commented sweep for your own recordings. What no flag says is asked, where there is somebody to ask.

    \b
    Examples:
      timbre-ray init my-flute.yaml
      timbre-ray init my-flute.yaml --clips recordings/flute --instrument flute --partner piano
    """
    with clear_errors():
        from timbre_ray.new_sweep import Answers, write_sweep

        given = {"clips": clips, "instrument": instrument, "partner": partner, "target_class": target_class}
        defaults = Answers()
        chosen = {name: _ask(QUESTIONS[name], getattr(defaults, name)) if v is None else v for name, v in given.items()}
        num_trials = write_sweep(Answers(**chosen, token=token, backbone=backbone, num_seeds=seeds), path)
        typer.echo(f"{path}: {num_trials} trials. Next: timbre-ray plan {shlex.quote(str(path))}")


def _ask(question: str, default: str) -> str:
    return typer.prompt(question, default=default) if sys.stdin.isatty() else default
