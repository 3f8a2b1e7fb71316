"""The command line: what it prints, its exit codes, and that it starts without torch and Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from stub_sweeps import write_clips
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.ledger import Ledger

runner = CliRunner()


@pytest.fixture
def sweep_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "flute")
    body = {
        "name": "small",
        "base": {"clips": {"path": "flute"}, "evaluate": {"at_steps": [0, 25]}, "dreambooth": {"steps": 25}},
        "arms": {"large-gpt2": {}, "large-gpt2-prior": {"dreambooth": {"method": "prior"}}},
        "grid": {"seed": [0, 1]},
    }
    path = tmp_path / "small.yaml"
    path.write_text("# Question: does the command line work?\n" + yaml.safe_dump(body))
    return path


def write_record(folder: Path, **changes) -> dict:
    record = {
        "schema": 1, "trial_id": "large-gpt2-flute-s0-12345678", "trial_key": "k", "arm": "large-gpt2", "target": "flute",
        "seed": 0, "point": {"seed": 0}, "status": "finished", "error": None, "spec": {}, "evaluations": [], "stages": [],
        "losses": [], "started": 1.0, "finished": 2.0, "wall_s": 1.0,
    }  # fmt: skip
    Ledger(folder).write_trial(record | changes)
    Ledger(folder).write_sweep({"name": folder.name, "run": {"storage": "store"}})
    return record | changes


SINGLE = ["plan"], ["doctor"], ["run"], ["report"], ["status"], ["init"], ["generate"], ["job"], ["store"]


@pytest.mark.parametrize("command", [[], *SINGLE, ["data"], ["data", "prepare"]])
def test_help_has_an_example(command):
    result = runner.invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output and "timbre-ray " in result.output


def test_plan_shows_each_trial_and_what_a_run_would_do(sweep_file):
    result = runner.invoke(cli.app, ["plan", str(sweep_file)])
    assert result.exit_code == 0, result.output
    assert "does the command line work?" in result.output
    assert "4 trials: 0 keep, 4 run, 0 changed; 0 orphaned" in result.output
    assert result.output.count("large-gpt2-prior-flute-s") == 2


def test_plan_tells_kept_and_orphaned(sweep_file):
    from timbre_ray.sweep import load_sweep

    trial = load_sweep(sweep_file).trials[0]
    folder = Path("results/small")
    write_record(folder, trial_id=trial.trial_id, trial_key=trial.key, arm=trial.arm, point=dict(trial.point))
    write_record(folder, trial_id="old-flute-s0-1", arm="old")
    result = runner.invoke(cli.app, ["plan", str(sweep_file)])
    assert f"keep      {trial.trial_id}" in result.output
    assert "orphaned  old-flute-s0-1" in result.output
    assert "4 trials: 1 keep, 3 run, 0 changed; 1 orphaned" in result.output


def test_clips_replace_the_targets_of_every_trial(sweep_file, tmp_path):
    write_clips(tmp_path / "lute")
    result = runner.invoke(cli.app, ["plan", str(sweep_file), "--clips", "lute"])
    assert result.exit_code == 0, result.output
    assert "-lute-s0-" in result.output and "-flute-s0-" not in result.output


def test_a_wrong_key_is_one_clear_message(sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("method: prior", "methd: prior"))
    result = runner.invoke(cli.app, ["plan", str(sweep_file)])
    assert result.exit_code == cli_errors.BAD_INPUT
    assert "small.yaml" in result.output and "methd" in result.output and "method" in result.output
    assert "Traceback" not in result.output
    debugged = runner.invoke(cli.app, ["--debug", "plan", str(sweep_file)])
    assert isinstance(debugged.exception, ValueError)


@pytest.mark.parametrize("command", [["plan", "absent.yaml"], ["run", "absent.yaml"], ["report", "absent"]])
def test_missing_input_is_named(command, sweep_file):
    result = runner.invoke(cli.app, command)
    assert result.exit_code == cli_errors.BAD_INPUT
    assert "absent" in result.output


@pytest.mark.parametrize("command", ["plan", "doctor", "status"])
def test_a_sweep_in_another_encoding_is_named(command, sweep_file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # doctor's table has the path in another cell
    sweep_file.write_bytes("# Question: fl\u00fbte?\n".encode("latin-1") + sweep_file.read_bytes())
    result = runner.invoke(cli.app, [command, "small.yaml"])
    assert result.exit_code != 0 and "not UTF-8 (byte 14); save it as UTF-8" in result.output and "small.yaml" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["report", "small"],
        ["generate", "A flute.", "--from", "large-gpt2"],
        ["export", "large-gpt2"],
        ["data", "prepare", "flute"],
    ],
)
@pytest.mark.parametrize(("out", "words"), [("afile", "is a file"), ("afile/below", "afile is a file")])
def test_a_file_in_the_place_of_a_folder_is_named(command, out, words, sweep_file, monkeypatch):
    from timbre_ray import finished

    monkeypatch.setattr(finished, "_check_weights", lambda trial, folder: None)
    spec = {"clips": {"path": "mini:chinese_flute_v1"}}
    write_record(Path("results/small"), spec=spec, evaluations=[{"step": 0}])
    Path("afile").write_text("precious")
    result = runner.invoke(cli.app, [*command, "--out", out])
    assert result.exit_code == cli_errors.BAD_INPUT, result.output
    assert f"Error: --out {out}: " in result.output and f"{words}; name a folder" in result.output
    assert Path("afile").read_text() == "precious"


def test_generate_finds_the_first_seed_of_an_arm(sweep_file, monkeypatch):
    from timbre_ray.specs import as_dict
    from timbre_ray.sweep import load_sweep

    first, second = [trial for trial in load_sweep(sweep_file).trials if trial.arm == "large-gpt2"]
    for trial in (second, first):
        evaluations = [{"step": 0}, {"step": 25}]
        write_record(
            Path("results/small"),
            seed=trial.spec.seed,
            trial_id=trial.trial_id,
            spec=as_dict(trial.spec),
            evaluations=evaluations,
        )
    asked = {}

    def generate_from(trial, prompt, *, num_clips, seed, out, device):
        asked.update(seed=trial.spec.seed, step=trial.step, num=num_clips, store=trial.store.root)
        return [out / "clip_0000.wav"]

    import timbre_ray
    from timbre_ray import finished

    monkeypatch.setattr(finished, "_check_weights", lambda trial, folder: None)

    fake = types.SimpleNamespace(generate_from=generate_from)
    monkeypatch.setitem(sys.modules, "timbre_ray.trial", fake)
    monkeypatch.setattr(timbre_ray, "trial", fake, raising=False)
    result = runner.invoke(cli.app, ["generate", "--from", "large-gpt2", "A recording of a sks flute.", "-n", "2", "-o", "clips"])
    assert result.exit_code == 0, result.output
    assert asked == {"seed": 0, "step": 25, "num": 2, "store": Path("store").resolve()}
    assert "clips/clip_0000.wav" in result.output


def test_generate_names_the_nearest_arm(sweep_file):
    write_record(Path("results/small"))
    result = runner.invoke(cli.app, ["generate", "--from", "large-gtp2", "A recording."])
    assert result.exit_code == cli_errors.BAD_INPUT
    assert "Did you mean large-gpt2?" in result.output


def test_report_writes_beside_the_name(sweep_file, monkeypatch):
    from timbre_ray import report

    write_record(Path("results/small"))
    asked = []
    monkeypatch.setattr(report, "build", lambda results, store, out, **how: asked.append(how) or out / "index.html")
    result = runner.invoke(cli.app, ["report", "small", "--baseline", "large-gpt2", "--margin", "0.2"])
    assert asked == [{"baseline": "large-gpt2", "margin": 0.2}]
    assert result.exit_code == 0, result.output
    assert "reports/small/index.html" in result.output


def test_the_command_line_imports_neither_torch_nor_ray(sweep_file):
    code = (
        "import json, sys; from timbre_ray import cli; from typer.testing import CliRunner; "
        f"CliRunner().invoke(cli.app, ['plan', {str(sweep_file)!r}]); "
        "print(json.dumps([m for m in ('torch', 'ray', 'diffusers', 'optuna') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.fixture
def fake_run(monkeypatch):
    """Puts a function in the place of run_sweep, without importing Ray."""

    def put(run_sweep):
        module = types.SimpleNamespace(run_sweep=run_sweep)
        monkeypatch.setitem(sys.modules, "timbre_ray.cluster.run", module)

    return put


def test_run_lists_the_reasons_of_failed_trials(sweep_file, fake_run):
    outcome = types.SimpleNamespace(
        results=Path("results/small"), num_kept=0, finished=(), failed={"a-flute-s0-1": "ValueError in encode: silent clip"},
        num_unfinished=0, exit_code=1,
    )  # fmt: skip
    fake_run(lambda sweep, address: outcome)
    result = runner.invoke(cli.app, ["run", str(sweep_file)])
    assert result.exit_code == cli_errors.TRIALS_FAILED
    assert "failed a-flute-s0-1: ValueError in encode: silent clip" in result.output


def test_run_that_is_interrupted_says_how_to_go_on(sweep_file, fake_run):
    def interrupted(sweep, address):
        raise KeyboardInterrupt

    fake_run(interrupted)
    result = runner.invoke(cli.app, ["run", str(sweep_file)])
    assert result.exit_code == cli_errors.INTERRUPTED
    assert "The same command goes on" in result.output
