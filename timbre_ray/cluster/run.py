"""Runs a sweep on Ray: what the ledger lacks, with one display, to an outcome with reasons for what failed."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from timbre_ray.cluster import ahead
from timbre_ray.cluster.autoscaling import startable_nodes
from timbre_ray.cluster.baselines import Baseline, Baselines, missing_baselines
from timbre_ray.cluster.board import Board
from timbre_ray.cluster.display import Display
from timbre_ray.cluster.exporters import check_installed, exporter_callbacks
from timbre_ray.cluster.functions import Functions, Worker, device_of_a_trial
from timbre_ray.cluster.progress import SweepCallback, error_text
from timbre_ray.cluster.provenance import provenance
from timbre_ray.cluster.resources import (
    NOTHING,
    check_feasible,
    check_reachable,
    cluster_address,
    credentials_kept_back,
    living_nodes,
    ray_session,
    what_is_free,
)
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.search import GridPlan, SearchPlan, tune_config
from timbre_ray.cluster.storage_probe import check_every_node, check_locks
from timbre_ray.cluster.todo import Todo, check_kept, in_words, what_is_left
from timbre_ray.cluster.trainable import HUNG_FOLDER, TrialContext, tune_function
from timbre_ray.cluster.unfit import departures
from timbre_ray.companions import companions
from timbre_ray.ledger import Ledger, common_partner
from timbre_ray.object_storage import folder_of, is_url
from timbre_ray.remote_tier import cache_of, local_root, open_store
from timbre_ray.run_specs import RunSpec
from timbre_ray.shared_disk import SharedDisk
from timbre_ray.sole_driver import alone
from timbre_ray.sweep import Sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    results: Path
    """Folder of the ledger."""
    num_kept: int
    finished: tuple[str, ...]
    """Trials that this run finished."""
    failed: dict[str, str]
    """Trial, or ``baseline of TARGET``, -> reason."""
    num_unfinished: int
    """Trials that the time budget left over."""

    @property
    def exit_code(self) -> int:
        return 1 if self.failed or self.num_unfinished else 0


def run_sweep(
    sweep: Sweep, *, address: str | None = None, functions: Functions | None = None, console: Console | None = None
) -> Outcome:
    """Runs what is not finished. Killed at any moment and called again, it goes on: the store holds every finished stage,
    the ledger every finished trial.

    One Ray session a process: after another one has ended in the same process, Tune's trials fail to start (seen on Ray 2.60).

    Raises InfeasibleError if the cluster can never hold a trial, DiskNotSharedError if a node does not see
    run.storage and run.results, ValueError if a package of run.exporters is not installed, and RuntimeError if
    another driver runs the same sweep.
    """
    console, functions, address = console or Console(), functions or Functions(), cluster_address(address)
    check_reachable(address)
    check_installed(sweep.run.exporters)
    results = (Path(sweep.run.results) / sweep.name).resolve()
    ledger = Ledger.of(results, sweep.run.storage, patience_s=sweep.run.storage_patience_s)
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    with alone(results, sweep.run.storage, patience_s=sweep.run.storage_patience_s, say=say) as check_alone:
        ledger.sync()
        todo = what_is_left(sweep, ledger)
        check_kept(sweep, ledger, todo)
        ledger.write_sweep(_sweep_record(sweep))
        floors = missing_baselines(sweep.trials, ledger)
        ledger.mark(todo.difference)
        say(in_words(sweep, todo))
        if not todo.num_trials and not floors:
            return Outcome(results=results, num_kept=todo.num_kept, finished=(), failed={}, num_unfinished=0)
        with ray_session(address=address, threads=sweep.run.threads):
            outcome = _run_on_ray(
                sweep, todo=todo, floors=floors, ledger=ledger, results=results, functions=functions, console=console,
                address=address, check_alone=check_alone,
            )  # fmt: skip
        ledger.pull()  # what other nodes wrote
        return outcome


def _run_on_ray(
    sweep: Sweep, *, todo: Todo, floors: Mapping[str, Baseline], ledger: Ledger, results: Path, functions: Functions,
    console: Console, address: str | None, check_alone: Callable[[], None],
) -> Outcome:  # fmt: skip
    run = sweep.run
    nodes = living_nodes()
    layout = check_feasible(
        train=run.resources.train, score=run.resources.score, num_scorers=run.num_scorers, nodes=list(nodes.values()),
        startable=startable_nodes() if address else NOTHING,
    )  # fmt: skip
    remote_url = run.storage if is_url(run.storage) else None
    disks = _checked_disks(sweep, results, console) if address and not remote_url else ()
    device = device_of_a_trial(run.device, run.resources.train)
    worker = Worker(
        store_root=_root(run), device=device, threads=run.threads, disks=disks, remote_url=remote_url,
        patience_s=run.storage_patience_s, resources=run.resources.train,
        driver_node=ray.get_runtime_context().get_node_id() if address else "",
    )  # fmt: skip
    scorer = dataclasses.replace(  # its node need not have a GPU
        worker, device="auto" if device == "cuda" else device, resources=run.resources.score
    )
    scorers = ScorerPool.start(
        num_scorers=run.num_scorers, resources=run.resources.score, worker=scorer, functions=functions,
        hang_timeout_s=run.hang_timeout_s, hung_folder=results / HUNG_FOLDER,
        nodes=[None if place is None else list(nodes)[place] for place in layout.scorers],
    )  # fmt: skip
    concurrency = min(layout.slots, run.max_concurrent or layout.slots)
    stored = ahead.stored(todo.trials, worker.store())
    lacking = [trial for trial in todo.trials if trial.trial_id not in stored]
    along = companions(lacking, at_once=run.train_together, slots=concurrency)
    try:
        context = TrialContext(
            ledger_folder=results, worker=worker, functions=functions, scorers=scorers,
            companions=along,
            plan=GridPlan({t.trial_id: t for t in todo.trials}) if sweep.search is None else SearchPlan(sweep),
            objectives=tuple(sweep.search.objectives) if sweep.search else (), hang_timeout_s=run.hang_timeout_s,
        )  # fmt: skip
        baselines = Baselines(floors, context=context, scored=todo.scored)
        board = Board(
            num_trials=todo.num_trials, num_kept=todo.num_kept, progress_folder=results / "progress", concurrency=concurrency,
            partner=common_partner(trial.spec.clips.partner for trial in sweep.trials),
            kinds=ahead.kinds(todo.trials, stored, along),
        )  # fmt: skip
        if todo.num_trials:
            with credentials_kept_back(), Display(board, console, title=sweep.name):
                left_before, keeper = departures(), SweepCallback(
                    context=context, board=board, check_alone=check_alone,
                    why_idle=functools.partial(what_is_free, run.resources.train),
                )  # fmt: skip
                _fit(
                    sweep, todo=todo, context=context, callbacks=[keeper, baselines], board=board, slots=layout.slots,
                    scratch=results / ".tune",
                )  # fmt: skip
                for told in departures():
                    if told not in left_before:  # such as the node of a scorer, which no trial has told of
                        board.notice(told)
        failed_floors = baselines.wait()
    finally:
        scorers.stop()
    return _outcome(board, results=results, failed_floors=failed_floors)


def _root(run: RunSpec) -> Path:
    """The folder that nodes work in; behind a URL below the home of each node's own user, if ``run.cache`` has it there."""
    if not is_url(run.storage):
        return local_root(run.storage).resolve()
    root = cache_of(run.storage, run.cache)
    return root if run.cache.startswith("~") else root.resolve()


