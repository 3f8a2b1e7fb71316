"""The floor of a target: when it is asked for, and that it costs an evaluation actor no backbone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timbre_ray import stages
from timbre_ray.cluster import functions
from timbre_ray.cluster.baselines import Baseline, Baselines
from timbre_ray.cluster.failures import ScoringFailedError
from timbre_ray.cluster.functions import Worker
from timbre_ray.specs import ClipsSpec, EvaluateSpec, TrialSpec
from timbre_ray.stage_keys import StageKeys
from timbre_ray.store import Store

SPEC = TrialSpec(clips=ClipsSpec(path="mini:chinese_flute_v1"), evaluate=EvaluateSpec(at_steps=(0,), num_clips=4))


class Scorers:
    """Notes which floors it is asked for; that of ``silent`` fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def baseline(self, compute: Any, spec: TrialSpec, *, target: str, key: str, ledger_folder: Path) -> Any:
        self.asked.append(target)

        def result() -> None:
            if target == "silent":
                raise ScoringFailedError(ValueError("held-out clips: silence"))

        return SimpleNamespace(result=result)


def baselines(folder: Path, *targets: str, scored: tuple[str, ...] = ()) -> tuple[Baselines, Scorers]:
    """A trial's Tune config is its target."""
    scorers, worker = Scorers(), Worker(store_root=folder, device="cpu", threads=1)
    context: Any = SimpleNamespace(
        scorers=scorers, worker=worker, ledger_folder=folder, functions=functions.Functions(),
        plan=lambda config: SimpleNamespace(target=config),
    )  # fmt: skip
    return Baselines(dict.fromkeys(targets, Baseline(spec=SPEC, key="k")), context=context, scored=scored), scorers


def report(floors: Baselines, target: str, **result: Any) -> None:
    floors.on_trial_result(0, [], SimpleNamespace(config=target), result)


def test_a_floor_is_asked_for_once_and_when_its_target_has_a_score(tmp_path: Path) -> None:
    floors, scorers = baselines(tmp_path, "flute", "lute", "pipa", scored=("lute", "known already"))
    assert scorers.asked == ["lute"], "earlier runs scored it"
    report(floors, "flute", lasting_failure=True)
    assert scorers.asked == ["lute"], "nothing of the flute is encoded"
    for step in (0, 25):
        report(floors, "flute", step=step)
    report(floors, "known already", step=0)
    assert scorers.asked == ["lute", "flute"] and floors.wait() == {}


def test_a_floor_that_fails_has_its_own_reason(tmp_path: Path) -> None:
    floors, _ = baselines(tmp_path, "flute", "silent", scored=("flute", "silent"))
    assert floors.wait() == {"silent": {"type": "ValueError", "message": "held-out clips: silence", "stage": "baseline"}}


def test_a_floor_needs_no_backbone_unless_the_recordings_must_be_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, worker = Store(tmp_path), Worker(store_root=tmp_path, device="cpu", threads=1)
    floor = functions.baseline(SPEC, worker=worker, store=store)  # nothing is encoded yet
    assert floor["num_clips"] == 4 and floor["metrics"]["fad_held_out"] > 0 and floor["metrics"]["solo_target_confidence"] > 0.9
    encoded = store.get("encode", StageKeys(SPEC).encode.key)
    assert floor["audio"] == {"real": encoded.key}

    with monkeypatch.context() as patch:
        patch.setattr(stages, "TrialStages", None)
        assert functions.baseline(SPEC, worker=worker, store=store) == floor

    (encoded.folder / "train_0000.flac").write_bytes(b"torn")
    assert functions.baseline(SPEC, worker=worker, store=store) == floor, "damaged recordings are encoded anew"


def test_an_evaluation_actor_starts_without_the_libraries_of_the_backbone() -> None:
    """They take longer to import than all that it needs."""
    heavy = ("diffusers", "peft", "accelerate", "transformers.modeling_utils")
    code = f"import sys, timbre_ray.evaluate.scorer; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
