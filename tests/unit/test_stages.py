"""A trial's stages on the miniature: what is shared, and what a resumed trial may trust."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AudioLDM2Pipeline
from safetensors.torch import load_file

from timbre_ray import stages, training
from timbre_ray.data.features import mix
from timbre_ray.estimate import Records
from timbre_ray.evaluate.scorer import score_clips
from timbre_ray.leaving import Leaving
from timbre_ray.models.backbone import load_backbone
from timbre_ray.specs import BackboneSpec, ClipsSpec, DreamboothSpec, EvaluateSpec, SamplerSpec, TeacherSpec, TrialSpec
from timbre_ray.stage_keys import ScoreRequest, StageKeys
from timbre_ray.stages import TrialStages, mixed_targets
from timbre_ray.store import Store
from timbre_ray.trial import export, run_trial
from timbre_ray.trial_progress import Progress

SPEC = TrialSpec(
    clips=ClipsSpec(path="mini:chinese_flute_v1"),
    dreambooth=DreamboothSpec(steps=4, lr=1e-4, gradient_accumulation=1, num_class_clips=2),
    evaluate=EvaluateSpec(at_steps=(0, 4), num_clips=2, sampler=SamplerSpec(num_inference_steps=2, mel_inversion="griffin_lim")),
)


def with_dreambooth(**changes: object) -> TrialSpec:
    return dataclasses.replace(SPEC, dreambooth=dataclasses.replace(SPEC.dreambooth, **changes))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def key(spec: TrialSpec, store: Store, step: int = 4) -> str:
    return TrialStages(spec, store, "cpu").dreambooth_key(step)


def test_settings_that_a_method_does_not_read_change_nothing(store: Store) -> None:
    direct = key(SPEC, store)
    assert direct == key(with_dreambooth(prior_weight=3.0, lora_rank=8), store)
    assert direct == key(with_dreambooth(steps=9), store), "how long a run goes on is no part of its beginning"
    assert direct != key(with_dreambooth(lr=2e-4), store)
    assert direct != key(dataclasses.replace(SPEC, seed=1), store)
    assert key(with_dreambooth(method="lora", lora_rank=4), store) != key(with_dreambooth(method="lora", lora_rank=8), store)
    assert key(with_dreambooth(method="prior"), store) != key(with_dreambooth(method="prior", prior_weight=0.5), store)
    assert key(with_dreambooth(method="prior"), store) == key(with_dreambooth(method="prior", mixture_gain_db=3.0), store)
    joint = with_dreambooth(train_language_model=True)
    assert key(joint, store) != key(dataclasses.replace(joint, teacher=TeacherSpec(loa="last")), store)


def test_latents_are_saved_whatever_their_layout(store: Store, tmp_path: Path) -> None:
    """The full-size VAE's convolutions answer with channels last, which safetensors refuses."""
    latents = torch.randn(2, 8, 64, 16).contiguous(memory_format=torch.channels_last)
    TrialStages(SPEC, store, "cpu")._save_encoded(torch.randn(2, 40_960), tmp_path, latents)
    assert torch.equal(load_file(tmp_path / "encoded.safetensors")["mean"], latents)


def test_teacher_forcing_is_shared_and_counts(store: Store) -> None:
    taught = dataclasses.replace(SPEC, teacher=TeacherSpec(epochs=1))
    assert key(taught, store) != key(SPEC, store)
    teach = TrialStages(taught, store, "cpu").teach()
    prior = dataclasses.replace(taught, dreambooth=dataclasses.replace(SPEC.dreambooth, method="prior"))
    assert TrialStages(prior, store, "cpu").teach().key == teach.key


def test_a_checkpoint_beyond_a_wanted_step_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    whole = Store(tmp_path / "whole")
    edited = dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(1, 4)))
    assert [step for step, _ in TrialStages(edited, whole, "cpu").train(4)] == [1, 4]

    store = Store(tmp_path / "store")
    trial = TrialStages(SPEC, store, "cpu", on_progress=stop_at(3))
    with pytest.raises(KeyboardInterrupt):
        list(trial.train(4))
    scratch = store.scratch("dreambooth", trial.dreambooth_key(4)) / "resume.pt"
    assert torch.load(scratch, weights_only=True)["step"] >= 2
    # The sweep is edited: step 1 is wanted now, and the checkpoint has passed it.
    assert [step for step, _ in TrialStages(edited, store, "cpu").train(4)] == [1, 4]
    for step in (1, 4):
        name = TrialStages(edited, store, "cpu").dreambooth_key(step)
        files = [s.get("dreambooth", name).file("unet.safetensors").read_bytes() for s in (whole, store)]
        assert files[0] == files[1]


