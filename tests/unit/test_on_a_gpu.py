"""What the CPU cannot show: graphs compute what the plain calls do, and what is set aside leaves the GPU. Skipped without one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from timbre_ray.methods import METHODS
from timbre_ray.models import cuda_graphs
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.sampling import generate, prompt_pair
from timbre_ray.specs import BackboneSpec, DreamboothSpec, SamplerSpec
from timbre_ray.train.dreambooth import Arm, train, train_together
from timbre_ray.train.losses import Examples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def on_gpu() -> Iterator[Backbone]:
    backbone = load_backbone(BackboneSpec(), "cuda")
    yield backbone
    backbone.set_aside()


def examples(backbone: Backbone, prompt: str, seed: int) -> Examples:
    shape = (6, *backbone.latent_shape)
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Examples(mean=mean, std=torch.full(shape, 0.1), prompt=backbone.embed(prompt))


@pytest.mark.parametrize("method", ["direct", "prior", "lora"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_training_by_graphs_is_training(on_gpu: Backbone, method: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accumulated gradients, and prompts of unequal length: losses and weights of five steps."""
    spec = DreamboothSpec(method=method, steps=5, lr=1e-4, batch_size=2, gradient_accumulation=2, mixed_precision=precision)
    instance, prior = examples(on_gpu, "A recording of a sks flute solo.", 0), examples(on_gpu, "A piano.", 1)
    assert instance.prompt.t5.shape != prior.prompt.t5.shape
    found = {}
    for kind in ("plain", "graphs"):
        if kind == "plain":
            monkeypatch.setattr(cuda_graphs, "for_training", lambda unet, device: unet)
        else:
            monkeypatch.undo()
        unet = on_gpu.copy_unet()
        torch.manual_seed(0)
        METHODS[method].attach(unet, spec)
        given = prior if method == "prior" else None
        rows = list(train(unet, on_gpu.new_scheduler(), instance, given, spec, seed=3, device="cuda"))
        trained = torch.cat([p.detach().flatten() for p in unet.parameters() if p.requires_grad])
        found[kind] = [row["loss"] for row in rows], trained
    tolerance = 1e-4 if precision == "no" else 2e-2
    assert found["graphs"][0] == pytest.approx(found["plain"][0], rel=tolerance)
    assert len(set(found["graphs"][0])) == 5
    untouched = on_gpu.copy_unet()
    torch.manual_seed(0)
    METHODS[method].attach(untouched, spec)
    start = torch.cat([p.detach().flatten() for p in untouched.parameters() if p.requires_grad])
    moved, difference = (found["plain"][1] - start).norm(), (found["graphs"][1] - found["plain"][1]).norm()
    assert moved > 0 and difference < (0.02 if precision == "no" else 0.3) * moved


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_arms_that_train_together_by_graphs_train_as_alone(on_gpu: Backbone, precision: str) -> None:
    """The losses of five steps, of arms whose prompts are of unequal length."""
    spec = DreamboothSpec(method="lora", steps=5, lr=1e-3, batch_size=2, gradient_accumulation=2, mixed_precision=precision)
    given = [examples(on_gpu, "A recording of a sks flute solo.", 0), examples(on_gpu, "A piano.", 1)]
    unet = on_gpu.copy_unet()
    attached = METHODS["lora"].together(unet, [spec, spec], [3, 4])
    arms = [
        Arm(instance=instance, spec=spec, seed=seed, parameters=one.parameters)
        for instance, seed, one in zip(given, (3, 4), attached, strict=True)
    ]
    found = list(train_together(unet, on_gpu.new_scheduler(), arms, device="cuda"))
    for i, (instance, seed) in enumerate(zip(given, (3, 4), strict=True)):
        alone = on_gpu.copy_unet()
        torch.manual_seed(seed)
        METHODS["lora"].attach(alone, spec)
        rows = list(train(alone, on_gpu.new_scheduler(), instance, None, spec, seed=seed, device="cuda"))
        wanted = [row["loss"] for row in rows]
        assert [row[i]["loss"] for row in found] == pytest.approx(wanted, rel=1e-4 if precision == "no" else 2e-2)


def test_graphs_generate_the_same_clips(on_gpu: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five clips in batches of two: the last one is smaller."""
    sampler = SamplerSpec(num_inference_steps=4, batch_size=2)
    pair = prompt_pair(on_gpu, "A recording of a piano.", "")
    latents = {}
    for kind in ("graphs", "plain"):
        if kind == "plain":
            monkeypatch.setattr(cuda_graphs, "for_generation", lambda unet, device: unet)
        latents[kind] = generate(on_gpu, on_gpu.unet, *pair, num_clips=5, seed=1, sampler=sampler)[1]
    assert torch.allclose(latents["graphs"], latents["plain"], atol=1e-4)
    assert not torch.allclose(latents["graphs"][0], latents["graphs"][2], atol=1e-2)


def test_what_is_set_aside_leaves_the_gpu_and_comes_back(on_gpu: Backbone) -> None:
    on_gpu.pipeline.to("cuda")
    before = on_gpu.embed("A recording of a piano.")
    held = torch.cuda.memory_allocated()
    on_gpu.set_aside()
    modules = [part for part in on_gpu.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    weights = 4 * sum(p.numel() for module in modules for p in module.parameters())
    assert held - torch.cuda.memory_allocated() > 0.9 * weights
    again = on_gpu.embed("A recording of a piano.")
    assert all(torch.equal(getattr(before, f.name), getattr(again, f.name)) for f in dataclasses.fields(before))
