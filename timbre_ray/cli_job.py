"""``timbre-ray job``: runs that a cluster does by itself, handed over with ``timbre-ray run --detach``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timbre_ray.cli_errors import clear_errors
from timbre_ray.object_storage import check_place

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

JobId = Annotated[str, typer.Argument(metavar="ID", help="What `timbre-ray run --detach` printed.")]
Address = Annotated[str, typer.Option(help="The cluster's dashboard, as `ray dashboard cluster.yaml` opens it.")]
DASHBOARD = "http://127.0.0.1:8265"


@app.callback()
def group() -> None:
    """Runs on a cluster that go on without this machine.

    \b
    Example:
      timbre-ray job logs ID --follow
    """


@app.command()
def logs(
    job_id: JobId,
    address: Address = DASHBOARD,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
) -> None:
    """Show what a run has printed.

    \b
    Example:
      timbre-ray job logs mini-ablation-20260101-120000 --follow
    """
    with clear_errors():
        from timbre_ray.cluster import jobs

        jobs.logs(job_id, address=address, follow=follow, write=lambda text: typer.echo(text, nl=False))


@app.command()
def status(job_id: JobId, address: Address = DASHBOARD) -> None:
    """Show whether a run waits, runs, or how it ended.

    \b
    Example:
      timbre-ray job status mini-ablation-20260101-120000
    """
    with clear_errors():
        from timbre_ray.cluster import jobs

        typer.echo(jobs.status(job_id, address=address))


@app.command()
def stop(job_id: JobId, address: Address = DASHBOARD) -> None:
    """End a run. What it finished is kept: handed over again, it goes on from there.

    \b
    Example:
      timbre-ray job stop mini-ablation-20260101-120000
    """
    with clear_errors():
        from timbre_ray.cluster import jobs

        typer.echo("stopping" if jobs.stop(job_id, address=address) else "had ended already")


def detach(sweep_file: Path, *, address: str | None, options: list[str]) -> None:
    """Hands a sweep over. Its recordings and folders lie on the cluster, so the cluster alone can check them."""
    from timbre_ray.cluster import jobs
    from timbre_ray.sweep_yaml import read_yaml

    if address is None:
        raise ValueError(f"--detach needs the cluster's dashboard: --address {DASHBOARD}")
    data, _ = read_yaml(sweep_file)
    run = data.get("run")
    if isinstance(run, dict):  # a secret in the file would be sent away with it
        check_place(str(run.get("storage", "")), key="run.storage")
    job_id = jobs.submit(sweep_file, name=str(data.get("name", sweep_file.stem)), address=address, options=options)
    typer.echo(job_id)
    typer.echo(f"Its output: timbre-ray job logs {job_id} --address {address} --follow", err=True)