def test_a_notice_while_the_last_audio_is_made_costs_no_step(tmp_path: Path) -> None:
    """The weights are kept by then, and the folder of checkpoints is gone."""

    def leave(progress: Progress) -> None:
        if progress.stage == "generate" and progress.done:
            raise Leaving("spot")

    spec = dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(2,)))
    store = Store(tmp_path)
    with pytest.raises(Leaving, match="spot"):
        list(run_trial(spec, store=store, score=lambda request: Scored(request, store), on_progress=leave))
    steps: list[int] = []
    count = lambda progress: steps.append(progress.done) if progress.stage == "dreambooth" else None  # noqa: E731
    found = list(run_trial(spec, store=store, score=lambda request: Scored(request, store), on_progress=count))
    assert [evaluation.step for evaluation in found] == [2] and not steps


def test_damaged_weights_are_trained_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spec = dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(1, 2)))
    trial = TrialStages(spec, store, "cpu")
    losses = list(trial.train(2))
    path = store.get("dreambooth", trial.dreambooth_key(1)).file("unet.safetensors")
    published = path.read_bytes()
    path.write_bytes(published[:-1] + bytes([published[-1] ^ 1]))
    assert list(TrialStages(spec, store, "cpu").train(2)) == losses
    assert path.read_bytes() == published
    weights = [event["key"] for event in store.log() if (event["event"], event["stage"]) == ("computed", "dreambooth")]
    assert weights == [trial.dreambooth_key(step) for step in (1, 2, 1)]


def stop_at(step: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if progress.stage == "dreambooth" and progress.done == step:
            raise KeyboardInterrupt

    return on_progress


class Scored:
    """A score that is there at once."""

    def __init__(self, request: ScoreRequest, store: Store) -> None:
        self._scores = score_clips(request, store)

    def done(self) -> bool:
        return True

    def result(self) -> dict:
        return self._scores


def test_a_run_computes_what_its_spec_says_and_measures_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sampler = dataclasses.replace(SPEC.evaluate.sampler, negative_prompt="Low quality")
    spec = dataclasses.replace(
        with_dreambooth(method="mixclass_prior"), teacher=TeacherSpec(epochs=1, mixture_weight=0.5),
        evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(0, 2), sampler=sampler),
    )  # fmt: skip
    assert [e.step for e in run_trial(spec, store=store, score=lambda request: Scored(request, store))] == [0, 2]
    computed = {(event["stage"], event["key"]) for event in store.log() if event["event"] == "computed"}
    stages = {(stage.name, stage.key): stage for stage in StageKeys(spec).all()}
    assert computed == set(stages)
    records = Records(store)
    for stage in stages.values():
        assert not records.seconds(stage).unknown and records.num_bytes(stage, spec).known > 0, stage.name
    (weights,) = (stage for stage in stages.values() if stage.name == "dreambooth")
    (spent,) = (m["description"]["spent"] for m in store.manifests() if m["stage"] == "dreambooth")
    assert spent["work"] == weights.work == 2 and records.seconds(weights).known == pytest.approx(spent["seconds"])

    mixtures = StageKeys(spec).taught_mixture
    shutil.rmtree(store.get(mixtures.name, mixtures.key).folder)
    assert TrialStages(spec, store, "cpu").teach() is not None
    assert not store.has(mixtures.name, mixtures.key), "what is taught already has no need of its mixtures"


def test_mixtures_are_plain_sums() -> None:
    target, partner = torch.tensor([[0.2, -0.2, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.1, -0.1]])
    assert torch.allclose(mix(target, partner, 0.0), torch.tensor([[0.5, -0.5, 0.25, -0.25]]))
    assert torch.allclose(mix(target, partner, 6.0206), torch.tensor([[0.5, -0.5, 0.5, -0.5]]), atol=1e-4)


