"""Where results, stores and clusters lie: a wrong place is named, a right one is found from wherever a command is typed."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile
import yaml
from stub_sweeps import stub_sweep, write_clips
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors, finished, report
from timbre_ray.cluster import resources
from timbre_ray.cluster import run as cluster_run
from timbre_ray.cluster import todo as cluster_todo
from timbre_ray.ledger import Ledger
from timbre_ray.sole_driver import alone
from timbre_ray.specs import as_dict
from timbre_ray.store import Store
from timbre_ray.sweep import Sweep, load_sweep

runner = CliRunner()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def ended(*words: str) -> tuple[int, str]:
    result = runner.invoke(cli.app, list(words))
    return result.exit_code, result.output


def write_clip(folder: Path) -> None:
    soundfile.write(folder / "clip_0000.flac", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)


def kept(folder: Path, sweep: Sweep) -> None:
    """Every trial of the sweep in its ledger, its audio in the store of the run."""
    ledger, store = Ledger(folder / "results" / sweep.name), Store(folder / "store")
    ledger.write_sweep({"name": sweep.name, "run": {"storage": "store"}, "planned": [t.trial_id for t in sweep.trials]})
    for number, trial in enumerate(sweep.trials):
        store.get_or_compute("generate", f"k{number}", write_clip, description={})
        evaluation = {"step": 25, "num_clips": 2, "metrics": {"fad_held_out": 3.0}, "audio": {"solo": f"k{number}"}}
        ledger.write_trial({
            "trial_id": trial.trial_id, "trial_key": trial.key, "arm": trial.arm,
            "target": trial.target, "seed": trial.spec.seed, "point": dict(trial.point), "status": "finished", "error": None,
            "evaluations": [evaluation], "spec": as_dict(trial.spec),
            "stages": [], "losses": [], "started": 1.0, "finished": 2.0, "wall_s": 1.0,
        })  # fmt: skip


@pytest.fixture
def sweep(project: Path) -> Sweep:
    body = stub_sweep(write_clips(project / "flute"), arms={"one": {}})
    (project / "stubs.yaml").write_text("# Question: where?\n" + yaml.safe_dump({"name": "stubs", **body}))
    return load_sweep(project / "stubs.yaml")


def at(sweep: Sweep, storage: Path) -> Sweep:
    return dataclasses.replace(sweep, run=dataclasses.replace(sweep.run, storage=str(storage)))


def test_a_run_does_not_leave_behind_what_its_kept_trials_made(sweep: Sweep, project: Path) -> None:
    kept(project, sweep)
    ledger = Ledger(project / "results" / "stubs")
    with pytest.raises(ValueError, match="elsewhere': 1 trials of stubs are kept, and what they made lies in 'store'"):
        cluster_run.run_sweep(at(sweep, project / "elsewhere"))
    assert ledger.sweep()["run"]["storage"] == "store"
    (project / "store").rename(project / "moved")
    todo = cluster_todo.what_is_left(sweep, ledger)
    cluster_todo.check_kept(at(sweep, project / "moved"), ledger, todo)  # it came along


def test_a_store_is_found_beside_the_results_from_anywhere(sweep: Sweep, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(project, sweep)
    folder = project / "results" / "stubs"
    assert finished.store_of(Path("results/stubs"), None).root == project / "store"
    monkeypatch.chdir("/")
    assert finished.store_of(folder, None).root == project / "store"
    with pytest.raises(FileNotFoundError, match="stoer: no store there"):
        finished.store_of(folder, "stoer")


def test_a_sweep_that_has_just_begun_is_there(project: Path) -> None:
    Ledger(project / "results" / "new").write_sweep({"name": "new", "planned": ["a", "b"], "run": {"storage": "store"}})
    code, said = ended("status", "new")
    assert code == 0 and "new (not running): 2 not begun, 2 planned" in said, said
    code, said = ended("status", "nwe")
    assert code == cli_errors.BAD_INPUT and "Did you mean new?" in said, said


def test_results_that_are_asked_for_go_before_those_of_the_file(project: Path) -> None:
    (project / "own.yaml").write_text("name: own\nrun: {results: of_the_file}\n")
    Ledger(project / "of_the_file" / "own").write_sweep({"name": "own", "planned": ["a"], "run": {"storage": "store"}})
    Ledger(project / "asked" / "own").write_sweep({"name": "own", "planned": ["a", "b"], "run": {"storage": "store"}})
    assert "1 planned" in ended("status", "own.yaml")[1]
    assert "2 planned" in ended("status", "own.yaml", "--results", "asked")[1]
    code, said = ended("status", "own.yaml", "--results", "nowhere")
    assert code == cli_errors.BAD_INPUT and "own: no results found" in said, said


def test_status_and_a_driver_do_not_stand_in_each_others_way(project: Path) -> None:
    folder = project / "results" / "new"
    Ledger(folder).write_sweep({"name": "new", "planned": ["a"], "run": {"storage": "store"}})
    with alone(folder, "store", patience_s=1.0, say=print):
        assert "new (running)" in ended("status", "new")[1]
    assert "new (not running)" in ended("status", "new")[1]
    (folder / ".lock").chmod(0o444)
    looking = filelock.FileLock(folder / ".lock", is_singleton=False, thread_local=False)
    looking.acquire()
    threading.Timer(0.3, looking.release).start()
    with alone(folder, "store", patience_s=1.0, say=print):
        """A look that lasts a moment is waited for."""


def test_what_is_no_report_is_not_written_over(project: Path, sweep: Sweep) -> None:
    kept(project, sweep)
    (project / "site").mkdir()
    for name in ("index.html", "report.md"):
        (project / "site" / name).write_text("mine")
        code, said = ended("report", "stubs", "--out", "site")
        assert code == cli_errors.BAD_INPUT and f"site/{name}: is no report of timbre-ray" in said, said
        assert [path.name for path in (project / "site").iterdir()] == [name] and (project / "site" / name).read_text() == "mine"
        (project / "site" / name).unlink()
    for _ in range(2):
        report.build(project / "results" / "stubs", project / "store", project / "site")


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_where_no_ray_answers_nothing_is_waited_for(address: str, sweep: Sweep, project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
        with pytest.raises(ConnectionError, match=f"{address}: no Ray answers there .*RAY_ADDRESS"):
            cluster_run.run_sweep(sweep, address=address)
        assert not (project / "results").exists()
        free.listen()
        resources.check_reachable(address)
    for other in (None, "auto", "local"):
        resources.check_reachable(other)


def test_a_reader_that_has_seen_enough_is_no_mistake(project: Path, sweep: Sweep) -> None:
    """`timbre-ray plan | head -1`: a pipe that nobody reads any more, before the first line is written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from timbre_ray.cli import main; main()", "plan", "stubs.yaml"]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, "")


