"""A finished trial by name: which one is meant, and that nothing is trained where its weights are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

import timbre_ray
from timbre_ray import cli, cli_errors
from timbre_ray.ledger import Ledger
from timbre_ray.models.device import resolve_device
from timbre_ray.specs import ClipsSpec, DreamboothSpec, EvaluateSpec, SamplerSpec, TeacherSpec, TrialSpec, as_dict
from timbre_ray.stage_keys import StageKeys
from timbre_ray.stages import TrialStages
from timbre_ray.store import Store

runner = CliRunner()
SPEC = TrialSpec(
    clips=ClipsSpec(path="mini:chinese_flute_v1"),
    dreambooth=DreamboothSpec(steps=1, gradient_accumulation=1, num_class_clips=2),
    evaluate=EvaluateSpec(at_steps=(0, 1), num_clips=2, sampler=SamplerSpec(num_inference_steps=2, mel_inversion="griffin_lim")),
)
TAUGHT = dataclasses.replace(SPEC, teacher=TeacherSpec(epochs=1))


def record(sweep: str, arm: str, *, spec: TrialSpec = SPEC, target: str = "flute", step: int = 1, **changes: object) -> str:
    """Writes one into results/; returns the trial's id."""
    folder = Path("results") / sweep
    point = {"seed": spec.seed, "clips.path": target}
    values = {
        "trial_id": f"{arm}-{target}-s{spec.seed}-{sweep}", "arm": arm, "target": target, "seed": spec.seed, "point": point,
        "status": "finished", "spec": as_dict(spec), "evaluations": [{"step": step}], "finished": 1.0,
    }  # fmt: skip
    Ledger(folder).write_trial(values | changes)
    Ledger(folder).write_sweep({"name": sweep, "run": {"storage": "store"}})
    return str((values | changes)["trial_id"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*words: str) -> tuple[int, str]:
    result = runner.invoke(cli.app, list(words))
    return result.exit_code, result.output


GENERATE = "generate", "A recording of a sks flute.", "-n", "1", "--from"


@pytest.mark.parametrize("words", [(*GENERATE, "direct"), ("export", "direct", "--out", "mine")])
def test_weights_that_are_not_there_are_not_trained_again(words: tuple[str, ...], folder: Path) -> None:
    name = record("small", "direct")
    code, said = ended(*words, "--storage", "stoer")
    assert code == cli_errors.BAD_INPUT, said
    assert f"{folder / 'stoer'}: the weights of {name} at step 1 are not there" in said
    assert "--storage" in said and "timbre-ray run SWEEP" in said and "results/small/trials" in said
    assert not any(Path(made).exists() for made in ("stoer", "out", "mine"))
    with pytest.raises(ValueError, match="the weights of .* are not there"):
        timbre_ray.load("direct", storage="stoer")


@pytest.mark.parametrize(
    ("spec", "step", "wanted"),
    [
        (SPEC, 0, []),
        (SPEC, 1, ["dreambooth"]),
        (TAUGHT, 0, ["teach"]),
        (TAUGHT, 1, ["dreambooth", "teach"]),
        (dataclasses.replace(TAUGHT, dreambooth=dataclasses.replace(SPEC.dreambooth, train_language_model=True)), 1, ["dreambooth"]),
    ],
)
def test_what_a_model_is_made_of(spec: TrialSpec, step: int, wanted: list[str]) -> None:
    assert [stage.name for stage in StageKeys(spec).model(step)] == wanted


def test_a_taught_model_that_is_not_there_is_not_taught_again() -> None:
    record("small", "taught", spec=TAUGHT, step=0)
    code, said = ended(*GENERATE, "taught")
    assert code == cli_errors.BAD_INPUT and "at step 0 are not there" in said, said
    assert not Path("store").exists()


def test_what_plays_says_which_trial_it_is() -> None:
    """Only the weights are needed, not what they were trained from: the prior's audio is not in the store."""
    spec = dataclasses.replace(SPEC, dreambooth=dataclasses.replace(SPEC.dreambooth, method="prior"))
    stages = TrialStages(spec, Store("store"), "cpu")
    stages._publish_weights(1, stages.backbone.unet, None, [], {})
    for made in list(stages.store.manifests("class_audio")):
        stages.store._take_away("class_audio", made["key"])
    name = record("small", "prior", spec=spec)
    result = runner.invoke(cli.app, [*GENERATE, "prior", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert f"Plays {name} at step 1, of sweep small" in result.stderr and "Plays" not in result.stdout
    about = json.loads(Path("out/clip_0000.json").read_text())
    assert (about["trial_id"], about["target"], about["sweep"]) == (name, "flute", "small")
    assert soundfile.info("out/clip_0000.wav").samplerate == 16_000
    assert not list(stages.store.manifests("class_audio")), "nothing was made but the clips and their prompts"


def test_a_device_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cpu", "cpu")
    record("small", "untouched", step=0)
    for device, words in (("cuda", "torch finds no GPU here"), ("gpu", "must be auto, cpu or cuda")):
        code, said = ended(*GENERATE, "untouched", "--device", device)
        assert code == cli_errors.BAD_INPUT and f"--device={device!r}" in said and words in said, said
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [resolve_device(wanted) for wanted in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
