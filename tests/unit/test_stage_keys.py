"""Keys from a trial's spec alone: those that stages had when only running them gave them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from timbre_ray import stage_keys
from timbre_ray.specs import ClipsSpec, DreamboothSpec, TeacherSpec, TrialSpec, digest
from timbre_ray.stage_keys import StageKeys
from timbre_ray.sweep import load_sweep

DEMO = Path(__file__).parents[2] / "sweeps" / "demo.yaml"
#: Digests of the sorted keys of sweeps/demo.yaml's stages, as its stages computed them before keys were derived from specs, with
#: "weights" and "judges" for the digests of the models and 16 tokens a prompt. A change here is a change of every user's keys.
BEFORE = {
    "encode": (1, "c9266dbd5dd00349712c"),
    "teach": (1, "5f608f9c98aa35f8b9d8"),
    "prompt": (10, "bae306bcc0bdad71e5b0"),
    "class_audio": (2, "f71519411fb4d1d88219"),
    "mixture_audio": (1, "102363f192cf19a55bba"),
    "dreambooth": (12, "b7045c9b5b2b1c2c2f19"),
    "generate": (42, "ef198d5f93cb23f688c2"),
    "score": (14, "aff5ac967e16e93a4a89"),
}


@pytest.fixture
def fixed_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_keys, "backbone_digest", lambda spec: "weights")
    monkeypatch.setattr(stage_keys, "judges_digest", lambda classifier, vggish: "judges")
    monkeypatch.setitem(stage_keys.VERSIONS, "score", 3)  # its version when BEFORE was recorded
    monkeypatch.setattr(stage_keys, "num_tokens", lambda backbone, prompt: 16)


@pytest.mark.usefixtures("fixed_models")
def test_the_demos_keys_are_what_they_were() -> None:
    found = defaultdict(set)
    for trial in load_sweep(DEMO).trials:
        for stage in StageKeys(trial.spec).all():
            found[stage.name].add(stage.key)
    assert {name: (len(keys), digest(sorted(keys))) for name, keys in found.items()} == BEFORE


def stages_of(**changes: object) -> dict[str, list[stage_keys.Stage]]:
    found = defaultdict(list)
    for stage in StageKeys(TrialSpec(clips=ClipsSpec(path="mini:chinese_flute_v1"), **changes)).all():
        found[stage.name].append(stage)
    return found


@pytest.mark.usefixtures("fixed_models")
def test_a_second_lesson_needs_class_audio_and_mixtures() -> None:
    plain, mixed = (stages_of(teacher=TeacherSpec(epochs=1, mixture_weight=weight)) for weight in (0.0, 0.5))
    assert not plain["class_audio"] and not plain["mixture_audio"]
    assert len(mixed["class_audio"]) == len(mixed["mixture_audio"]) == 1
    assert mixed["mixture_audio"][0].key in mixed["teach"][0].inputs
    assert not stages_of(teacher=TeacherSpec(epochs=0, mixture_weight=0.5))["class_audio"], "nothing is taught"


@pytest.mark.usefixtures("fixed_models")
def test_work_grows_with_what_takes_time() -> None:
    spec = DreamboothSpec(steps=300, batch_size=2, gradient_accumulation=3, num_class_clips=7, method="prior")
    found = stages_of(dreambooth=spec)
    assert [stage.work for stage in found["dreambooth"]] == [25 * 6, 275 * 6]
    assert (found["class_audio"][0].num_clips, found["class_audio"][0].work) == (7, 7 * 200)
    assert {stage.work for stage in found["generate"]} == {64 * 200} and {stage.work for stage in found["score"]} == {64}
    assert (found["encode"][0].num_clips, found["encode"][0].work) == (48, 48)


@pytest.mark.usefixtures("fixed_models")
def test_what_a_jointly_trained_language_model_changes() -> None:
    joint = stages_of(dreambooth=DreamboothSpec(train_language_model=True))
    weights = {stage.key for stage in joint["dreambooth"]}
    assert {stage.inputs[2] for stage in joint["generate"] if stage.inputs[1]} == weights, "GPT-2 comes from the same artifact"


def test_keys_need_no_torch() -> None:
    code = (
        "import json, sys; from timbre_ray.estimate import estimate; from timbre_ray.store import Store; "
        f"from timbre_ray.sweep import load_sweep; estimate(load_sweep({str(DEMO)!r}).trials, Store('none'), todo=()); "
        "print(json.dumps([m for m in ('torch', 'ray', 'diffusers', 'transformers') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
