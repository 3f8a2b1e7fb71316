"""A finished trial by name: which one is meant, and that nothing is trained where its weights are not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from diffusers import AudioLDM2Pipeline
from typer.testing import CliRunner

import timbre_ray
from timbre_ray import cli, cli_errors, finished
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
    assert code == cli_errors.BAD_INPUT and "stoer: no store there" in said, said
    (folder / "stoer" / "artifacts").mkdir(parents=True)
    code, said = ended(*words, "--storage", "stoer")
    assert code == cli_errors.BAD_INPUT, said
    assert f"{folder / 'stoer'}: the weights of {name} at step 1 are not there" in said
    assert "--storage" in said and "timbre-ray run SWEEP" in said and "results/small/trials" in said
    assert not any(Path(made).exists() for made in ("out", "mine", "stoer/artifacts/dreambooth"))
    with pytest.raises(ValueError, match="the weights of .* are not there"):
        timbre_ray.load("direct", storage="stoer")


@pytest.mark.parametrize(
    ("spec", "step", "wanted"),
    [
        (SPEC, 0, []),
        (SPEC, 1, ["dreambooth"]),
        (TAUGHT, 0, ["teach"]),
        (TAUGHT, 1, ["dreambooth", "teach"]),
        (
            dataclasses.replace(TAUGHT, dreambooth=dataclasses.replace(SPEC.dreambooth, train_language_model=True)),
            1,
            ["dreambooth"],
        ),
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
    list(stages.train(1))
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


def reseeded(seed: int) -> TrialSpec:
    return dataclasses.replace(SPEC, seed=seed)


def found(source: str, **where: str) -> tuple[str, str]:
    folder, chosen = finished.find_trial(source, Path("results"), **where)
    return folder.name, chosen["trial_id"]


def test_an_arm_is_its_lowest_seed_and_of_equals_the_newest() -> None:
    for seed in (2, 0, 1):
        record("one", "direct", spec=reseeded(seed), finished=10.0 - seed)
    assert found("direct") == ("one", "direct-flute-s0-one")
    assert found("direct-flute-s2-one") == ("one", "direct-flute-s2-one")
    record("one", "direct", trial_id="edited", finished=20.0)
    assert found("direct") == ("one", "edited")
    for name in ("edited", "direct-flute-s0-one"):
        record("one", "direct", trial_id=name, orphaned=True)
    assert found("direct") == ("one", "direct-flute-s1-one"), "what is still planned"


@pytest.mark.parametrize("words", [(*GENERATE, "direct"), ("export", "direct", "--out", "mine")])
def test_an_arm_of_two_sweeps_is_refused_with_what_there_is(words: tuple[str, ...]) -> None:
    """The later one is not taken in silence."""
    names = [record(sweep, "direct", spec=reseeded(seed), finished=seed) for sweep in ("one", "two") for seed in (0, 1)]
    code, said = ended(*words)
    assert code == cli_errors.BAD_INPUT, said
    assert "direct: 2 models go by that name; say which by a trial's id, --sweep NAME:\n" in said
    assert f"  {names[0]} (in one)\n  {names[2]} (in two)\n" in said and names[1] not in said
    code, said = ended(*words, "--sweep", "two")
    assert f"the weights of {names[2]} at step 1 are not there" in said, "it is the one that was looked for"
    with pytest.raises(ValueError, match="2 models go by that name"):
        timbre_ray.load("direct")
    with pytest.raises(ValueError, match=f"the weights of {names[0]}"):
        timbre_ray.load("direct", sweep="one")


def test_an_arm_of_two_targets_or_settings_is_refused() -> None:
    for target in ("flute", "lute"):
        record("one", "direct", target=target)
    with pytest.raises(ValueError, match="say which by a trial's id, --target NAME:"):
        found("direct", sweep="one")
    assert found("direct", target="lute") == ("one", "direct-lute-s0-one")
    with pytest.raises(ValueError, match=r"--target='luet': no finished trial\. Did you mean lute"):
        found("direct", target="luet")
    for number in range(7):
        record("search", "found", trial_id=f"found-{number}", point={"seed": 0, "dreambooth.lr": 10.0**-number})
    with pytest.raises(ValueError, match="7 models go by that name; say which by a trial's id:") as error:
        found("found")
    assert str(error.value).count("(in search)") == 5 and str(error.value).endswith("and 2 more")


def test_a_searchs_trial_goes_by_the_name_that_its_report_prints() -> None:
    ids = {short: f"search-flute-s0-{short}" for short in ("de72a5f3", "aab41d13")}
    for number, trial_id in enumerate(ids.values()):
        record("search", "search", trial_id=trial_id, point={"seed": 0, "dreambooth.lr": 10.0**-number})
    for short, trial_id in ids.items():
        assert found(short) == ("search", trial_id)
        with pytest.raises(ValueError, match=f"the weights of {trial_id} at step 1 are not there"):
            timbre_ray.load(short)
        code, said = ended(*GENERATE, short)
        assert code == cli_errors.BAD_INPUT and f"the weights of {trial_id} at step 1 are not there" in said, said
    with pytest.raises(ValueError, match="72a5f3: no finished trial and no arm of that name"):
        found("72a5f3")
    record("other", "other", trial_id="other-flute-s0-de72a5f3", target="lute")
    with pytest.raises(ValueError, match="de72a5f3: 2 models go by that name; say which by a trial's id, --sweep NAME"):
        found("de72a5f3")
    record("other", "de72a5f3")
    assert found("de72a5f3") == ("other", "de72a5f3-flute-s0-other"), "an arm of that name comes first"


def test_the_same_trial_in_two_sweeps_is_one_model() -> None:
    for number, sweep in enumerate(("demo", "ablation")):
        record(sweep, "direct", trial_id="direct-flute-s0-12345678", finished=number)
    assert found("direct")[1] == "direct-flute-s0-12345678"
    with pytest.raises(ValueError, match="nowhere: no results found"):
        found("direct", sweep="nowhere")


# -- what a trained model needs --------------------------------------------------------------------------------------------------


def songs(folder: Path, *seeds: int) -> Path:
    """Recordings of a second each."""
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        samples = 0.1 * np.random.default_rng(seed).standard_normal(16_000)
        soundfile.write(folder / f"{seed}.wav", samples, 16_000)
    return folder


@pytest.fixture
def own(folder: Path) -> str:
    """A trial that has learned recordings of one's own, taught and trained, with scores at 1 and 2."""
    dreambooth = dataclasses.replace(SPEC.dreambooth, steps=2, method="lora", lr=1e-2)
    spec = dataclasses.replace(
        TAUGHT, clips=ClipsSpec(path=str(songs(folder / "flute", 1, 2, 3, 4))), dreambooth=dreambooth,
        evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(1, 2)),
    )  # fmt: skip
    stages = TrialStages(spec, Store("store"), "cpu")
    list(stages.train(2))
    used = [{"stage": one.name, "key": one.key} for one in (stages.keys.encode, stages.keys.teach)]
    return record("own", "lora", spec=spec, evaluations=[{"step": 1}, {"step": 2}], stages=used)


