"""``timbre-ray classifier``: train one's own judge of instruments, and measure it. Heavy imports wait for a command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.cli_results import Device

if TYPE_CHECKING:
    from timbre_ray.classifier_specs import InstrumentDataSpec

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

NSynth = Annotated[Path, typer.Argument(metavar="NSYNTH", help="Folder with nsynth-train, nsynth-valid and nsynth-test.")]
Folders = Annotated[
    list[str] | None,
    typer.Option("--folder", metavar="CLASS=DIR", help="Songs of an instrument of your own, split by song; may be repeated."),
]
Work = Annotated[Path, typer.Option(help="Folder for AudioMAE's features, which are computed once.")]


@app.callback()
def options() -> None:
    """Train the instrument classifier of the paper's section 4.1, and measure it.

    \b
    Example:
      timbre-ray classifier train data/nsynth --folder 'chinese flute=data/flute' --out classifiers/mine
    """


@app.command()
def train(
    nsynth: NSynth,
    out: Annotated[Path, typer.Option(help="Folder to write; must not be there yet.")],
    folder: Folders = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="FAMILY=CLASS", help="Another name for a family of NSynth; may be repeated.")
    ] = None,
    audiomae: Annotated[
        str | None,
        typer.Option(
            help="AudioMAE to listen through: a folder, an original .pth or a hub id in timm's layout; default: the miniature's."
        ),
    ] = None,
    work: Work = Path("store/classifier"),
    epochs: Annotated[int, typer.Option(help="Passes over the examples.")] = 120,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Adam's step size.")] = 1e-3,
    mixtures: Annotated[float, typer.Option(help="Mixtures of two instruments for each example; 0 for none.")] = 1.0,
    class_weights: Annotated[bool, typer.Option(help="Let rare classes count as much as common ones.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    device: Device = "auto",
) -> None:
    """Train a classifier on NSynth's layout and on folders of songs.

    \b
    Examples:
      timbre-ray classifier train data/nsynth --out classifiers/nsynth
      timbre-ray classifier train data/nsynth --rename keyboard=piano \\
          --folder 'chinese flute=data/flute' --folder 'chinese lute=data/lute' --out classifiers/mine
    """
    with clear_errors():
        from timbre_ray import classifier_runs
        from timbre_ray.classifier_specs import ClassifierSpec
        from timbre_ray.models.device import resolve_device

        spec = ClassifierSpec(
            epochs=epochs, batch_size=batch_size, lr=lr, mixtures=mixtures, class_weights=class_weights, seed=seed
        )
        log = classifier_runs.train(
            _data(nsynth, folder, rename), spec, out=out, work=work, audiomae=audiomae or str(classifier_runs.MINI_AUDIOMAE),
            device=resolve_device(device), command=_command(), say=typer.echo,
        )  # fmt: skip
        typer.echo(f"{len(log)} epochs; classifier: {out}")


@app.command()
def evaluate(
    classifier: Annotated[Path, typer.Argument(metavar="CLASSIFIER", help="Folder that `classifier train` wrote.")],
    nsynth: NSynth,
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    folder: Folders = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    work: Work = Path("store/classifier"),
    device: Device = "auto",
) -> None:
    """Print and write accuracy, precision, recall, average precision and the confusion matrix.

    \b
    Example:
      timbre-ray classifier evaluate classifiers/nsynth data/nsynth --out reports/classifier
    """
    with clear_errors():
        from timbre_ray import classifier_runs
        from timbre_ray.data.nsynth import SPLITS
        from timbre_ray.models.device import resolve_device
        from timbre_ray.report.classifier import write_classifier_report
        from timbre_ray.whole import check_no_file

        check_no_file(out, f"--out {out}")
        if split not in SPLITS:
            raise ValueError(f"--split {split}: must be one of {', '.join(SPLITS)}")
        found = classifier_runs.evaluate(
            classifier, _data(nsynth, folder, None), split=split, work=work, device=resolve_device(device),
            say=typer.echo,
        )  # fmt: skip
        report = write_classifier_report(out, found, commands=(found.training["command"], _command()))
        _print(report)
        typer.echo(f"Report: {report}")


def _command() -> str:
    """This very command, for the record."""
    return shlex.join(["timbre-ray", *sys.argv[1:]])


def _data(nsynth: Path, folders: list[str] | None, rename: list[str] | None) -> InstrumentDataSpec:
    from timbre_ray.classifier_specs import InstrumentDataSpec
    from timbre_ray.data.nsynth import FAMILIES
    from timbre_ray.sweep_yaml import nearest

    renamed = tuple(_pair("--rename", value, "FAMILY=CLASS") for value in rename or ())
    for family, _ in renamed:
        if family not in FAMILIES:
            raise ValueError(f"--rename {family}: no family of NSynth; {nearest(family, FAMILIES)}")
    pairs = [_pair("--folder", value, "CLASS=DIR") for value in folders or ()]
    return InstrumentDataSpec(nsynth=nsynth, folders=tuple((name, Path(path)) for name, path in pairs), rename=renamed)


def _pair(option: str, value: str, form: str) -> tuple[str, str]:
    name, equals, rest = value.partition("=")
    if not (name and equals and rest):
        raise ValueError(f"{option} {value!r}: must be {form}")
    return name, rest


def _print(report: Path) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=max(Console().width, 118))
    console.print(Markdown(report.read_text(encoding="utf-8").partition("## Confusion")[0]))
