"""A trial that is told to leave goes on elsewhere at the very step it had reached, and that counts as no failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from tests.survival.scene import PATIENCE_S, ROOT, cluster_of
from timbre_ray.ledger import Ledger
from timbre_ray.stages import TrialStages
from timbre_ray.store import Store
from timbre_ray.sweep import Sweep, load_sweep

STEPS = 40


def write_sweep(folder: Path) -> Path:
    sampler = {"num_inference_steps": 2, "mel_inversion": "griffin_lim"}
    sweep = {
        "name": "told",
        "base": {
            "clips": {"path": "mini:chinese_flute_v1"},
            "dreambooth": {"steps": STEPS, "gradient_accumulation": 1, "batch_size": 1},
            "evaluate": {"at_steps": [STEPS], "num_clips": 2, "sampler": sampler},
        },
        "run": {"storage": str(folder / "store"), "results": str(folder / "results"), "max_failures": 0},
    }
    path = folder / "told.yaml"
    path.write_text("# Question: does it leave in time?\n" + yaml.safe_dump(sweep))
    return path


def steps_of(folder: Path) -> list[int]:
    """The process that computed each step."""
    path = folder / "steps"
    return [int(line) for line in path.read_text().split()] if path.is_file() else []


def wait_for(reached: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert driver.poll() is None and time.monotonic() < end, driver.communicate()[0] if driver.poll() is not None else "never"
        time.sleep(0.1)


def drain(cluster: Cluster, raylet: int) -> None:
    """What an autoscaler, KubeRay or `ray start --block` under SIGTERM asks of the control plane."""
    (node,) = [n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid == raylet]
    deadline_ms = int((time.time() + 60) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = GcsClient(address=cluster.address).drain_node(node.node_id, reason, "spot", deadline_ms)
    assert accepted, why


def undisturbed_weights(sweep: Sweep, folder: Path) -> bytes:
    (trial,) = sweep.trials
    stages = TrialStages(trial.spec, Store(folder), "cpu")
    list(stages.train(STEPS))
    return weights_of(sweep, folder)


def weights_of(sweep: Sweep, folder: Path) -> bytes:
    (trial,) = sweep.trials
    store = Store(folder)
    key = TrialStages(trial.spec, store, "cpu").dreambooth_key(STEPS)
    return store.get("dreambooth", key).file("unet.safetensors").read_bytes()


@pytest.mark.slow
def test_no_step_is_repeated_after_a_signal_and_a_drain(tmp_path):
    path = write_sweep(tmp_path)
    with cluster_of(2) as cluster:
        command = [sys.executable, "-m", "tests.survival.counted", cluster.address, str(path)]
        driver = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: len(steps_of(tmp_path)) >= 3, driver)
            first = steps_of(tmp_path)[-1]
            os.kill(first, signal.SIGTERM)
            wait_for(
                lambda: len(set(steps_of(tmp_path))) == 2 and steps_of(tmp_path).count(first) < len(steps_of(tmp_path)), driver
            )
            second = steps_of(tmp_path)[-1]
            raylet = psutil.Process(second).ppid()
            drain(cluster, raylet)
            wait_for(lambda: len(set(steps_of(tmp_path))) == 3, driver)
            third = steps_of(tmp_path)[-1]
            assert psutil.Process(third).ppid() != raylet, "it went on elsewhere"
            printed, _ = driver.communicate(timeout=PATIENCE_S)
            assert driver.returncode == 0, printed
        finally:
            driver.kill()
    (record,) = Ledger(tmp_path / "results" / "told").trials()
    assert record["status"] == "finished" and len(record["losses"]) == STEPS
    assert len(steps_of(tmp_path)) == STEPS, "every step was computed once, though the next checkpoint by time was a minute away"
    sweep = load_sweep(path)
    assert weights_of(sweep, tmp_path / "store") == undisturbed_weights(sweep, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_spot_notice_drains_the_node_it_is_given_on():
    with cluster_of(0) as cluster:
        code = f"from timbre_ray.cluster.spot import drain_this_node; drain_this_node(60, {cluster.address!r})"
        told = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert told.stdout == "taken away in 60 s: draining\n", told.stdout + told.stderr
