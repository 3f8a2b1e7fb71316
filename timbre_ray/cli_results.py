"""What a user does with results: status, report, generate, export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.object_storage import check_place

if TYPE_CHECKING:
    from timbre_ray.status import SweepStatus

COLUMNS = (
    ("FAD", "fad_held_out", ".2f"),
    ("{partner} rank", "duet_partner_rank", ".1f"),
    ("{partner} alone", "partner_confidence", ".2f"),
)
WIDTH = 150
"""Characters that a line of ``status`` needs; a narrower terminal wraps it."""

WHICH_TRIAL = "A finished trial (its id, or the end of it that reports print), or an arm (its first seed)."

Source = Annotated[
    str,
    typer.Argument(metavar="SWEEP_OR_URL", help="Name of a sweep, folder of its results, its YAML, or the URL where it was run."),
]
Storage = Annotated[str | None, typer.Option(help="Folder or URL of the store; default: run.storage of the sweep.")]
SweepOfTrial = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME_OR_FOLDER", help="Sweep of the trial; default: any of --results.")
]
TargetOfTrial = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="Clip set that the trial learned, where an arm learned several.")
]
Step = Annotated[int | None, typer.Option(help="Scored step whose weights are meant; default: the last.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ResultsRoot = Annotated[Path, typer.Option("--results", help="Folder that holds the results of the sweeps.")]
ResultsOfSweep = Annotated[
    Path | None,
    typer.Option("--results", help="Folder that holds the results of the sweeps; default: run.results of a YAML, else results."),
]


def status(
    source: Source,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of sweeps, with all that is shown.")] = False,
    storage: Storage = None,
    results: ResultsOfSweep = None,
) -> None:
    """Show how a sweep stands: trials by state, the latest scores, reasons of failures. Also while it runs.

    Of a URL, all sweeps that lie there. A running trial's stage is shown on machines that see its folder of results.

    \b
    Examples:
      timbre-ray status mini-ablation
      timbre-ray status mini-ablation --json
      timbre-ray status s3://bucket/prefix
    """
    with clear_errors():
        check_place(storage or "", key="--storage")
        from timbre_ray import finished
        from timbre_ray.status import read_status, read_status_behind

        found = [
            read_status_behind(place.url, place.name)
            if place.url
            else read_status(finished.results_folder(place.name, place.results))
            for place in finished.whereabouts(source, results, storage)
        ]
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
            return
        for one in found:
            _print_status(one)


def report(
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: reports/NAME.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="Arm that all others are compared with; default: the sweep's first.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the baseline's mean, within which an arm is level; default: 0.1.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write nothing; score the stored audio again, and compare the report that is there (give its baseline and "
            "margin). Exit code 1 if a number differs.",
        ),  # fmt: skip
    ] = False,
    storage: Storage = None,
    results: ResultsOfSweep = None,
) -> None:
    """Write the tables and the page of a sweep, also while it runs; or check the numbers of one.

    \b
    Examples:
      timbre-ray report mini-ablation --out reports/mini-ablation
      timbre-ray report mini-ablation --storage s3://bucket/prefix
      timbre-ray report s3://bucket/prefix
      timbre-ray report mini-ablation --check
    """
    with clear_errors():
        from timbre_ray import finished
        from timbre_ray import report as report_package
        from timbre_ray.whole import check_no_file

        if out is not None:
            check_no_file(out, f"--out {out}")
        places = finished.whereabouts(source, results, storage)
        if len(places) > 1:
            names = ", ".join(place.name for place in places)
            raise ValueError(
                f"{source}: several sweeps lie there; name one: timbre-ray report NAME --storage {source} (NAME: {names})"
            )
        (place,) = places
        if place.url:
            finished.fetch_results(place.name, place.results, place.url)
        folder = finished.results_folder(place.name, place.results)
        store, target = finished.store_of(folder, place.url or storage), out or Path("reports") / folder.name
        if check:
            from timbre_ray import cli_check

            raise typer.Exit(cli_check.check(folder, store, target, baseline=baseline, margin=margin))
        typer.echo(f"Report: {report_package.build(folder, store, target, baseline=baseline, margin=margin)}")


def generate(
    prompt: Annotated[str, typer.Argument(help="What to play, the token among it.")],
    source: Annotated[str, typer.Option("--from", metavar="TRIAL_ID_OR_ARM", help=WHICH_TRIAL)],
    sweep: SweepOfTrial = None,
    target: TargetOfTrial = None,
    step: Step = None,
    num: Annotated[int, typer.Option("-n", "--num", min=1, help="Clips.")] = 4,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; must not be there yet.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Device = "auto",
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Generate clips with the model of a finished trial: WAV files, each with a JSON file that says what it is.

    \b
    Example:
      timbre-ray generate --from large-gpt2-prior --sweep mini-ablation --target chinese_flute_v1 \\
          "A recording of a piano with sks flute." -n 4 -o out/
    """
    with clear_errors():
        from timbre_ray import finished

        chosen = finished.trained(source, storage, results, sweep=sweep, target=target, step=step)
        typer.echo(f"Plays {chosen.line}", err=True)
        from timbre_ray import trial
        from timbre_ray.models.device import resolve_device

        for path in trial.generate_from(chosen, prompt, num_clips=num, seed=seed, out=out, device=resolve_device(device)):
            typer.echo(path)


def export(
    source: Annotated[str, typer.Argument(metavar="TRIAL_ID_OR_ARM", help=WHICH_TRIAL)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; must not be there yet.")],
    sweep: SweepOfTrial = None,
    target: TargetOfTrial = None,
    step: Step = None,
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Write a trial's model as a folder that diffusers' AudioLDM2Pipeline.from_pretrained loads.

    \b
    Example:
      timbre-ray export large-gpt2-lora --sweep mini-ablation --target chinese_flute_v1 --out my-flute
    """
    with clear_errors():
        from timbre_ray import finished

        chosen = finished.trained(source, storage, results, sweep=sweep, target=target, step=step)
        typer.echo(f"Exports {chosen.line}", err=True)
        from timbre_ray import trial

        trial.export(chosen.spec, step=chosen.step, out=out, store=chosen.store, recordings=chosen.recordings)
        typer.echo(f"{out}: {source} after {chosen.step} steps")


def _print_status(status: SweepStatus) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, WIDTH))
    console.print(status.line, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "state", "stage", "step", *(name.format(partner=status.partner) for name, _, _ in COLUMNS), "time"):
        table.add_column(name, justify="left" if name in ("trial", "state", "stage") else "right", no_wrap=True)
    for trial in status.trials:
        scores = [format(trial.metrics[key], form) if key in trial.metrics else "" for _, key, form in COLUMNS]
        step = "" if trial.step is None else str(trial.step)
        minutes, seconds = divmod(round(trial.seconds), 60)
        table.add_row(trial.trial_id, trial.state, trial.stage, step, *scores, f"{minutes} min {seconds:02d} s")
    if status.trials:
        console.print(table)
    for trial in status.trials:
        if trial.error:
            console.print(f"failed {trial.trial_id}: {trial.error}", highlight=False, markup=False, soft_wrap=True)
