"""Sweeps on real Ray with stub trials: what finishes, what fails and with which reason, what is kept."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import ray
import stub_functions
import stub_sweeps
from event_files import scalars
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import cloudpickle
from ray.tune import Callback
from rich.console import Console
from stub_functions import STUBS
from stub_sweeps import by_token, stub_sweep, write_clips

from timbre_ray.cluster import exporters
from timbre_ray.cluster.resources import QUIET_ENVIRONMENT, InfeasibleError, ray_session
from timbre_ray.cluster.run import Outcome, run_sweep
from timbre_ray.cluster.scoring import MAX_RETRIES
from timbre_ray.ledger import Ledger
from timbre_ray.report import build_tables
from timbre_ray.search_history import history_of
from timbre_ray.store import Store
from timbre_ray.sweep import load_sweep


@pytest.fixture(scope="module", autouse=True)
def session():
    cloudpickle.register_pickle_by_value(sys.modules[stub_functions.__name__])  # the workers cannot import the tests
    with ray_session(address=None, threads=1):
        yield


@pytest.fixture
def write_sweep(tmp_path):
    def write(*, arms: dict, steps: tuple[int, ...] = (0, 25), run: dict | None = None, **parts):
        body = stub_sweep(write_clips(tmp_path / "flute"), arms=arms, steps=steps) | parts
        places = {"storage": str(tmp_path / "store"), "results": str(tmp_path / "results")}
        return load_sweep(stub_sweeps.write_sweep(tmp_path / "stubs.yaml", body, **{**places, **(run or {})}))

    return write


def run(sweep) -> tuple[Outcome, str, dict[str, dict]]:
    """The outcome, what was printed, and the records by arm."""
    text = io.StringIO()
    outcome = run_sweep(sweep, functions=STUBS, console=Console(file=text, width=200))
    return outcome, text.getvalue(), {record["arm"]: record for record in Ledger(outcome.results).trials()}


def test_workers_have_the_environment_of_a_sweep():
    wanted = {**QUIET_ENVIRONMENT, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    found = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    assert {name: found.get(name) for name in wanted} == wanted


def num_calls(sweep, name: str) -> int:
    path = Path(sweep.run.storage) / f"calls-{name}"
    return len(path.read_text()) if path.exists() else 0


def test_failures_have_reasons_and_do_not_stop_the_others(write_sweep):
    names = ("good", "wrong", "nan", "unscored", "killed", "scorer_dies")
    sweep = write_sweep(arms=by_token(*names))
    outcome, printed, records = run(sweep)

    assert outcome.exit_code == 1
    assert {name: records[name]["status"] for name in names} == {
        "good": "finished", "wrong": "failed", "nan": "failed", "unscored": "failed", "killed": "finished",
        "scorer_dies": "finished",
    }  # fmt: skip
    assert records["wrong"]["error"] == {"type": "ValueError", "message": "flute_03.wav: silent clip", "stage": "dreambooth"}
    assert records["nan"]["error"]["type"] == "FloatingPointError"
    assert "fad_held_out is nan" in records["nan"]["error"]["message"]
    assert records["unscored"]["error"] == {"type": "FileNotFoundError", "message": "clip_0001.flac: missing", "stage": "score"}
    assert len(outcome.failed) == 3
    assert "silent clip" in printed

    # A worker that was killed is tried again; an error that would come back is not.
    assert num_calls(sweep, "killed-0") == 2
    assert {name: num_calls(sweep, f"{name}-0") for name in ("wrong", "nan", "unscored")} == {"wrong": 1, "nan": 1, "unscored": 1}

    good = records["good"]
    assert [evaluation["step"] for evaluation in good["evaluations"]] == [0, 25]
    assert good["losses"] == [{"step": 25, "loss": 0.5}]
    assert [(stage["stage"], stage["reused"]) for stage in good["stages"]] == [("dreambooth", False)] * 2
    assert good["wall_s"] >= 0 and good["error"] is None
    # The killed trial found its first stage in the store and still counts it as its own.
    assert [stage["reused"] for stage in records["killed"]["stages"]] == [False, False]
    assert list(Ledger(outcome.results).baselines()) == ["flute"]


@pytest.mark.slow
def test_a_trial_is_told_whom_it_may_train_along(write_sweep):
    lora = {"dreambooth": {"method": "lora"}}
    arms = {name: {**parts, **lora} for name, parts in by_token("one", "two").items()} | by_token("direct")
    settings = {"train_together": 3, "max_concurrent": 1}
    sweep = write_sweep(arms=arms, grid={"seed": [0, 1]}, run=settings)
    outcome, _, _ = run(sweep)
    assert len(outcome.finished) == 6
    along = {name: [num_calls(sweep, f"along-{name}-{seed}") for seed in (0, 1)] for name in ("one", "two", "direct")}
    assert along == {"one": [0, 1], "two": [1, 0], "direct": [0, 0]}, "one-s0 takes two and the next seed's; two-s1 is left over"


def test_a_scorer_may_die_however_often_if_no_request_kills_it_each_time(write_sweep):
    names = [f"scorer_dies_{number}" for number in range(MAX_RETRIES + 2)]
    sweep = write_sweep(arms=by_token(*names), run={"max_failures": 0})
    _, _, records = run(sweep)
    assert {name: records[name]["status"] for name in names} == dict.fromkeys(names, "finished")
    assert all(num_calls(sweep, f"scorer-{name}") > 1 for name in names)


def test_a_second_run_keeps_what_finished(write_sweep):
    sweep = write_sweep(arms=by_token("one", "two"), grid={"seed": [0, 1]})
    first, _, _ = run(sweep)
    assert (len(first.finished), first.exit_code) == (4, 0)
    second, printed, _ = run(sweep)
    assert (second.num_kept, second.finished, second.exit_code) == (4, (), 0)
    assert "4 kept, 0 to run" in printed
    assert [num_calls(sweep, name) for name in ("one-0", "one-1", "two-0", "two-1")] == [1, 1, 1, 1]

    edited = write_sweep(arms=by_token("one", "three"), grid={"seed": [0, 1]})
    third, printed, _ = run(edited)
    assert (third.num_kept, len(third.finished)) == (2, 2)
    assert "2 no longer planned" in printed


def test_a_floor_that_is_missing_beside_kept_trials_is_computed(write_sweep):
    first, _, _ = run(write_sweep(arms=by_token("one")))
    (first.results / "baselines" / "flute.json").unlink()
    second, _, _ = run(write_sweep(arms=by_token("one", "two")))
    assert (second.num_kept, len(second.finished), second.failed) == (1, 1, {})
    assert list(Ledger(second.results).baselines()) == ["flute"]
    (second.results / "baselines" / "flute.json").unlink()
    third, _, _ = run(write_sweep(arms=by_token("one", "two")))
    assert (third.num_kept, third.failed) == (2, {}), "with no trial left"
    assert list(Ledger(third.results).baselines()) == ["flute"]


def test_what_a_report_advises_for_scores_that_are_no_numbers_helps(write_sweep, tmp_path):
    sweep = write_sweep(arms=by_token("one", "two"))
    outcome, _, records = run(sweep)
    ledger, (target, floor) = Ledger(outcome.results), next(iter(Ledger(outcome.results).baselines().items()))
    trial = records["one"]
    last = trial["evaluations"][-1]
    spoilt = {**last, "metrics": {name: float("inf") for name in last["metrics"]}}
    ledger.write_trial({**trial, "evaluations": [*trial["evaluations"][:-1], spoilt]})
    ledger.write_baseline(target, {**floor, "metrics": {name: float("nan") for name in floor["metrics"]}})
    for named in (f"trials/{trial['trial_id']}.json", f"baselines/{target}.json"):
        with pytest.raises(ValueError, match="delete the file .*, then run the sweep again") as refused:
            write_tables(outcome.results, tmp_path / "spoilt")
        assert str(refused.value).startswith(f"{named}: ")
        (outcome.results / named).unlink()
    again, _, healed = run(sweep)
    assert (again.num_kept, again.finished, again.failed) == (1, (trial["trial_id"],), {})
    assert healed["one"]["evaluations"] == trial["evaluations"] and Ledger(again.results).baselines()[target] == floor
    write_tables(again.results, tmp_path / "healed")


def test_a_worker_that_always_dies_and_a_failed_baseline_have_reasons(write_sweep):
    sweep = write_sweep(arms={"a": {"clips": {"token": "no_baseline"}}, **by_token("dies")})
    outcome, _, records = run(sweep)
    assert outcome.exit_code == 1
    assert [records[arm]["status"] for arm in ("a", "dies")] == ["finished", "failed"]
    assert records["dies"]["error"]["message"]
    assert len(records["dies"]["evaluations"]) == 1
    assert num_calls(sweep, "dies-0") == 1 + sweep.run.max_failures
    assert outcome.failed["baseline of flute"] == "ValueError in baseline: held-out clips: silence"


def test_infeasible_resources_name_what_is_missing(write_sweep):
    sweep = write_sweep(arms={"good": {}}, run={"resources": {"train": {"cpu": 1, "gpu": 64}}})
    with pytest.raises(InfeasibleError, match=r"run\.resources\.train\.gpu=64.*largest of 1 node"):
        run(sweep)


@pytest.mark.parametrize(("metric", "mode"), [("fad_held_out", "min"), (["fad_held_out", "duet_partner_rank"], ["min", "min"])])
def test_search_with_asha_ends_nan_trials_as_failed(write_sweep, monkeypatch, metric, mode):
    from timbre_ray.cluster import search

    studies = []
    make = search.optuna_search
    monkeypatch.setattr(search, "optuna_search", lambda *a: studies.append(make(*a)) or studies[-1])
    space = {"dreambooth.lr": {"type": "categorical", "choices": [0.1, 0.2, 0.9]}}
    settings = {"metric": metric, "mode": mode, "num_trials": 6, "seed": 3, "space": space}
    settings["scheduler"] = {"name": "asha", "grace_period": 1, "reduction_factor": 2}
    sweep = write_sweep(arms={"base": {}}, search=settings)
    outcome, _, _ = run(sweep)

    ledger = Ledger(outcome.results)
    failed = [r for r in ledger.trials() if r["status"] == "failed"]
    assert failed and all(r["spec"]["dreambooth"]["lr"] == 0.9 for r in failed)
    states = [trial.state.name for trial in studies[0].study.trials]
    assert set(states) == {"COMPLETE", "FAIL"} and len(states) == 6
    # The next run knows every draw that was measured (also where one point was drawn twice) and tries the failed point again.
    history = history_of(sweep, ledger)
    assert len(history.measured) == states.count("COMPLETE")
    assert history.unfinished == ({"dreambooth.lr": 0.9},)
    resumed = make(sweep.search, history).study
    told = [tuple(trial.values) for trial in resumed.trials if trial.state.name == "COMPLETE"]
    assert told == [values for _, values in history.measured] and len(told[0]) == len(sweep.search.objectives)

    assert draws(journal_of(outcome.results)) == draws(studies[0].study), "what optuna-dashboard shows"
    shown = journal_of(outcome.results).trials
    assert {trial.user_attrs["trial_id"] for trial in shown} == {record["trial_id"] for record in ledger.trials()}
    curves = [trial.intermediate_values for trial in shown if trial.state.name == "COMPLETE"]
    assert all(curve.keys() <= {0, 25} and curve for curve in curves) if isinstance(metric, str) else not any(curves)


def journal_of(results: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(results / "optuna.log")))
    return optuna.load_study(study_name="stubs", storage=storage)


def draws(study: optuna.Study) -> list[tuple[str, str, str]]:
    """What became of each draw; a trial without a score has no values."""
    return sorted((trial.state.name, str(trial.params), str(trial.values)) for trial in study.trials)


def test_a_driver_that_was_killed_goes_on_where_it_was(write_sweep, tmp_path):
    sweep = write_sweep(arms=by_token("slow", "slow_too"), run={"max_concurrent": 1})
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import stub_functions; from ray import cloudpickle; "
        "cloudpickle.register_pickle_by_value(stub_functions); from timbre_ray.cluster.run import run_sweep; "
        f"from timbre_ray.sweep import load_sweep; run_sweep(load_sweep({str(sweep.path)!r}), functions=stub_functions.STUBS)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(r["evaluations"] for r in Ledger(Path(sweep.run.results) / "stubs").trials()), driver)
    finally:
        driver.kill()
        driver.wait()
    outcome, _, records = run(sweep)
    assert outcome.exit_code == 0
    assert {arm: record["status"] for arm, record in records.items()} == {"slow": "finished", "slow_too": "finished"}
    computed = [(e["stage"], e["key"]) for e in Store(sweep.run.storage).log() if e["event"] == "computed"]
    assert len(computed) == len(set(computed)) == 4


def wait_for(reached, process, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not reached():
        assert process.poll() is None and time.monotonic() < end, "the driver ended, or never came that far"
        time.sleep(0.1)


class Unreachable(Callback):
    """An exporter whose service goes away at the first score."""

    def on_trial_result(self, iteration, trials, trial, result, **info):
        raise ConnectionError("no route to the tracking server")


def test_exporters_copy_the_ledger_and_harm_nothing(write_sweep, tmp_path, monkeypatch):
    arms, steps = by_token("good", "wrong", "killed"), (0, 10, 25)
    plain, _, expected = run(write_sweep(arms=arms, steps=steps))

    monkeypatch.setitem(exporters._MAKERS, "mlflow", lambda sweep, results: Unreachable())
    monkeypatch.setattr("timbre_ray.cluster.run.check_installed", lambda names: None)
    places = {"storage": str(tmp_path / "store2"), "results": str(tmp_path / "results2")}
    outcome, printed, records = run(write_sweep(arms=arms, steps=steps, run={"exporters": ["mlflow"], **places}))

    assert printed.count("exporter mlflow: switched off") == 1
    assert "ConnectionError: no route to the tracking server" in printed
    assert len(outcome.finished) == 2 and outcome.failed == plain.failed
    assert sorted(outcome.finished) == sorted(plain.finished), "in the order in which they started, which is open"
    for arm, record in records.items():
        assert scalars(outcome.results / "tensorboard" / record["trial_id"]) == numbers_of(record)
        for part in ("status", "error", "evaluations", "losses"):
            assert record[part] == expected[arm][part]
    assert len(records["killed"]["losses"]) == 2 and len(records["killed"]["evaluations"]) == 3
    tables = [
        {path.name: path.read_bytes() for path in write_tables(one.results, tmp_path / name).glob("*.csv")}
        for one, name in ((plain, "plain"), (outcome, "exported"))
    ]
    assert tables[0] == tables[1] and len(tables[0]) > 5


def write_tables(results: Path, out: Path) -> Path:
    build_tables(results, Store(out / "empty"), out)
    return out


def numbers_of(record: dict) -> dict[tuple[str, int], float]:
    """(tag, step) -> value, as TensorBoard should hold them."""
    numbers = {("train/loss", entry["step"]): entry["loss"] for entry in record["losses"]}
    for evaluation in record["evaluations"]:
        numbers |= {(f"score/{name}", evaluation["step"]): value for name, value in evaluation["metrics"].items()}
    return {key: pytest.approx(value, rel=1e-6) for key, value in numbers.items()}  # event files hold 32 bits


def test_ray_is_left_running_for_the_caller(session):
    assert ray.is_initialized()
