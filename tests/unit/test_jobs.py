"""Handing a sweep to a cluster: the job's command, and what stands in the way is named. No dashboard is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.cluster import jobs

ADDRESS = "http://127.0.0.1:8265"
runner = CliRunner()


@pytest.fixture
def fake_client(monkeypatch):
    """Ray's client, as far as it is used; ``sent`` is what it was asked to submit, with the files of its folder."""
    client = types.SimpleNamespace(sent={})

    def submit_job(**words):
        client.sent = words | {"files": sorted(p.name for p in Path(words["runtime_env"]["working_dir"]).iterdir())}
        return words["submission_id"]

    client.submit_job = submit_job
    client.get_job_info = lambda job_id: types.SimpleNamespace(status="FAILED", message="exit code 2")
    client.get_job_logs = lambda job_id: "a line\n"
    client.stop_job = lambda job_id: job_id == "running"
    module = types.SimpleNamespace(JobSubmissionClient=lambda address: client)
    monkeypatch.setitem(sys.modules, "ray.job_submission", module)
    monkeypatch.setattr(jobs, "NEEDED", ())
    for variable in jobs.OVERRIDES:
        monkeypatch.delenv(variable, raising=False)
    return client


def test_the_job_runs_the_sweep_in_the_shared_folder(tmp_path):
    """The command itself, with a stand-in for timbre-ray that prints where it is and what it was told."""
    shared, package, bin_folder = tmp_path / "shared disk", tmp_path / "package", tmp_path / "bin"
    for folder in (shared, package, bin_folder):
        folder.mkdir()
    (bin_folder / "timbre-ray").write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    (bin_folder / "timbre-ray").chmod(0o755)
    command = jobs.entrypoint("my sweep.yaml", ["--clips", "clips/my flute"])
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "TIMBRE_RAY_FOLDER": str(shared)}
    done = subprocess.run(command, shell=True, cwd=package, env=environment, capture_output=True, text=True, check=True)
    told = [str(shared), "run", f"{package}/my sweep.yaml", "--address", "auto", "--clips", "clips/my flute"]
    assert done.stdout.splitlines() == told
    del environment["TIMBRE_RAY_FOLDER"]
    refused = subprocess.run(command, shell=True, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "docs/cluster/README.md" in refused.stderr and not refused.stdout


def test_detach_ships_the_sweep_and_prints_the_job(fake_client, tmp_path):
    sweep = tmp_path / "flute.yaml"
    sweep.write_text("name: my-flute\nbase: {clips: {path: on/the/cluster}}\n")
    words = ["run", str(sweep), "--address", ADDRESS, "--detach", "--storage", "s", "--no-report"]
    result = runner.invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    sent = fake_client.sent
    assert result.output.splitlines()[0] == sent["submission_id"] and sent["submission_id"].startswith("my-flute-")
    assert sent["files"] == ["flute.yaml"]
    assert sent["entrypoint"].endswith("--address auto --storage s --no-report")


def test_jobs_are_watched_and_stopped(fake_client):
    def output(*words: str) -> str:
        result = runner.invoke(cli.app, ["job", *words, "--address", ADDRESS])
        assert result.exit_code == 0, result.output
        return result.output

    assert output("status", "x") == "FAILED: exit code 2\n"
    assert output("logs", "x") == "a line\n"
    assert (output("stop", "running"), output("stop", "x")) == ("stopping\n", "had ended already\n")


def test_what_stands_in_the_way_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "NEEDED", ("no_such_module",))
    for variable in jobs.OVERRIDES:
        monkeypatch.delenv(variable, raising=False)
    sweep = tmp_path / "flute.yaml"
    sweep.write_text("name: flute\n")

    def refusal(*words: str) -> str:
        result = runner.invoke(cli.app, [*words])
        assert result.exit_code == cli_errors.BAD_INPUT
        return result.output

    assert "pip install --constraint constraints.txt --editable '.[cluster]'" in refusal("job", "status", "x")
    assert "--address='auto': jobs go to a dashboard" in refusal("job", "status", "x", "--address", "auto")
    assert "--detach needs the cluster's dashboard" in refusal("run", str(sweep), "--detach")
    assert "add --detach" in refusal("run", str(sweep), "--address", ADDRESS)
    assert "absent.yaml" in refusal("run", str(tmp_path / "absent.yaml"), "--address", ADDRESS, "--detach")
    monkeypatch.setattr(jobs, "NEEDED", ())
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    assert "RAY_ADDRESS='http://elsewhere:8265': Ray would take this" in refusal("job", "status", "x")
