"""Keys from a trial's spec alone: those that stages had when only running them gave them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

import pytest

from timbre_ray import identity, inputs, stage_keys, sweep
from timbre_ray.report.results import point_in_force
from timbre_ray.run_specs import RangeSpec, RunSpec
from timbre_ray.specs import (
    BackboneSpec,
    ClipsSpec,
    DreamboothSpec,
    EvaluateSpec,
    SamplerSpec,
    TeacherSpec,
    TrialSpec,
    as_dict,
    digest,
)
from timbre_ray.stage_keys import StageKeys, unread_settings
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

#: Likewise of trials, their ids and all their stages in a sweep that uses every method and most settings, by the code that
#: derived each key from its own spec through a round trip of JSON (but for teachers with mixtures, which hear all of them since).
VARIED_BEFORE = {"trials": "d1c66ca0738e8880b2cf", "ids": "d945709c93a94442fd44", "stages": "9c570b70dba5c90f9765"}
VARIED = """\
name: varied
base:
  clips: {path: "mini:chinese_flute_v1"}
  dreambooth: {steps: 30, num_class_clips: 3}
  evaluate: {at_steps: [0, 5, 30], num_clips: 4}
arms:
  direct: {}
  prior: {dreambooth: {method: prior, prior_weight: 0.5}}
  mixed: {dreambooth: {method: mixclass-prior, mixture_gain_db: -6.0}, teacher: {epochs: 2}}
  silent: {dreambooth: {method: mixclass-prior, mixture_gain_db: -.inf}}
  known: {dreambooth: {method: chineseclass-prior}, teacher: {epochs: 2, mixture_weight: 0.5, mode: teacher_forced}}
  lora: {dreambooth: {method: lora, lora_rank: 2, lora_alpha: 8}}
  joint: {dreambooth: {train_language_model: true, mixed_precision: bf16}, teacher: {epochs: 1, loa: last}}
  sampled:
    evaluate:
      sampler: {guidance_scale: 1, negative_prompt: Low quality, scheduler: dpmsolver++}
      fad: [audiomae, vggish]
  worded: {prompts: {duet: "A {partner} and a {token} {instrument}."}, clips: {partner: violin}}
grid:
  seed: [0, 7]
  clips.path: ["mini:chinese_flute_v1", "mini:chinese_lute"]
  dreambooth.lr: [1.0e-5, 3.0e-4]
