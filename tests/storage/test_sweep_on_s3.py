"""A sweep whose storage is a URL: a local run's ledger, another machine that goes on, a report on a laptop, no secret kept."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_sweeps import by_token, stub_sweep, write_clips, write_sweep
from typer.testing import CliRunner

from timbre_ray import cli
from timbre_ray.ledger import Ledger
from timbre_ray.object_storage import ObjectStorage

runner = CliRunner()
DRIVER = Path(__file__).with_name("sweep_driver.py")
TIMES = {"store", "started", "finished", "wall_s", "seconds", "time", "provenance", "run", "text"}
TOKEN = "0123456789abcdef" * 4


def sweep_of(tmp_path: Path, name: str, storage: str) -> Path:
    """The same sweep with results and a cache of its own."""
    sweep = stub_sweep(write_clips(tmp_path / "flute"), arms=by_token("good", "wrong"))
    places = {"storage": storage, "results": str(tmp_path / name / "results"), "cache": str(tmp_path / name / "cache")}
    return write_sweep(tmp_path / f"{name}.yaml", sweep, **places)


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def ledger(tmp_path: Path, name: str) -> dict:
    found = Ledger(tmp_path / name / "results" / "stubs")
    return {"trials": found.trials(), "baselines": found.baselines(), "sweep": found.sweep()}


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's own: its sockets need a short path, and a cluster that runs here already must not be found."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def ran(tmp_path, bucket, ray_folder) -> str:
    """What the driver printed: a local run, one on S3, one of another machine (another cache, no results) on the same URL."""
    sweeps = [
        sweep_of(tmp_path, "local", str(tmp_path / "local" / "store")),
        sweep_of(tmp_path, "remote", f"{bucket}/runs"),
        sweep_of(tmp_path, "another", f"{bucket}/runs"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), *map(str, sweeps)], capture_output=True, text=True, timeout=500, cwd=tmp_path, check=False,
        env={**environment, "RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": str(ray_folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_sweep_on_s3(ran, tmp_path, bucket, ray_folder, monkeypatch):
    lines = [line for line in ran.splitlines() if line.startswith("kept ")]
    assert lines == ["kept 0, finished 1, failed 1", "kept 0, finished 1, failed 1", "kept 1, finished 0, failed 1"]
    local, remote, another = (ledger(tmp_path, name) for name in ("local", "remote", "another"))
    assert {r["arm"]: r["status"] for r in local["trials"]} == {"good": "finished", "wrong": "failed"}
    assert without_times(remote) == without_times(local)
    assert [r for r in another["trials"] if r["arm"] == "good"] == [r for r in remote["trials"] if r["arm"] == "good"]

    # A laptop that has only the URL.
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    monkeypatch.chdir(laptop)
    monkeypatch.setenv("HOME", str(laptop))
    result = runner.invoke(cli.app, ["report", "stubs", "--storage", f"{bucket}/runs"])
    assert result.exit_code == 0, result.output
    page = (laptop / "reports" / "stubs" / "index.html").read_text()
    assert "flute_03.wav: silent clip" in page
    assert Ledger(laptop / "results" / "stubs").trials() == another["trials"]
    missing = runner.invoke(cli.app, ["report", "nothing", "--storage", f"{bucket}/runs"])
    assert missing.exit_code != 0 and f"{bucket}/runs/results/nothing: no results found" in missing.stderr

    check_no_secret(ran, [tmp_path, ray_folder], ObjectStorage(bucket))


def check_no_secret(printed: str, folders: list[Path], storage: ObjectStorage) -> None:
    """The key of the storage and the token of the cluster were in the environment all the while."""
    secrets = [os.environ["AWS_SECRET_ACCESS_KEY"], TOKEN]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    kept = {entry.name: storage.read(entry.name) for entry in storage.entries()}
    texts = {"output": printed.encode(), **{str(path): path.read_bytes() for path in files}, **kept}
    assert len(files) > 100 and len(kept) > 10  # Ray's logs among them
    assert {place: secret for place, text in texts.items() for secret in secrets if secret.encode() in text} == {}
