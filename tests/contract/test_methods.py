"""What every Dreambooth variant must do, and the identities between them. Small batches, few steps, the real miniature."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from timbre_ray.data.features import log_mel, mix, normalise_waveform
from timbre_ray.leaving import Leaving
from timbre_ray.methods import METHODS
from timbre_ray.methods.base import Attached
from timbre_ray.methods.lora import Stacked, target_modules
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train import dreambooth
from timbre_ray.train.checkpoint import generator_for
from timbre_ray.train.dreambooth import Arm, train, train_together
from timbre_ray.train.losses import Examples, diffusion_losses, of_one_length

SPEC = DreamboothSpec(steps=2, lr=1e-4, batch_size=1, gradient_accumulation=2)
FULL = ("direct", "prior", "mixclass_prior", "chineseclass_prior")
"""Methods that train every weight of the U-Net."""
INSTANCE, CLASS = "A recording of a sks flute solo.", "A recording of a piano."


def waveforms(num_clips: int, seed: int) -> torch.Tensor:
    return 0.3 * torch.randn(num_clips, 40_960, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


@pytest.fixture(scope="module")
def examples(backbone: Backbone) -> dict[str, Examples]:
    made = {}
    for i, (name, prompt) in enumerate({"instance": INSTANCE, "prior": CLASS}.items()):
        clips = waveforms(2, i)
        mean, std = backbone.encode_audio(clips)
        made[name] = Examples(mean=mean, std=std, prompt=backbone.embed(prompt), loa=backbone.loa(clips))
    return made


def run(
    backbone: Backbone, examples: dict[str, Examples], spec: DreamboothSpec, *, prior: Examples | None = None,
    resume_from: Path | None = None, stop_after: int | None = None, gpt2: nn.Module | None = None,
) -> nn.Module:  # fmt: skip
    unet = backbone.copy_unet()
    torch.manual_seed(0)
    METHODS[spec.method].attach(unet, spec)
    rows = train(
        unet, backbone.new_scheduler(), examples["instance"], prior, spec, seed=3, gpt2=gpt2, resume_from=resume_from,
        checkpoint_every_s=0.0,
    )  # fmt: skip
    for row in rows:
        if row["step"] == stop_after:
            rows.close()  # as if the process had been killed
            break
    return unet


def equal(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def prior_for(method: str, examples: dict[str, Examples]) -> Examples | None:
    return examples["prior"] if METHODS[method].prior else None


@pytest.mark.parametrize("method", METHODS)
def test_what_should_train_changes_and_nothing_else(method: str, backbone: Backbone, examples: dict[str, Examples]) -> None:
    before = copy.deepcopy(backbone.unet.state_dict())
    spec = dataclasses.replace(SPEC, method=method, steps=3)
    start, trained = attached(backbone, spec)
    after = run(backbone, examples, spec, prior=prior_for(method, examples)).state_dict()
    assert start.keys() == after.keys()
    assert {name for name in start if not torch.equal(start[name], after[name])} == trained
    if method == "lora":
        targets = target_modules(backbone.unet, "cross_attention")
        assert trained == {f"{name}.lora_{side}.default.weight" for name in targets for side in "AB"}
    elif method in FULL:
        assert trained == before.keys()
    assert all(torch.equal(before[name], value) for name, value in backbone.unet.state_dict().items()), "the shared backbone"


def attached(backbone: Backbone, spec: DreamboothSpec) -> tuple[dict[str, torch.Tensor], set[str]]:
    """What ``run`` starts from, and the names of what trains in it."""
    unet = backbone.copy_unet()
    torch.manual_seed(0)
    METHODS[spec.method].attach(unet, spec)
    return unet.state_dict(), {name for name, p in unet.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_attaching_changes_no_weight_of_the_model(method: str, backbone: Backbone) -> None:
    start, _ = attached(backbone, dataclasses.replace(SPEC, method=method))
    for name, value in backbone.unet.state_dict().items():
        layer, _, weight = name.rpartition(".")
        kept = start[name] if name in start else start[f"{layer}.base_layer.{weight}"]  # peft moves what it adapts
        assert torch.equal(kept, value), name


@pytest.mark.parametrize("method", METHODS)
def test_saved_weights_load_into_an_untouched_copy(
    method: str, backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, method=method)
    trained = run(backbone, examples, spec, prior=prior_for(method, examples))
    METHODS[method].save(tmp_path, trained, spec)
    loaded = backbone.copy_unet()
    METHODS[method].load(loaded, spec, tmp_path)
    assert equal(trained, loaded)
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".safetensors", ".json", ".md")]


@pytest.mark.parametrize("method", METHODS)
def test_merged_is_a_plain_unet_that_answers_the_same(method: str, backbone: Backbone, examples: dict[str, Examples]) -> None:
    spec = dataclasses.replace(SPEC, method=method)
    trained = run(backbone, examples, spec, prior=prior_for(method, examples)).eval()
    before = answer(trained, examples)
    merged = METHODS[method].merge(trained)
    assert merged.state_dict().keys() == backbone.unet.state_dict().keys()
    assert torch.allclose(answer(merged, examples), before, atol=1e-5)
    assert not torch.allclose(answer(backbone.unet, examples), before, atol=1e-5)


@torch.no_grad()
def answer(unet: nn.Module, examples: dict[str, Examples]) -> torch.Tensor:
    """The predicted noise for the first clip, taken as noisy latents."""
    prompt = examples["instance"].prompt
    return unet(
        examples["instance"].mean[:1], 500, encoder_hidden_states=prompt.loa, encoder_hidden_states_1=prompt.t5,
        encoder_attention_mask_1=prompt.mask,
    ).sample  # fmt: skip


def test_prior_with_weight_zero_equals_direct(backbone: Backbone, examples: dict[str, Examples]) -> None:
    direct = run(backbone, examples, dataclasses.replace(SPEC, method="direct"))
    spec = dataclasses.replace(SPEC, method="prior", prior_weight=0.0)
    assert equal(direct, run(backbone, examples, spec, prior=examples["prior"]))
    spec = dataclasses.replace(spec, prior_weight=1.0)
    assert not equal(direct, run(backbone, examples, spec, prior=examples["prior"]))


@pytest.mark.parametrize("joint", [False, True])
def test_instance_and_prior_together_have_the_gradients_of_each_alone(
    joint: bool, backbone: Backbone, examples: dict[str, Examples]
) -> None:
    """One call of the U-Net for both, the shorter prompt padded, against a call for each; with GPT-2, its gradients too."""
    spec = dataclasses.replace(SPEC, method="prior", prior_weight=0.7, batch_size=2, gradient_accumulation=1)
    assert examples["instance"].prompt.t5.shape != examples["prior"].prompt.t5.shape

    def gradients_and_losses(*names: str) -> tuple[torch.Tensor, list[float]]:
        unet, gpt2 = backbone.copy_unet().requires_grad_(True), backbone.copy_language_model().requires_grad_(True)
        parts = of_one_length([examples[name] for name in names])
        streams = {"instance": dreambooth.INSTANCE, "prior": dreambooth.PRIOR}
        drawn = [generator_for(3, streams[name], 0) for name in names]
        losses = diffusion_losses(unet, backbone.new_scheduler(), parts, 2, drawn, gpt2 if joint else None, 0.25)
        weights = {"instance": 1.0, "prior": spec.prior_weight}
        sum(weights[name] * loss for name, loss in zip(names, losses, strict=True)).backward()
        trained = [*unet.parameters(), *(gpt2.parameters() if joint else [])]
        return torch.cat([p.grad.flatten() for p in trained if p.grad is not None]), [loss.item() for loss in losses]

    (instance, first), (prior, second) = gradients_and_losses("instance"), gradients_and_losses("prior")
    together, losses = gradients_and_losses("instance", "prior")
    assert losses == pytest.approx(first + second, rel=1e-5) and losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert (together - (instance + prior)).norm() < 1e-5 * together.norm()
    assert (together - instance).norm() > 0.1 * together.norm()


def test_mixclass_with_a_silent_piano_is_the_target(backbone: Backbone, examples: dict[str, Examples]) -> None:
    target = normalise_waveform(waveforms(2, 0))
    prompt = examples["instance"].prompt

    def trained_on(clips: torch.Tensor) -> nn.Module:
        mean, std = backbone.encode_audio(clips)
        return run(
            backbone, {"instance": Examples(mean=mean, std=std, prompt=prompt)}, dataclasses.replace(SPEC, method="direct")
        )

    direct = trained_on(target)
    assert equal(direct, trained_on(mix(target, waveforms(2, 1), float("-inf"))))
    assert not equal(direct, trained_on(mix(target, waveforms(2, 1), 0.0)))


def test_lora_adapts_true_cross_attention_only(backbone: Backbone) -> None:
    chosen = target_modules(backbone.unet, "cross_attention")
    widths = {dict(backbone.unet.named_modules())[name].in_features for name in chosen if name.endswith("to_k")}
    assert widths == {128, 96}  # LOA and T5; where the configuration says null, attn2 attends to itself and is left out
    assert len(target_modules(backbone.unet, "attention")) > len(chosen)


@pytest.mark.parametrize("method", ["direct", "prior", "lora"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    method: str, backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, method=method, steps=4)
    prior = prior_for(method, examples)
    whole = run(backbone, examples, spec, prior=prior)
    checkpoint = tmp_path / "resume.pt"
    run(backbone, examples, spec, prior=prior, resume_from=checkpoint, stop_after=2)
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    assert equal(whole, run(backbone, examples, spec, prior=prior, resume_from=checkpoint))


@pytest.mark.parametrize("left_at", [1, 3])
def test_a_run_that_was_told_to_leave_goes_on_at_that_very_step(
    left_at: int, backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, method="prior", steps=4)
    whole = run(backbone, examples, spec, prior=examples["prior"])
    steps: list[int] = []

    def begin() -> tuple[nn.Module, Generator[dict[str, float], None, None]]:
        """Counts the optimizer's steps; no checkpoint is written because of the time."""
        unet = backbone.copy_unet()
        METHODS[spec.method].attach(unet, spec)
        unet.register_forward_pre_hook(lambda *_: steps.append(1))
        rows = train(
            unet, backbone.new_scheduler(), examples["instance"], examples["prior"], spec, seed=3,
            resume_from=tmp_path / "resume.pt", checkpoint_every_s=3600.0,
        )  # fmt: skip
        return unet, rows

    _, rows = begin()
    for row in rows:
        if row["step"] == left_at:
            with pytest.raises(Leaving, match="spot"):
                rows.throw(Leaving("spot"))
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] == left_at
    resumed, rows = begin()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert equal(whole, resumed)
    assert len(steps) == 4 * spec.gradient_accumulation, "every step was computed once, instance and prior in one call"


