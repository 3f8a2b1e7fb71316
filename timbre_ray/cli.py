"""The command line. Nothing heavy is imported before a command needs it: help appears at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timbre_ray import cli_classifier, cli_compare, cli_data, cli_init, cli_job, cli_plan, cli_results, cli_store
from timbre_ray.cli_errors import INTERRUPTED, OK, clear_errors, outlive_the_reader, settings
from timbre_ray.cli_results import Storage
from timbre_ray.object_storage import check_place

if TYPE_CHECKING:
    from timbre_ray.cluster.run import Outcome
    from timbre_ray.store import Store
    from timbre_ray.sweep import Sweep

ERROR_FOUND = 1  # by doctor

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_classifier.app, name="classifier")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_job.app, name="job")
app.add_typer(cli_store.app, name="store")
app.command()(cli_init.init)

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="YAML file of the sweep.")]
Results = Annotated[str | None, typer.Option(help="Folder of the results; default: run.results of the sweep.")]
Clips = Annotated[
    str | None, typer.Option(metavar="PATH", help="Recordings to learn from, instead of base.clips.path, in every trial.")
]


def main() -> None:
    """Entry point of ``timbre-ray``."""
    outlive_the_reader()
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"timbre-ray {importlib.metadata.version('timbre-ray')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Teach AudioLDM2 the timbre of an instrument, in many ways at once, and compare them.

    \b
    Example:
      timbre-ray run sweeps/demo.yaml
    """
    settings.debug = debug


@app.command()
def plan(sweep_file: SweepFile, storage: Storage = None, results: Results = None, clips: Clips = None) -> None:
    """Show the trials of a sweep, what a run would do (keep, run, changed, orphaned) and what it would cost.

    \b
    Example:
      timbre-ray plan sweeps/mini-ablation.yaml
    """
    with clear_errors():
        cli_plan.show_plan(_load(sweep_file, storage=storage, results=results, clips=clips))


@app.command()
def doctor(sweep_file: SweepFile, storage: Storage = None, results: Results = None, clips: Clips = None) -> None:
    """Say what is missing for a sweep before it is run: GPU, weights, disk, recordings, classes. Fetches and computes nothing.

    Exit code 1 if an error is found; warnings leave it 0.

    \b
    Example:
      timbre-ray doctor sweeps/ablation.yaml
    """
    with clear_errors():
        from timbre_ray.doctor import examine, unusable
        from timbre_ray.sweep import SweepError

        try:
            findings = examine(_load(sweep_file, storage=storage, results=results, clips=clips))
        except SweepError as error:
            findings = unusable(error)
        cli_plan.show_findings(findings)
        raise typer.Exit(ERROR_FOUND if any(finding.level == "error" for finding in findings.values()) else OK)


@app.command()
def run(
    sweep_file: SweepFile,
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster: auto on one of its nodes, its dashboard with --detach; default: RAY_ADDRESS, else this machine."
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Hand the sweep to the cluster as a Ray Job and leave.")] = False,
    storage: Storage = None,
    results: Results = None,
    clips: Clips = None,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
) -> None:
    """Run what a sweep lacks. Stopped at any moment, the same command goes on where it was.

    \b
    Examples:
      timbre-ray run sweeps/mini-ablation.yaml
      timbre-ray run sweeps/demo.yaml --clips recordings/my_flute
      timbre-ray run sweeps/mini-ablation.yaml --address http://127.0.0.1:8265 --detach
    """
    with clear_errors():
        check_place(storage or "", key="--storage")
        if detach:
            chosen = {"--storage": storage, "--results": results, "--clips": clips}
            words = [word for name, value in chosen.items() if value is not None for word in (name, value)]
            cli_job.detach(sweep_file, address=address, options=words if report else [*words, "--no-report"])
            return
        if address is not None and address.startswith(("http://", "https://")):
            raise ValueError(f"--address={address!r}: a dashboard takes jobs alone; add --detach")
        from timbre_ray.cluster.run import run_sweep
        from timbre_ray.remote_tier import open_store

        sweep = _load(sweep_file, storage=storage, results=results, clips=clips)
        try:
            outcome = run_sweep(sweep, address=address)
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from here.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        _echo_outcome(outcome)
        if report and (outcome.finished or outcome.num_kept):
            page = _build_report(outcome.results, open_store(sweep.run.storage, sweep.run.cache), Path("reports") / sweep.name)
            _print_tables(page.with_name("report.md"))
            typer.echo(f"Report: {page}")
            if outcome.failed or outcome.num_unfinished:  # which the tables have pushed out of sight
                _echo_outcome(outcome)
        raise typer.Exit(outcome.exit_code)


for command in (cli_results.status, cli_results.report, cli_compare.compare, cli_results.generate, cli_results.export):
    app.command()(command)


def _load(path: Path, *, storage: str | None, results: str | None, clips: str | None) -> Sweep:
    from timbre_ray.sweep import load_sweep

    sweep = load_sweep(path, clips=clips)
    changes = {name: value for name, value in (("storage", storage), ("results", results)) if value is not None}
    return dataclasses.replace(sweep, run=dataclasses.replace(sweep.run, **changes))


def _echo_outcome(outcome: Outcome) -> None:
    typer.echo(f"{len(outcome.finished)} finished, {outcome.num_kept} kept, {len(outcome.failed)} failed: {outcome.results}")
    if outcome.num_unfinished:
        typer.echo(f"{outcome.num_unfinished} not finished within run.time_budget_s; the same command goes on.", err=True)
    for trial_id, reason in outcome.failed.items():
        typer.echo(f"  failed {trial_id}: {reason}", err=True)


def _build_report(results: Path, store: Store, out: Path) -> Path:
    from timbre_ray import report as report_package

    return report_package.build(results, store, out)


def _print_tables(report: Path) -> None:
    """The question, the answer and the tables; the comparisons behind the verdicts stay in the report."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=max(Console().width, 118))
    head, _, rest = report.read_text(encoding="utf-8").partition("## Claims")
    tables = rest.partition("## Tables")[2].partition("## Made with")[0]
    console.print(Markdown(head + "## Tables" + tables))