def test_recordings_keep_their_name_in_any_script(project: Path) -> None:
    body = stub_sweep(write_clips(project / "我的 笛子"), arms={"one": {}})
    (project / "笛.yaml").write_text(yaml.safe_dump({"name": "flutes", **body}, allow_unicode=True), encoding="utf-8")
    (trial,) = load_sweep(project / "笛.yaml").trials
    assert trial.trial_id == f"one-我的-笛子-s0-{trial.key[:8]}"
    ledger = Ledger(project / "results" / "flutes")
    ledger.write_trial({"trial_id": trial.trial_id, "status": "finished"})
    assert [record["trial_id"] for record in ledger.trials()] == [trial.trial_id]


def test_a_search_is_planned_by_what_it_has_measured(project: Path) -> None:
    body = stub_sweep(write_clips(project / "flute"), arms={})
    body.pop("arms")
    space = {"dreambooth.lr": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}}
    (project / "s.yaml").write_text(yaml.safe_dump({"name": "s", **body, "search": {"space": space, "num_trials": 2}}))
    code, said = ended("plan", "s.yaml")
    assert code == 0 and "2 trials: 0 measured, 2 to draw" in said and "Nothing is left" not in said, said
    search = load_sweep(project / "s.yaml")
    for lr in (1e-4, 2e-4):
        trial = search.suggested({"dreambooth.lr": lr})
        Ledger(project / "results" / "s").write_trial({
            "trial_id": trial.trial_id, "trial_key": trial.key, "point": {"dreambooth.lr": lr}, "status": "finished",
            "started": lr, "evaluations": [{"step": 25, "metrics": {"fad_held_out": 3.0}}], "arm": "s", "target": "flute",
        })  # fmt: skip
    code, said = ended("plan", "s.yaml")
    assert code == 0 and "2 trials: 2 measured, 0 to draw" in said and "Nothing is left to compute." in said, said


def test_a_reader_who_leaves_ends_no_command(project: Path) -> None:
    """The rest is done, and the exit code is the command's own; rich's tables go through the same stream."""
    script = (
        "import sys; from rich.console import Console; from timbre_ray.cli_errors import outlive_the_reader;"
        "outlive_the_reader(); print('a' * 100_000, flush=True); Console().print('b');"
        "print('still here', file=sys.stderr); sys.exit(3)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writer)
    assert (found.returncode, found.stderr) == (3, "still here\n")


def test_a_report_that_was_cut_off_is_written_anew(project: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(project, sweep)
    (project / "site").mkdir()
    (project / "site" / "index.html").touch()

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            report.build(project / "results" / "stubs", project / "store", project / "site")
    report.build(project / "results" / "stubs", project / "store", project / "site")
    names = {path.name for path in (project / "site").iterdir()}
    assert names == {"index.html", "report.md", "tables"} and (project / "site" / "index.html").stat().st_size > 1000


def test_results_know_where_their_store_was(project: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a foreign one that lies beside them, nor beside the working folder."""
    kept(project, sweep)
    for other in (project.parent / "store", project.parent / "deep" / "store"):
        (other / "artifacts").mkdir(parents=True)
    deep = project.parent / "deep" / "results"
    (project / "results").rename(deep)
    ledger = Ledger(deep / "stubs")
    ledger.write_sweep({**ledger.sweep(), "store": str(project / "store")})
    monkeypatch.chdir(project.parent)
    assert finished.store_of(deep / "stubs", None).root == project / "store"
    monkeypatch.setenv("HOME", str(project))
    assert finished.store_of(deep / "stubs", "~/store").root == project / "store"
    elsewhere = dataclasses.replace(sweep, run=dataclasses.replace(sweep.run, storage="store", results=str(deep)))
    with pytest.raises(ValueError, match="1 trials of stubs are kept"):
        cluster_run.run_sweep(elsewhere)  # the same word, and another folder


def test_a_long_name_in_another_script_still_names_files(project: Path) -> None:
    name, arm = "我的笛子" * 12, "large-gpt2-teacher-chineseclass-prior"
    body = stub_sweep(write_clips(project / name), arms={arm: {}})
    (project / "long.yaml").write_text(yaml.safe_dump({"name": "long", **body}, allow_unicode=True), encoding="utf-8")
    (trial,) = load_sweep(project / "long.yaml").trials
    assert trial.target == name and trial.trial_id.startswith(f"{arm}-我的笛子我的笛子我的笛-s0-")
    Ledger(project / "results" / "long").write_trial({"trial_id": trial.trial_id, "status": "finished"})