def test_a_run_with_a_checkpoint_cut_off_half_way_equals_an_uninterrupted_one(
    backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    spec, checkpoint = dataclasses.replace(SPEC, method="direct", steps=4), tmp_path / "resume.pt"
    whole = run(backbone, examples, spec)
    run(backbone, examples, spec, resume_from=checkpoint, stop_after=2)
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    with pytest.warns(UserWarning, match="starts from step 0"):
        assert equal(whole, run(backbone, examples, spec, resume_from=checkpoint))


def test_joint_training_trains_gpt2(backbone: Backbone, examples: dict[str, Examples]) -> None:
    gpt2 = backbone.copy_language_model()
    gpt2.transformer.requires_grad_(True)
    before = copy.deepcopy(gpt2.state_dict())
    spec = dataclasses.replace(SPEC, train_language_model=True, true_loa_probability=0.0)
    run(backbone, examples, spec, gpt2=gpt2)
    name = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(before[name], gpt2.state_dict()[name])
    always_true = backbone.copy_language_model()
    always_true.transformer.requires_grad_(True)
    run(backbone, examples, dataclasses.replace(spec, true_loa_probability=1.0, weight_decay=0.0), gpt2=always_true)
    assert torch.equal(before[name], always_true.state_dict()[name])  # the predicted LOA was never used


def test_a_loss_that_is_not_finite_stops_with_its_reason(backbone: Backbone, examples: dict[str, Examples]) -> None:
    broken = dataclasses.replace(examples["instance"], mean=torch.full_like(examples["instance"].mean, float("nan")))
    with pytest.raises(FloatingPointError, match=r"dreambooth: the loss is nan at step 1; lower dreambooth\.lr"):
        run(backbone, {"instance": broken}, SPEC)


# -- several arms over one U-Net -------------------------------------------------------------------------------------------------

STACKED = dataclasses.replace(SPEC, method="lora", steps=3, gradient_accumulation=2)
#: Arms that differ in all that they may.
ARMS = ((STACKED, "instance", 3), (dataclasses.replace(STACKED, lr=3e-3, lora_alpha=1), "prior", 4), (STACKED, "instance", 5))


def stacked(
    backbone: Backbone, examples: dict[str, Examples], places: tuple = ARMS, folder: Path | None = None
) -> tuple[list[Attached], Generator[list[dict[str, float] | None], None, None]]:
    unet, specs, seeds = backbone.copy_unet(), [spec for spec, _, _ in places], [seed for _, _, seed in places]
    attached = METHODS["lora"].together(unet, specs, seeds)
    arms = [
        Arm(
            instance=examples[name], spec=spec, seed=seed, parameters=one.parameters,
            resume_from=folder / f"{i}.pt" if folder else None,
        )
        for i, ((spec, name, seed), one) in enumerate(zip(places, attached, strict=True))
    ]  # fmt: skip
    return attached, train_together(unet, backbone.new_scheduler(), arms, checkpoint_every_s=0.0)


def lone(
    backbone: Backbone, examples: dict[str, Examples], place: tuple, resume_from: Path | None = None
) -> tuple[nn.Module, Generator[dict[str, float], None, None]]:
    spec, name, seed = place
    unet = backbone.copy_unet()
    torch.manual_seed(seed)
    METHODS["lora"].attach(unet, spec)
    rows = train(
        unet, backbone.new_scheduler(), examples[name], None, spec, seed=seed, resume_from=resume_from, checkpoint_every_s=0.0
    )
    return unet, rows


def test_arms_over_one_base_begin_as_each_alone(backbone: Backbone, examples: dict[str, Examples]) -> None:
    attached, _ = stacked(backbone, examples)
    for one, place in zip(attached, ARMS, strict=True):
        alone = dreambooth.trained_parameters(lone(backbone, examples, place)[0], None)
        assert alone.keys() == one.parameters.keys()
        assert all(torch.equal(alone[name], one.parameters[name]) for name in alone)


def test_arms_over_one_base_train_as_each_alone(backbone: Backbone, examples: dict[str, Examples], tmp_path: Path) -> None:
    attached, rows = stacked(backbone, examples)
    found = list(rows)
    for i, place in enumerate(ARMS):
        unet, alone = lone(backbone, examples, place)
        for mine, theirs in zip((row[i] for row in found), alone, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)
        (folder := tmp_path / str(i)).mkdir()
        attached[i].save(folder)
        loaded = backbone.copy_unet()
        METHODS["lora"].load(loaded, place[0], folder)
        assert torch.allclose(answer(loaded.eval(), examples), answer(unet.eval(), examples), atol=1e-5)
    losses = [row["loss"] for row in found[-1]]
    assert len(set(losses)) == len(losses), "each has its own clips, noise and weights"


def test_an_arm_goes_on_alone_from_where_it_was_with_others_and_back(
    backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    whole = [list(lone(backbone, examples, place)[1]) for place in ARMS]
    _, rows = stacked(backbone, examples, folder=tmp_path)
    next(rows)
    with pytest.raises(Leaving, match="spot"):
        rows.throw(Leaving("spot"))
    alone = list(lone(backbone, examples, ARMS[1], tmp_path / "1.pt")[1])
    assert alone == [pytest.approx(row, rel=1e-4) for row in whole[1]]
    (tmp_path / "2.pt").rename(tmp_path / "1.pt")
    _, rows = stacked(backbone, examples, (ARMS[0], ARMS[2]), tmp_path)
    assert [row[0] for row in rows] == [pytest.approx(row, rel=1e-4) for row in whole[0]]


def test_an_arm_that_diverges_leaves_the_others_alone(backbone: Backbone, examples: dict[str, Examples], tmp_path: Path) -> None:
    broken = dataclasses.replace(examples["prior"], mean=torch.full_like(examples["prior"].mean, float("nan")))
    mixed = {**examples, "prior": broken}
    attached, rows = stacked(backbone, mixed, folder=tmp_path)
    found = list(rows)
    assert all(row[1] is None for row in found) and not (tmp_path / "1.pt").exists()
    for i in (0, 2):
        alone = list(lone(backbone, examples, ARMS[i])[1])
        assert [row[i] for row in found] == [pytest.approx(row, rel=1e-4) for row in alone]
        assert all(p.isfinite().all() for p in attached[i].parameters.values())
    with pytest.raises(FloatingPointError, match=r"lower dreambooth\.lr \(now 0\.003\)"):
        next(stacked(backbone, mixed, (ARMS[1], ARMS[0]))[1])


def test_arms_over_one_base_have_the_precision_of_each_alone(backbone: Backbone, examples: dict[str, Examples]) -> None:
    """bfloat16 autocast: what a projection hands on is as narrow, and the same to the bit."""
    spec = dataclasses.replace(STACKED, lora_alpha=0.3)
    name = target_modules(backbone.unet, "cross_attention")[0]
    unet, _ = lone(backbone, examples, (spec, "instance", 3))
    adapted = unet.get_submodule(name)
    nn.init.normal_(adapted.lora_B["default"].weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, adapted.in_features, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        alone, both = adapted(x), Stacked([adapted, adapted])(torch.cat([x, x]))
    assert both.dtype == alone.dtype == torch.bfloat16
    assert torch.equal(both, torch.cat([alone, alone]))


def test_gradients_are_means_of_what_is_accumulated_and_clipped(
    backbone: Backbone, examples: dict[str, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW divides a gradient's size away, so that no weight would tell."""
    norms: list[float] = []

    class Watched(torch.optim.AdamW):
        def step(self, *arguments: object, **options: object) -> None:
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
            super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    # All draws alike: the mean of three gradients is then that of one.
    monkeypatch.setattr(dreambooth.checkpoint, "generator_for", lambda *place: torch.Generator().manual_seed(5))

    def norm(**changes: float) -> float:
        run(backbone, examples, dataclasses.replace(SPEC, steps=1, **changes))
        return norms.pop()

    one = norm(gradient_accumulation=1, max_grad_norm=1e9)
    assert norm(gradient_accumulation=3, max_grad_norm=1e9) == pytest.approx(one, rel=1e-4)
    assert norm(gradient_accumulation=1, max_grad_norm=one / 2) == pytest.approx(one / 2, rel=1e-3)


def test_the_loss_that_is_told_is_the_one_that_is_lowered(backbone: Backbone, examples: dict[str, Examples]) -> None:
    unet, spec = backbone.copy_unet(), dataclasses.replace(SPEC, method="prior", steps=1, prior_weight=0.25)
    METHODS["prior"].attach(unet, spec)
    (row,) = train(unet, backbone.new_scheduler(), examples["instance"], examples["prior"], spec, seed=0)
    assert row["loss"] == pytest.approx(row["instance"] + 0.25 * row["prior"])


def test_recordings_are_drawn_from_their_posterior_each_with_its_own_loa(
    backbone: Backbone, examples: dict[str, Examples]
) -> None:
    """Latents with the VAE's deviation; and a GPT-2 that trains along is given the true LOA of the clip that was drawn."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def unet(noisy: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor, **texts: torch.Tensor) -> object:
        seen.append((noisy, encoder_hidden_states))
        return SimpleNamespace(sample=noisy)

    zero = torch.zeros_like(examples["instance"].mean)
    for std in (zero, zero + 3):
        given = dataclasses.replace(examples["instance"], mean=zero, std=std)
        diffusion_losses(
            unet, backbone.new_scheduler(), [given], 6, [generator_for(0, 1, 0)], gpt2=backbone.language_model,
            true_loa_probability=1.0,
        )  # fmt: skip
    assert (seen[1][0] - seen[0][0]).abs().max() > 0.5
    rows = torch.randint(len(zero), (6,), generator=generator_for(0, 1, 0))
    assert len(set(rows.tolist())) == 2 and torch.equal(seen[0][1], examples["instance"].loa[rows])


def test_the_posterior_is_scaled_as_its_mean(backbone: Backbone, examples: dict[str, Examples]) -> None:
    posterior = backbone.vae.encode(log_mel(waveforms(2, 0))[:, None]).latent_dist
    for name in ("mean", "std"):
        expected = getattr(posterior, name) * backbone.vae.config.scaling_factor
        assert torch.allclose(getattr(examples["instance"], name), expected, atol=1e-4), name
