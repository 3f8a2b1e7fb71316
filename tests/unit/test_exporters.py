"""Exporters: what TensorBoard gets from a ledger, and how one that fails is switched off."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from event_files import scalars
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import cloudpickle
from ray.tune import Callback

from timbre_ray.cluster.board import Board
from timbre_ray.cluster.exporters import Guarded, TensorBoard, check_installed, exporter_callbacks
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.optuna_journal import OptunaJournal
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.trainable import TrialContext
from timbre_ray.ledger import Ledger
from timbre_ray.run_specs import RangeSpec, SearchSpec
from timbre_ray.search_history import SearchHistory
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.sweep import PlannedTrial

TRIAL = SimpleNamespace(trial_id="tune-1", config={})
INFO = {"iteration": 0, "trials": [TRIAL], "trial": TRIAL}


@pytest.fixture
def context(tmp_path: Path) -> TrialContext:
    planned = PlannedTrial(
        trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=TrialSpec(clips=ClipsSpec(path="flute")), key="k"
    )
    return TrialContext(
        ledger_folder=tmp_path, worker=Worker(store_root=tmp_path, device="cpu", threads=1), functions=Functions(),
        scorers=ScorerPool([]), plan=lambda config: planned,
    )  # fmt: skip


def sweep(*exporters: str) -> SimpleNamespace:
    return SimpleNamespace(name="stubs", search=None, run=SimpleNamespace(exporters=exporters))


def write_record(context: TrialContext, *, at_steps: list[int]) -> None:
    Ledger(context.ledger_folder).write_trial({
        "trial_id": "a-flute-s0",
        "losses": [{"step": step, "loss": step / 2, "prior": 0.25} for step in range(1, at_steps[-1] + 1)],
        "evaluations": [{"step": step, "metrics": {"fad_held_out": 8.0 - step, "fad_held_out/clap": 0.5}} for step in at_steps],
    })  # fmt: skip


def test_tensorboard_holds_every_loss_and_score_once(context):
    board = TensorBoard(context)
    board.on_trial_start(**INFO)
    for at_steps in ([0], [0, 2], [0, 2]):  # the last report, of a lasting failure, brings nothing new
        write_record(context, at_steps=at_steps)
        board.on_trial_result(**INFO, result={})
    board.on_trial_error(**INFO)
    assert scalars(context.ledger_folder / "tensorboard" / "a-flute-s0") == {
        ("train/loss", 1): 0.5, ("train/loss", 2): 1.0, ("train/prior", 1): 0.25, ("train/prior", 2): 0.25,
        ("score/fad_held_out", 0): 8.0, ("score/fad_held_out", 2): 6.0,
        ("score/fad_held_out/clap", 0): 0.5, ("score/fad_held_out/clap", 2): 0.5,
    }  # fmt: skip


def test_a_trial_that_starts_again_begins_its_folder_anew(context):
    board = TensorBoard(context)
    for at_steps in ([0, 1], [0]):
        board.on_trial_start(**INFO)
        write_record(context, at_steps=at_steps)
        board.on_trial_result(**INFO, result={})
    board.on_trial_complete(**INFO)
    assert set(scalars(context.ledger_folder / "tensorboard" / "a-flute-s0")) == {
        ("score/fad_held_out", 0), ("score/fad_held_out/clap", 0)
    }  # fmt: skip


def test_tune_can_pickle_them(context):
    """As it does with every callback before the first trial."""
    board = Board(num_trials=1, num_kept=0, progress_folder=context.ledger_folder, concurrency=1)
    callbacks = exporter_callbacks(sweep(), context=context, history=None, say=board.notice)
    assert [type(callback) for callback in cloudpickle.loads(cloudpickle.dumps(callbacks))] == [Guarded]


SEARCH = SearchSpec(
    metric=("fad_held_out",), mode=("min",), num_trials=3, seed=0,
    space={"dreambooth.lr": RangeSpec(type="float", low=1e-6, high=1e-4, log=True)},
)  # fmt: skip


def study(context: TrialContext) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(context.ledger_folder / "optuna.log")))
    return optuna.load_study(study_name="stubs", storage=storage)


def test_a_search_is_an_optuna_storage_while_it_runs(context):
    """The file begins anew with what the ledger has measured; a trial under way is RUNNING, one without a score FAILs."""
    plan = context.plan(TRIAL.config)
    context = dataclasses.replace(context, plan=lambda config: dataclasses.replace(plan, point={"dreambooth.lr": 1e-5}))
    for name in ("optuna.log", "optuna.log.lock", "optuna.log.mine"):
        (context.ledger_folder / name).write_text("of an earlier run")
    measured = (({"dreambooth.lr": 2e-5}, (4.0,)),)
    journal = OptunaJournal(
        SEARCH, sweep="stubs", history=SearchHistory(measured=measured, unfinished=(), trials=()), context=context
    )
    journal.setup()
    for _ in range(2):  # the second time after a fault
        journal.on_trial_start(**INFO)
    write_record(context, at_steps=[0, 2])
    journal.on_trial_result(**INFO, result={})
    told, running = study(context).trials
    assert (told.params, told.values) == ({"dreambooth.lr": 2e-5}, [4.0])
    assert running.state.name == "RUNNING" and running.intermediate_values == {0: 8.0, 2: 6.0}
    assert running.user_attrs == {"trial_id": "a-flute-s0"} and running.params == {"dreambooth.lr": 1e-5}

    journal.on_trial_complete(**INFO)  # its record says nothing of having finished
    journal.on_trial_start(**INFO)
    Ledger(context.ledger_folder).write_trial({**Ledger(context.ledger_folder).trial("a-flute-s0"), "status": "finished"})
    journal.on_trial_complete(**INFO)
    assert [(t.state.name, t.values) for t in study(context).trials[1:]] == [("FAIL", None), ("COMPLETE", [6.0])]
    assert (context.ledger_folder / "optuna.log.mine").is_file(), "a copy that someone keeps"


class Exporter(Callback):
    def __init__(self, raises_at: int) -> None:
        self.raises_at, self.calls = raises_at, []

    def setup(self, **info):
        self.calls.append("setup")

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.calls.append(result["step"])
        if len(self.calls) == self.raises_at:
            raise ConnectionError("no route\nto the server")


@pytest.mark.parametrize(("raises_at", "num_calls"), [(0, 4), (2, 2)])
def test_an_exporter_is_switched_off_at_its_first_error(raises_at, num_calls):
    said: list[str] = []
    exporter = Exporter(raises_at)
    guarded = Guarded("mlflow", lambda: exporter, said.append)
    guarded.setup()
    for step in (0, 25, 300):
        guarded.on_trial_result(**INFO, result={"step": step})
    assert exporter.calls == ["setup", 0, 25, 300][:num_calls]
    wanted = ["exporter mlflow: switched off, the sweep goes on: ConnectionError: no route to the server"]
    assert said == (wanted if raises_at else [])


def test_an_exporter_that_cannot_start_is_reported(context, monkeypatch):
    """As where a package is there but does not import."""
    monkeypatch.setitem(sys.modules, "ray.air.integrations.mlflow", None)
    said: list[str] = []
    callbacks = exporter_callbacks(sweep("mlflow"), context=context, history=None, say=said.append)
    for callback in callbacks:
        callback.on_trial_start(**INFO)
    assert len(said) == 1 and said[0].startswith("exporter mlflow: switched off, the sweep goes on: ModuleNotFoundError")
    assert (context.ledger_folder / "tensorboard" / "a-flute-s0").is_dir(), "TensorBoard is written all the same"


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aim" else object())
    check_installed(["mlflow", "wandb"])
    with pytest.raises(ValueError, match=r"exporters=\['mlflow', 'aim'\]: not installed here: aim; pip install aim, or take"):
        check_installed(["mlflow", "aim"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install mlflow-skinny, or take"):
        check_installed(["mlflow"])