def test_an_exported_trial_plays_in_the_stock_pipeline(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    spec = dataclasses.replace(with_dreambooth(method="lora", lr=1e-2), teacher=TeacherSpec(epochs=1, lr=1e-3))
    spec = dataclasses.replace(spec, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(1,)))
    trial = TrialStages(spec, store, "cpu")
    list(trial.train(1))
    export(spec, step=1, out=tmp_path / "mine", store=store)
    pipeline = AudioLDM2Pipeline.from_pretrained(tmp_path / "mine")
    weights = {name: part.state_dict() for name, part in (("unet", pipeline.unet), ("gpt2", pipeline.language_model))}
    assert not torch.equal(weights["gpt2"]["transformer.h.0.attn.c_attn.weight"],
                           trial.backbone.language_model.state_dict()["transformer.h.0.attn.c_attn.weight"])  # fmt: skip
    changed = {name for name, value in trial.backbone.unet.state_dict().items() if not torch.equal(weights["unet"][name], value)}
    assert changed and all(".attn2.to_" in name for name in changed), "the adapters are merged into the attention to text alone"
    audio = pipeline("A recording of a sks flute solo.", num_inference_steps=2, audio_length_in_s=2.56).audios
    assert np.isfinite(audio).all() and np.abs(audio).max() > 0
    again = load_backbone(BackboneSpec(name=str(tmp_path / "mine")))
    assert again.clip_samples == trial.backbone.clip_samples
    with pytest.raises(FileExistsError, match="mine: is there already"):
        export(spec, step=1, out=tmp_path / "mine", store=store)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_half_precision_generates_what_single_does_nearly_and_trains_in_single(tmp_path: Path) -> None:
    evaluate = dataclasses.replace(SPEC.evaluate, at_steps=(4,))
    spec = dataclasses.replace(SPEC, backbone=BackboneSpec(dtype="bfloat16"), evaluate=evaluate)
    store = Store(tmp_path / "store")
    list(run_trial(spec, store=store, score=lambda request: Scored(request, store)))
    half, single = TrialStages(spec, store, "cpu"), TrialStages(SPEC, store, "cpu")
    assert half.backbone.unet.dtype == half.trained_unet(4).dtype == torch.bfloat16
    rest = (half.backbone.language_model, half.backbone.vae, half.backbone.vocoder)
    assert {part.dtype for part in rest} == {torch.float32}
    weights = load_file(store.get("dreambooth", half.dreambooth_key(4)).file("unet.safetensors"))
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert half.keys.encode.key != single.keys.encode.key
    unets = half.backbone.unet, single.backbone.unet
    clips = [s._generate(unet, "A recording of a piano.", None, 2, 0)[1] for s, unet in zip((half, single), unets, strict=True)]
    distance = (clips[0] - clips[1]).square().mean().sqrt() / clips[1].std()
    assert 0 < distance < 0.15, "two steps from noise alone magnify its eight bits"
    export(spec, step=4, out=tmp_path / "whole", store=store)
    pipeline = AudioLDM2Pipeline.from_pretrained(tmp_path / "whole")
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float32}
    exported = {**single.backbone.unet.state_dict(), **weights}
    assert all(torch.equal(value, exported[name]) for name, value in pipeline.unet.state_dict().items()), "as trained, unrounded"
    for name, value in pipeline.vae.state_dict().items():
        assert torch.equal(value, single.backbone.vae.state_dict()[name]), name
    encoded = [load_file(s.encode().file("encoded.safetensors")) for s in (half, single)]
    assert all(torch.equal(value, encoded[1][name]) for name, value in encoded[0].items()), "what is trained on is not rounded"
    begun = half.backbone.copy_unet().state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in single.backbone.unet.state_dict().items()), "no step is lost"


def test_mixtures_come_from_all_recordings() -> None:
    assert mixed_targets(5, 3).tolist() == [0, 1, 2, 0, 1] and mixed_targets(3, 3).tolist() == [0, 1, 2]
    assert mixed_targets(4, 10).tolist() == [0, 2, 5, 7], "not the first four alone"


def test_class_audio_is_of_its_own_noise_for_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never that of what is scored, or the prior would be trained on it."""
    played: list[int] = []
    play = stages.generate

    def noted(*arguments: object, seed: int, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
        played.append(seed)
        return play(*arguments, seed=seed, **settings)

    monkeypatch.setattr(stages, "generate", noted)
    for seed in (0, 1):
        spec = dataclasses.replace(SPEC, seed=seed)
        TrialStages(spec, Store(tmp_path / "store"), "cpu").class_audio("A recording of a piano.")
    assert played == [stages.CLASS_AUDIO_SEED, stages.CLASS_AUDIO_SEED + 1]
    assert SPEC.evaluate.seed not in range(stages.CLASS_AUDIO_SEED, stages.CLASS_AUDIO_SEED + 1000)


def test_gpt2_is_taught_the_layers_that_are_named(store: Store) -> None:
    for layers in ("last3", "last"):
        made = TrialStages(dataclasses.replace(SPEC, teacher=TeacherSpec(epochs=1, loa=layers)), store, "cpu")
        encoded = made.encode()
        found = made.examples("encode", encoded.key, made.prompts.instance).loa
        assert torch.equal(found, load_file(encoded.file("encoded.safetensors"))[f"loa_{layers}"]), layers


def test_time_is_counted_from_the_last_scored_step(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(0, 2, 4)))
    store = Store(tmp_path / "store")
    trial = TrialStages(spec, store, "cpu")
    list(trial.train(4))
    work = [store.description("dreambooth", trial.dreambooth_key(step))["spent"]["work"] for step in (2, 4)]
    assert work == [2 * spec.dreambooth.batch_size] * 2
