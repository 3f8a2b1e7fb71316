"""Prompts as the pipeline encodes them, and teacher forcing against the rollout."""

from __future__ import annotations

import pytest
import torch

from timbre_ray.models.backbone import Backbone
from timbre_ray.models.language import rollout, teacher_forced
from timbre_ray.specs import TeacherSpec
from timbre_ray.train.teacher import Lesson, teach

PROMPT = "A recording of a sks flute solo."


def test_negative_prompt_is_padded_as_the_pipeline_pads_it(backbone: Backbone) -> None:
    positive = backbone.embed(PROMPT)
    negative = backbone.embed("", pad_to=positive.t5.shape[1])
    states, mask, loa = backbone.pipeline.encode_prompt(
        prompt=PROMPT, device="cpu", num_waveforms_per_prompt=1, do_classifier_free_guidance=True
    )
    assert torch.allclose(torch.cat([negative.loa, positive.loa]), loa, atol=1e-5)
    assert torch.allclose(torch.cat([negative.t5, positive.t5]), states, atol=1e-5)
    assert torch.equal(torch.cat([negative.mask, positive.mask]), mask)


def test_teacher_forcing_on_its_own_rollout_is_the_rollout(backbone: Backbone) -> None:
    prompt = backbone.embed(PROMPT)
    told = teacher_forced(backbone.language_model, prompt.condition, prompt.condition_mask, prompt.loa)
    assert torch.allclose(told, prompt.loa, atol=1e-5)


def test_one_rollout_against_all_clips_has_the_gradient_of_a_batch(backbone: Backbone) -> None:
    prompt = backbone.embed(PROMPT)
    loa = torch.randn(3, 8, 128, generator=torch.Generator().manual_seed(0))
    gpt2 = backbone.copy_language_model().requires_grad_(True)
    torch.nn.functional.mse_loss(rollout(gpt2, prompt.condition, prompt.condition_mask).expand_as(loa), loa).backward()
    shared = gpt2.transformer.h[0].attn.c_attn.weight.grad.clone()
    gpt2.zero_grad()
    batch = rollout(gpt2, prompt.condition.expand(3, -1, -1), prompt.condition_mask.expand(3, -1))
    torch.nn.functional.mse_loss(batch, loa).backward()
    assert torch.allclose(gpt2.transformer.h[0].attn.c_attn.weight.grad, shared, atol=1e-7)


def test_teaching_lowers_the_loss_in_both_modes(backbone: Backbone) -> None:
    loa = torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1)
    for mode in ("rollout", "teacher_forced"):
        gpt2 = backbone.copy_language_model()
        lesson = Lesson(prompt=backbone.embed(PROMPT), loa=loa)
        rows = list(teach(gpt2, lesson, None, TeacherSpec(epochs=12, mode=mode, lr=1e-3, batch_size=4), seed=0))
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert rows[-1]["loss"] < 0.9 * rows[0]["loss"], mode


def test_the_mixture_loss_counts(backbone: Backbone) -> None:
    lesson = Lesson(prompt=backbone.embed(PROMPT), loa=torch.zeros(2, 8, 128))
    spec = TeacherSpec(epochs=1, mixture_weight=0.5, batch_size=2)
    (row,) = teach(backbone.copy_language_model(), lesson, lesson, spec, seed=0)
    assert row["mixture"] == 0.5 * row["instance"]
    assert row["loss"] == pytest.approx(row["instance"] + row["mixture"], rel=1e-6)  # summed in float32


def test_every_mixture_is_heard(backbone: Backbone) -> None:
    """More mixtures than recordings: one that was never drawn could be anything."""
    prompt = backbone.embed(PROMPT)
    target = Lesson(prompt=prompt, loa=torch.zeros(2, 8, 128))
    mixtures = torch.zeros(6, 8, 128)
    spec = TeacherSpec(epochs=20, mixture_weight=0.5, batch_size=2, lr=1e-5)
    for one in range(6):
        odd = mixtures.clone()
        odd[one] = 9.0
        rows = list(teach(backbone.copy_language_model(), target, Lesson(prompt=prompt, loa=odd), spec, seed=0))
        heard = [row["mixture"] > 10 * row["instance"] for row in rows]
        assert 0 < sum(heard) < len(heard), one


def test_the_last_block_alone_is_another_truth_than_the_mean_of_three(backbone: Backbone) -> None:
    bank, audiomae = torch.randn(1, 256, 128, generator=torch.Generator().manual_seed(0)), backbone.audiomae
    with torch.no_grad():
        last = audiomae.vit.forward_features(bank[:, None])[:, 1:]  # without the class token
        assert torch.allclose(audiomae.tokens(bank, "last").flatten(1, 2), last, atol=1e-5)
        assert not torch.allclose(audiomae.tokens(bank, "last"), audiomae.tokens(bank, "last3"), atol=1e-2)


def test_the_teachers_weights_decay_as_it_is_told(backbone: Backbone) -> None:
    lesson, taught = Lesson(prompt=backbone.embed(PROMPT), loa=torch.zeros(2, 8, 128)), []
    for weight_decay in (0.0, 10.0):
        gpt2 = backbone.copy_language_model()
        list(teach(gpt2, lesson, None, TeacherSpec(epochs=1, weight_decay=weight_decay, batch_size=2), seed=0))
        taught.append(gpt2.transformer.h[0].attn.c_attn.weight.norm())
    assert taught[1] < taught[0]
