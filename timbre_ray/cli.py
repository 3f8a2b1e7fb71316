"""The command line. Nothing heavy is imported before a command needs it: help appears at once."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timbre_ray import cli_classifier, cli_data, cli_init, cli_job, cli_plan, cli_status, cli_store

if TYPE_CHECKING:
    from timbre_ray.cluster.run import Outcome
    from timbre_ray.specs import TrialSpec
    from timbre_ray.store import Store
    from timbre_ray.sweep import Sweep

OK, TRIALS_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
ERROR_FOUND = 1  # by doctor

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_classifier.app, name="classifier")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_job.app, name="job")
app.add_typer(cli_store.app, name="store")
app.command()(cli_init.init)

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="YAML file of the sweep.")]
Storage = Annotated[str | None, typer.Option(help="Folder of the store; default: run.storage of the sweep.")]
Results = Annotated[str | None, typer.Option(help="Folder of the results; default: run.results of the sweep.")]
ResultsRoot = Annotated[Path, typer.Option("--results", help="Folder that holds the results of the sweeps.")]
Clips = Annotated[
    str | None, typer.Option(metavar="PATH", help="Recordings to learn from, instead of base.clips.path, in every trial.")
]


@dataclasses.dataclass
class _Settings:
    debug: bool = False


_settings = _Settings()


def main() -> None:
    """Entry point of ``timbre-ray``."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
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
    _settings.debug = debug


@app.command()
def plan(sweep_file: SweepFile, storage: Storage = None, results: Results = None, clips: Clips = None) -> None:
    """Show the trials of a sweep, what a run would do (keep, run, changed, orphaned) and what it would cost.

    \b
    Example:
      timbre-ray plan sweeps/mini-ablation.yaml
    """
    with _clear_errors():
        cli_plan.show_plan(_load(sweep_file, storage=storage, results=results, clips=clips))


@app.command()
def doctor(sweep_file: SweepFile, storage: Storage = None, results: Results = None, clips: Clips = None) -> None:
    """Say what is missing for a sweep before it is run: GPU, weights, disk, recordings, classes. Fetches and computes nothing.

    Exit code 1 if an error is found; warnings leave it 0.

    \b
    Example:
      timbre-ray doctor sweeps/ablation.yaml
    """
    with _clear_errors():
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
        typer.Option(help="A Ray cluster: auto on one of its nodes, its dashboard with --detach; default: this machine."),
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
      timbre-ray run sweeps/demo.yaml
      timbre-ray run sweeps/demo.yaml --clips recordings/my_flute
      timbre-ray run sweeps/mini-ablation.yaml --address http://127.0.0.1:8265 --detach
    """
    with _clear_errors():
        if detach:
            chosen = {"--storage": storage, "--results": results, "--clips": clips}
            words = [word for name, value in chosen.items() if value is not None for word in (name, value)]
            cli_job.detach(sweep_file, address=address, options=words if report else [*words, "--no-report"])
            return
        if address is not None and address.startswith(("http://", "https://")):
            raise ValueError(f"--address={address!r}: a dashboard takes jobs alone; add --detach")
        from timbre_ray.cluster.run import run_sweep

        sweep = _load(sweep_file, storage=storage, results=results, clips=clips)
        try:
            outcome = run_sweep(sweep, address=address)
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from here.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        _echo_outcome(outcome)
        if report and (outcome.finished or outcome.num_kept):
            page = _build_report(outcome.results, Path(sweep.run.storage), Path("reports") / sweep.name)
            _print_tables(page.with_name("report.md"))
            typer.echo(f"Report: {page}")
        raise typer.Exit(outcome.exit_code)


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_FOLDER", help="Name of a sweep, or the folder of its results.")],
    results: ResultsRoot = Path("results"),
) -> None:
    """Show how a sweep stands: trials by state, the latest scores, reasons of failures. Also while it runs.

    \b
    Example:
      timbre-ray status mini-ablation
    """
    with _clear_errors():
        cli_status.show_status(_results_folder(name, results))


@app.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_FOLDER", help="Name of a sweep, or the folder of its results.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: reports/NAME.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="Arm that all others are compared with; default: the sweep's first.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the baseline's mean, within which an arm is level; default: 0.1.")
    ] = None,
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Write the tables and the page of a sweep, also while it runs.

    \b
    Example:
      timbre-ray report mini-ablation --out reports/mini-ablation
    """
    with _clear_errors():
        folder = _results_folder(name, results)
        from timbre_ray import report as report_package

        root, target = _store_root(folder, storage), out or Path("reports") / folder.name
        typer.echo(f"Report: {report_package.build(folder, root, target, baseline=baseline, margin=margin)}")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to play, the token among it.")],
    source: Annotated[
        str, typer.Option("--from", metavar="TRIAL_ID_OR_ARM", help="A finished trial, or an arm (its first seed).")
    ],
    num: Annotated[int, typer.Option("-n", "--num", min=1, help="Clips.")] = 4,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")] = Path("out"),
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Generate clips with the model of a finished trial.

    \b
    Example:
      timbre-ray generate --from large-gpt2-prior "A recording of a piano with sks flute." -n 4 -o out/
    """
    with _clear_errors():
        spec, step, store = _trained(source, storage, results)
        from timbre_ray import trial

        for path in trial.generate_from(spec, prompt, step=step, num_clips=num, seed=seed, out=out, store=store):
            typer.echo(path)


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="TRIAL_ID_OR_ARM", help="A finished trial, or an arm (its first seed).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; must not be there yet.")],
    storage: Storage = None,
    results: ResultsRoot = Path("results"),
) -> None:
    """Write a trial's model as a folder that diffusers' AudioLDM2Pipeline.from_pretrained loads.

    \b
    Example:
      timbre-ray export large-gpt2-lora --out my-flute
    """
    with _clear_errors():
        spec, step, store = _trained(source, storage, results)
        from timbre_ray import trial

        trial.export(spec, step=step, out=out, store=store)
        typer.echo(f"{out}: {source} after {step} steps")


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """The user's mistakes end in one message and exit code 2; --debug shows the traceback as well."""
    try:
        yield
    except (ValueError, OSError, LookupError, RuntimeError) as error:
        if _settings.debug or isinstance(error, typer.Exit):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(BAD_INPUT) from None


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