def _checked_disks(sweep: Sweep, results: Path, console: Console) -> tuple[SharedDisk, ...]:
    """The folders that every node must see; those that join later check for themselves."""
    disks = (SharedDisk.of("run.storage", folder_of(sweep.run.storage).resolve()), SharedDisk.of("run.results", results))
    check_every_node(disks)
    for line in check_locks(disks):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return disks


def _fit(
    sweep: Sweep,
    *,
    todo: Todo,
    context: TrialContext,
    callbacks: list[tune.Callback],
    board: Board,
    slots: int,
    scratch: Path,
) -> None:
    """Tune's own folder holds nothing that the ledger lacks: it is emptied before and removed after."""
    shutil.rmtree(scratch, ignore_errors=True)
    exporters = exporter_callbacks(sweep, context=context, history=todo.history, say=board.notice)
    space = {"trial_id": tune.grid_search([t.trial_id for t in todo.trials])} if todo.history is None else {}
    tune.Tuner(
        tune.with_resources(tune_function(ray.put(context)), dict(sweep.run.resources.train)),
        param_space=space,
        tune_config=tune_config(sweep, history=todo.history, slots=slots, num_running=functools.partial(board.count, "running")),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=sweep.run.max_failures),
            callbacks=[*callbacks, *exporters],
        ),
    ).fit()
    shutil.rmtree(scratch, ignore_errors=True)


def _outcome(board: Board, *, results: Path, failed_floors: dict[str, dict[str, str]]) -> Outcome:
    rows = board.rows.values()
    failed = {row.trial_id: row.error for row in rows if row.state == "failed"}
    failed |= {f"baseline of {target}": error_text(error) for target, error in failed_floors.items()}
    return Outcome(
        results=results,
        num_kept=board.num_kept,
        finished=tuple(row.trial_id for row in rows if row.state in ("finished", "stopped early")),
        failed=failed,
        num_unfinished=board.num_trials - board.num_ended,
    )


def _sweep_record(sweep: Sweep) -> dict[str, Any]:
    return {
        "name": sweep.name, "question": sweep.question, "arms": list(sweep.arms), "text": sweep.text,
        "planned": sweep.search.num_trials if sweep.search else [trial.trial_id for trial in sweep.trials],
        "objectives": sweep.search.objectives if sweep.search else {},
        "space": {key: dataclasses.asdict(dimension) for key, dimension in sweep.search.space.items()} if sweep.search else {},
        "ablation": {"design": sweep.ablation.design, "arms": sweep.ablation.arms} if sweep.ablation else None,
        "run": dataclasses.asdict(sweep.run), "store": open_store(sweep.run.storage, sweep.run.cache).place,
        "provenance": provenance(),
    }  # fmt: skip
