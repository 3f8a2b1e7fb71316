"""Where a trial computes: on the GPU that it was given, or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from timbre_ray import trial
from timbre_ray.cluster.functions import NoGpuError, Worker, device_of_a_trial, run_trial, score_clips
from timbre_ray.evaluate import scorer
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.store import Store


@pytest.mark.parametrize(
    ("wanted", "train", "device"),
    [
        ("auto", {"cpu": 1.0, "gpu": 1.0}, "cuda"),
        ("auto", {"gpu": 0.5}, "cuda"),
        ("auto", {"cpu": 1.0, "gpu": 0.0}, "cpu"),  # it must not take one outside Ray's accounting
        ("cpu", {"gpu": 1.0}, "cpu"),
        ("cuda", {"cpu": 1.0}, "cuda"),
    ],
)
def test_who_was_given_a_gpu_computes_on_it(wanted: str, train: dict[str, float], device: str) -> None:
    assert device_of_a_trial(wanted, train) == device


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of each trial that started."""
    started: list[str] = []

    def computed(spec: TrialSpec, *, device: str, **told: object) -> Iterator[None]:
        started.append(device)
        yield

    monkeypatch.setattr(trial, "run_trial", computed)
    return started


def start(device: str, folder: Path) -> None:
    worker = Worker(store_root=folder, device=device, threads=1)
    spec = TrialSpec(clips=ClipsSpec(path="flute"))
    list(run_trial(spec, worker=worker, store=Store(folder), score=lambda request: None, on_progress=lambda progress: None))


def test_a_node_without_the_gpu_is_named_and_nothing_starts_on_its_cpu(
    devices: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGpuError, match=f"^node {socket.gethostname()}: .*gpu.*nvidia-smi.*run.device: cpu"):
        start("cuda", tmp_path)
    assert not devices
    start("cpu", tmp_path)
    start("auto", tmp_path)
    assert devices == ["cpu", "cpu"]


def test_with_the_gpu_the_trial_starts(devices: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    start("cuda", tmp_path)
    assert devices == ["cuda"]


def test_an_evaluation_actor_works_without_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(scorer, "score_clips", lambda request, store: {"fad_held_out": 1.0})
    worker = Worker(store_root=tmp_path, device="auto", threads=1)
    assert score_clips(None, worker=worker, store=Store(tmp_path)) == {"fad_held_out": 1.0}