def adapted(pipeline: AudioLDM2Pipeline) -> torch.Tensor:
    return torch.cat([value.flatten() for value in pipeline.unet.state_dict().values()])


def test_a_trained_model_needs_its_recordings_no_more(own: str, folder: Path) -> None:
    before = adapted(timbre_ray.load("lora"))
    songs(folder / "flute", 5)
    assert torch.equal(adapted(timbre_ray.load("lora")), before)
    shutil.rmtree(folder / "flute")
    assert torch.equal(adapted(timbre_ray.load("lora")), before)
    code, said = ended(*GENERATE, "lora", "--device", "cpu")
    assert code == 0, said
    code, said = ended("export", "lora", "--out", "mine")
    assert code == 0, said
    made = {manifest["stage"] for manifest in Store("store").manifests()}
    assert made == {"encode", "teach", "prompt", "dreambooth", "generate"}
    shutil.rmtree("store/artifacts/dreambooth")
    code, said = ended(*GENERATE, "lora", "-o", "again")
    assert code == cli_errors.BAD_INPUT and f"the weights of {own} at step 2 are not there" in said, said


def test_any_scored_step_is_played(own: str) -> None:
    first, last = (adapted(timbre_ray.load("lora", step=step)) for step in (1, None))
    assert not torch.equal(first, last)
    code, said = ended(*GENERATE, "lora", "--step", "1", "--device", "cpu")
    assert code == 0 and f"Plays {own} at step 1, of sweep own" in said, said
    assert json.loads(Path("out/clip_0000.json").read_text())["step"] == 1
    code, said = ended("export", "lora", "--step", "1", "--out", "mine")
    assert code == 0 and "mine: lora after 1 steps" in said, said
    code, said = ended(*GENERATE, "lora", "--step", "25", "-o", "none")
    assert code == cli_errors.BAD_INPUT and f"--step=25: {own} was not scored there" in said and "there are 1, 2" in said, said


def test_what_is_done_to_a_loaded_model_is_done_to_no_other(own: str) -> None:
    one = timbre_ray.load("lora")
    one.to(dtype=torch.bfloat16)
    one.scheduler = None
    other = timbre_ray.load("lora")
    parts = [part for part in other.components.values() if isinstance(part, torch.nn.Module)]
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32} and other.scheduler is not None
    assert not {id(part) for part in parts} & {id(part) for part in one.components.values()}
