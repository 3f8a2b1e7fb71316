"""Stub sweeps with W&B, MLflow, Aim and optuna-dashboard themselves, and what each of them then reads back.

Skipped where one is missing: `make test-exporters` installs all four in an environment of its own. Nothing leaves the machine.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import stub_functions
from ray import cloudpickle
from rich.console import Console
from stub_functions import STUBS
from stub_sweeps import stub_sweep, write_clips, write_sweep

from timbre_ray.cluster.resources import ray_session
from timbre_ray.cluster.run import run_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.sweep import load_sweep

MISSING = [name for name in ("wandb", "mlflow", "aim", "optuna_dashboard") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make test-exporters)")
OBJECTIVES = ["fad_held_out", "duet_partner_rank"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search of four trials, run with all three exporters."""
    folder = tmp_path_factory.mktemp("exported")
    search = {
        "metric": OBJECTIVES, "mode": ["min", "min"], "num_trials": 4,
        "space": {"dreambooth.lr": {"type": "float", "low": 0.001, "high": 0.1, "log": True}},
    }  # fmt: skip
    sweep = write_sweep(
        folder / "stubs.yaml", {**stub_sweep(write_clips(folder / "flute"), arms={"base": {}}), "search": search},
        exporters=["wandb", "mlflow", "aim"], storage=str(folder / "store"), results=str(folder / "results"),
    )  # fmt: skip
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        cloudpickle.register_pickle_by_value(sys.modules[stub_functions.__name__])  # the workers cannot import the tests
        with ray_session(address=None, threads=1):
            outcome = run_sweep(load_sweep(sweep), functions=STUBS, console=Console(file=said, width=200))
    assert "switched off" not in said.getvalue(), said.getvalue()
    assert len(outcome.finished) == 4 and not outcome.failed
    return outcome.results


def scores(results: Path) -> list[float]:
    """The last distance of each trial, by the ledger."""
    return sorted(record["evaluations"][-1]["metrics"]["fad_held_out"] for record in Ledger(results).trials())


def test_mlflow_has_every_trial(results: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{results.parents[1]}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("stubs").experiment_id])
    assert sorted(run.data.metrics["fad_held_out"] for run in runs) == pytest.approx(scores(results))
    assert {run.info.status for run in runs} == {"FINISHED"} and all("dreambooth.lr" in run.data.params for run in runs)


def test_aim_has_every_trial(results: Path) -> None:
    import aim

    repo, last = aim.Repo(str(results)), []
    for run_hash in repo.list_all_runs():  # not iter_runs: Aim's index of runs is made by its server
        found = repo.request_tree("meta", run_hash, read_only=True, skip_read_optimization=True).subtree("meta").collect()
        (traces,) = found["chunks"][run_hash]["traces"].values()
        last.append(traces["ray/tune/fad_held_out"]["last"])
    assert sorted(last) == pytest.approx(scores(results))


def test_wandb_has_every_trial(results: Path) -> None:
    """Offline: what `wandb sync` would send."""
    from wandb.proto.wandb_internal_pb2 import Record

    last = []
    for file in (results / "wandb").rglob("run-*.wandb"):
        items = [item for data in leveldb_log(file.read_bytes()) for item in Record.FromString(data).history.item]
        reported = [item.value_json for item in items if "fad_held_out" in (item.key, *item.nested_key)]
        assert len(reported) == 2, "steps 0 and 25"
        last.append(json.loads(reported[-1]))
    assert sorted(last) == pytest.approx(scores(results))


def leveldb_log(data: bytes) -> list[bytes]:
    """The records of W&B's file: LevelDB's log format (blocks of 32 KiB; checksum, length, kind, part) behind seven bytes."""
    found, place, part = [], 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found, part = [*found, part], b""
    return found


def test_optuna_dashboard_opens_the_search(results: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(results / "optuna.log"), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        (study,) = asked(port, "studies", server)["study_summaries"]
        assert study["study_name"] == "stubs"
        shown = asked(port, f"studies/{study['study_id']}?after=0", server)
        assert sorted(trial["values"][0] for trial in shown["trials"]) == pytest.approx(scores(results))
        assert {trial["state"] for trial in shown["trials"]} == {"Complete"} and shown["objective_names"] == OBJECTIVES
    finally:
        server.terminate()
        server.wait()


def asked(port: int, what: str, server: subprocess.Popen) -> dict:
    """The answer of the dashboard's own programming interface, as soon as it is up."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{what}", timeout=10) as answer:
                return json.load(answer)
        except (ConnectionError, urllib.error.URLError):
            assert server.poll() is None and time.monotonic() < end, "the dashboard does not answer"
            time.sleep(0.2)