def _build_report(results: Path, store: Path, out: Path) -> Path:
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



def _results_folder(name: str, results: Path) -> Path:
    for folder in (results / name, Path(name)):
        if (folder / "trials").is_dir():
            return folder
    raise ValueError(f"{name}: no results found, neither in {results / name} nor in {name}. {_known_names(name, results)}")


def _known_names(name: str, results: Path) -> str:
    names = [p.parent.name for p in sorted(results.glob("*/trials"))]
    return _nearest(name, names) if names else f"{results} holds no results yet: start with `timbre-ray run`."


def _store_root(results_folder: Path, storage: str | None) -> Path:
    from timbre_ray.ledger import Ledger

    return Path(storage or Ledger(results_folder).sweep()["run"]["storage"])


def _trained(source: str, storage: str | None, results: Path) -> tuple[TrialSpec, int, Store]:
    """The spec of a finished trial, its last scored step, and the store that holds its weights."""
    folder, record = _find_trial(source, results)
    from pydantic import TypeAdapter

    from timbre_ray.specs import TrialSpec
    from timbre_ray.store import Store

    spec = TypeAdapter(TrialSpec).validate_python(record["spec"])
    return spec, record["evaluations"][-1]["step"], Store(_store_root(folder, storage))


def _find_trial(source: str, results: Path) -> tuple[Path, dict[str, Any]]:
    """The newest finished trial of that id, else of that arm with the lowest seed."""
    from timbre_ray.ledger import Ledger

    found = [
        (p.parent, r) for p in sorted(results.glob("*/trials")) for r in Ledger(p.parent).trials() if r["status"] == "finished"
    ]
    matches = [f for f in found if f[1]["trial_id"] == source] or [f for f in found if f[1]["arm"] == source]
    if not matches:
        names = [r["trial_id"] for _, r in found] + sorted({r["arm"] for _, r in found})
        hint = _nearest(source, names) if names else f"{results} holds no finished trial yet: start with `timbre-ray run`."
        raise ValueError(f"{source}: no finished trial and no arm of that name in {results}. {hint}")
    return min(matches, key=lambda f: (f[1]["seed"], -f[1]["finished"]))


def _nearest(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    return f"Did you mean {close[0]}?" if close else f"There are: {', '.join(names[:10])}."
