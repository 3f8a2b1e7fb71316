"""The published U-Nets' shapes, on the meta device: no weights, no memory, the counts that the papers give.

The slow test builds the base size for real, with random weights, and trains it for a step: about 6 GB.
"""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from benchmarks.published import SIZES, build_scheduler, build_unet
from timbre_ray.methods import METHODS
from timbre_ray.methods.lora import attach, target_modules
from timbre_ray.model_sizes import PUBLISHED_SIZES
from timbre_ray.models.backbone import Embeddings
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train.dreambooth import train, trained_parameters
from timbre_ray.train.losses import Examples


@pytest.mark.parametrize("name", SIZES)
def test_lora_adapts_what_reads_text_and_nothing_else(name: str) -> None:
    size = SIZES[name]
    unet = build_unet(size)
    low, high = size.num_parameters
    assert low < sum(p.numel() for p in unet.parameters()) < high
    modules = dict(unet.named_modules())
    adapted = {target.rsplit(".", 2 if target.endswith(".0") else 1)[0] for target in target_modules(unet, "cross_attention")}
    assert len(adapted) == size.num_adapted
    assert {modules[module].cross_attention_dim for module in adapted} == {768, 1024}
    attach(unet, DreamboothSpec(method="lora", lora_rank=4))
    trained = trained_parameters(unet, None)
    assert all(".lora_" in parameter for parameter in trained)
    assert sum(p.numel() for p in trained.values()) == size.num_lora_parameters


@pytest.mark.parametrize("name", SIZES)
def test_ten_seconds_of_latents_keep_their_shape(name: str) -> None:
    """(batch, 8, 256, 16) latents, eight LOA tokens of 768, T5 states of 1024 with their mask."""
    unet = build_unet(SIZES[name])
    with torch.device("meta"):
        predicted = unet(
            torch.empty(2, 8, 256, 16), torch.tensor([500, 500]), encoder_hidden_states=torch.empty(2, 8, 768),
            encoder_hidden_states_1=torch.empty(2, 12, 1024), encoder_attention_mask_1=torch.empty(2, 12),
        ).sample  # fmt: skip
    assert predicted.shape == (2, 8, 256, 16)


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_that_plans_reckon_with_are_these(name: str) -> None:
    known, unet = PUBLISHED_SIZES[f"cvssp/{name}"], build_unet(SIZES[name])
    assert known.unet == sum(p.numel() for p in unet.parameters())
    for targets, per_rank in known.lora.items():
        adapted = build_unet(SIZES[name])
        attach(adapted, DreamboothSpec(method="lora", lora_targets=targets, lora_rank=3))
        assert 3 * per_rank == sum(p.numel() for p in trained_parameters(adapted, None).values())
    with torch.device("meta"):
        assert known.language_model == sum(p.numel() for p in GPT2Model(GPT2Config()).parameters())


def tiny_examples() -> Examples:
    """One clip of 0.32 s under a prompt of five T5 tokens, at the published widths."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    prompt = Embeddings(
        loa=noise(1, 8, 768), t5=noise(1, 5, 1024), mask=torch.ones(1, 5, dtype=torch.long), condition=noise(1, 10, 768),
        condition_mask=torch.ones(1, 10, dtype=torch.long),
    )  # fmt: skip
    return Examples(mean=noise(1, 8, 8, 16), std=torch.full((1, 8, 8, 16), 0.1), prompt=prompt)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "direct"])
def test_a_step_at_base_size_trains_what_it_should(method: str) -> None:
    """cvssp/audioldm2's configuration, random weights, one step of one tiny clip on the CPU."""
    torch.manual_seed(0)
    unet = build_unet(SIZES["audioldm2"], device="cpu")
    spec = DreamboothSpec(method=method, steps=1, lr=1e-3, batch_size=1, gradient_accumulation=1)
    METHODS[method].attach(unet, spec)
    trained = trained_parameters(unet, None)
    before = {name: value.detach().double().sum().item() for name, value in unet.named_parameters()}
    (row,) = train(unet, build_scheduler(), tiny_examples(), None, spec, seed=0)
    assert torch.isfinite(torch.tensor(row["loss"]))
    changed = {name for name, value in unet.named_parameters() if value.detach().double().sum().item() != before[name]}
    assert changed == {name.removeprefix("unet.") for name in trained}
    if method == "direct":
        assert changed == set(before)
    else:  # A and B of q, k, v and out; A has no gradient while B is zero, but AdamW's decay moves it
        assert len(changed) == 2 * 4 * SIZES["audioldm2"].num_adapted and all(".lora_" in name for name in changed)