"""


@pytest.fixture
def fixed_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stage_keys, inputs):
        monkeypatch.setattr(module, "backbone_digest", lambda spec: "weights")
        monkeypatch.setattr(module, "judges_digest", lambda *judges: "judges")
    monkeypatch.setattr(sweep, "backbone_digest", lambda spec: "weights")
    for stage, version in {"score": 3, "mixture_audio": 1}.items():  # their versions when BEFORE was recorded
        monkeypatch.setitem(stage_keys.VERSIONS, stage, version)
    monkeypatch.setattr(stage_keys, "num_tokens", lambda backbone, prompt: 16)


@pytest.mark.usefixtures("fixed_models")
def test_the_demos_keys_are_what_they_were() -> None:
    found = defaultdict(set)
    for trial in load_sweep(DEMO).trials:
        for stage in StageKeys(trial.spec).all():
            found[stage.name].add(stage.key)
    assert {name: (len(keys), digest(sorted(keys))) for name, keys in found.items()} == BEFORE


@pytest.fixture
def varied(fixed_models: None, tmp_path: Path) -> sweep.Sweep:
    path = tmp_path / "varied.yaml"
    path.write_text(VARIED)
    return load_sweep(path)


def test_what_the_trials_of_a_plan_share_changes_no_key(varied: sweep.Sweep) -> None:
    assert len(varied.trials) == 72
    common: dict[Hashable, object] = {}
    together = [{(s.name, s.key) for s in StageKeys(trial.spec, common=common).all()} for trial in varied.trials]
    alone = [{(s.name, s.key) for s in StageKeys(trial.spec).all()} for trial in varied.trials]
    assert together == alone
    found = {
        "trials": digest([trial.key for trial in varied.trials]), "ids": digest([trial.trial_id for trial in varied.trials]),
        "stages": digest(sorted(set().union(*alone))),
    }  # fmt: skip
    assert found == VARIED_BEFORE


def test_equal_numbers_that_read_differently_keep_their_own_keys() -> None:
    """0.0 and -0.0, 3 and 3.0 are equal, so what a plan shares must not go by equality."""
    specs = [
        TrialSpec(
            clips=ClipsSpec(path="mini:chinese_flute_v1"), teacher=TeacherSpec(epochs=1, mixture_weight=0.5),
            dreambooth=DreamboothSpec(method="mixclass_prior", mixture_gain_db=gain),
            evaluate=EvaluateSpec(sampler=SamplerSpec(guidance_scale=scale)),
        )
        for gain, scale in ((0.0, 3.0), (-0.0, 3), (0.0, 3))
    ]  # fmt: skip
    common: dict[Hashable, object] = {}
    together = [{s.key for s in StageKeys(spec, common=common).all()} for spec in specs]
    assert together == [{s.key for s in StageKeys(spec).all()} for spec in specs] and len(set(map(frozenset, together))) == 3


def test_a_spec_as_a_dict_is_a_round_trip_through_json(varied: sweep.Sweep) -> None:
    others = RunSpec(exporters=("aim",)), RangeSpec(type="categorical", choices=(1, "b"))
    for spec in (*(trial.spec for trial in varied.trials), *others):
        plain = json.dumps(json.loads(json.dumps(dataclasses.asdict(spec))))
        assert json.dumps(as_dict(spec)) == plain
        assert digest(as_dict(spec)) == hashlib.sha256(
            json.dumps(dataclasses.asdict(spec), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()[:20]  # fmt: skip
    first, second = as_dict(varied.trials[0].spec), as_dict(varied.trials[0].spec)
    first["evaluate"]["at_steps"].append(99)
    assert second["evaluate"]["at_steps"] == [0, 5, 30], "the caller's own"


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


def test_a_teacher_that_hears_mixtures_reads_how_they_are_made() -> None:
    about = {"num_class_clips", "mixture_gain_db"}
    assert about <= unread_settings("direct", False) and not about & unread_settings("direct", False, True)
    trial = {"spec": {"dreambooth": {"method": "direct"}, "teacher": {"epochs": 2, "mixture_weight": 0.5}}}
    point = {"dreambooth.mixture_gain_db": -3.0, "dreambooth.lora_rank": 4}
    assert point_in_force({**trial, "point": point}) == {"dreambooth.mixture_gain_db": -3.0}
    trial["spec"]["teacher"]["epochs"] = 0
    assert point_in_force({**trial, "point": point}) == {}


def test_another_version_of_a_stage_is_another_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a finished trial would be kept whose scores the code of today would not give."""
    before = [trial.key for trial in load_sweep(DEMO).trials]
    monkeypatch.setattr(sweep, "VERSIONS", {**sweep.VERSIONS, "score": sweep.VERSIONS["score"] + 1})
    assert not {trial.key for trial in load_sweep(DEMO).trials} & set(before)


def test_backbones_of_one_plan_share_no_encoding() -> None:
    common: dict[Hashable, object] = {}
    flute = ClipsSpec(path="mini:chinese_flute_v1")
    keys = {
        StageKeys(TrialSpec(clips=flute, backbone=BackboneSpec(dtype=dtype)), common=common).encode.key
        for dtype in ("float32", "bfloat16")
    }
    assert len(keys) == 2


def test_a_search_over_backbones_gives_each_its_own_identity(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {clips: {path: 'mini:chinese_flute_v1'}}\n"
        "search: {num_trials: 2, space: {backbone.dtype: {type: categorical, choices: [float32, bfloat16]}}}\n"
    )
    found = [load_sweep(path).suggested({"backbone.dtype": dtype}) for dtype in ("float32", "bfloat16")]
    assert found[0].key != found[1].key
    assert [trial.inputs.backbone for trial in found] == [identity.backbone_digest(trial.spec.backbone) for trial in found]


def test_names_count_among_a_folders_files(tmp_path: Path) -> None:
    for folder, names in (("one", ("a", "b")), ("other", ("b", "a"))):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, ("first", "second"), strict=True):
            (tmp_path / folder / name).write_text(content)
    assert identity.folder_digest(tmp_path / "one") != identity.folder_digest(tmp_path / "other")
