"""Backbones: where their weights lie, the hub's own layout, and AudioMAE's published formats."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import timm
import torch
from diffusers import AudioLDM2Pipeline
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPT2Model

from timbre_ray.backbones import MINI, PUBLISHED_AUDIOMAE, audiomae_path, lies_whole, pipeline_folder, resolved_backbone
from timbre_ray.data.features import fbank
from timbre_ray.identity import backbone_digest, folder_digest
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec

PROMPT = "A recording of a piano with flute."


@pytest.fixture(scope="module")
def published(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as the hub's checkpoints are written: GPT-2 without its head, AudioMAE elsewhere."""
    folder = tmp_path_factory.mktemp("published")
    headless = GPT2Model(backbone.language_model.config)
    headless.load_state_dict(backbone.language_model.transformer.state_dict())
    AudioLDM2Pipeline(**{**backbone.pipeline.components, "language_model": headless}).save_pretrained(folder)
    return folder


def test_the_hubs_layout_loads_where_the_stock_call_fails(published: Path, backbone: Backbone) -> None:
    assert '"GPT2Model"' in (published / "model_index.json").read_text()
    stock = AudioLDM2Pipeline.from_pretrained(published)
    with pytest.raises(AttributeError):
        stock(PROMPT, num_inference_steps=1, audio_length_in_s=2.56)
    ours = load_backbone(BackboneSpec(name=str(published), audiomae=str(MINI / "audiomae")))
    for name, value in ours.embed(PROMPT).tensors().items():
        assert torch.equal(value, backbone.embed(PROMPT).tensors()[name]), name
    assert ours.clip_samples == backbone.clip_samples


def test_a_download_that_broke_off_does_not_lie_whole(published: Path, tmp_path: Path) -> None:
    audiomae = str(MINI / "audiomae")
    assert lies_whole(BackboneSpec()) and lies_whole(BackboneSpec(name=str(published), audiomae=audiomae))
    assert not lies_whole(BackboneSpec(name=str(published))), "the published AudioMAE is not here"
    assert not lies_whole(BackboneSpec(name="nobody/has-this", audiomae=audiomae))
    broken = shutil.copytree(published, tmp_path / "broken")
    for path in (broken / "vocoder").glob("*.safetensors"):
        path.unlink()
    assert not lies_whole(BackboneSpec(name=str(broken), audiomae=audiomae)), "small files come first"
    parts = shutil.copytree(published, tmp_path / "parts")
    (parts / "unet" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2-of-2.safetensors"}}')
    assert not lies_whole(BackboneSpec(name=str(parts), audiomae=audiomae)), "one of several files is missing"
    encoder = shutil.copytree(MINI / "audiomae", tmp_path / "encoder")
    next(encoder.glob("*.safetensors")).unlink()
    assert not lies_whole(BackboneSpec(name=str(published), audiomae=str(encoder)))


def test_a_folder_is_its_weights_wherever_it_lies(published: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.symlink_to(published)
    assert backbone_digest(BackboneSpec(name=str(copy))) == backbone_digest(BackboneSpec(name=str(published)))
    with_other = BackboneSpec(name=str(published), audiomae=str(MINI / "audiomae"))
    assert backbone_digest(with_other) != backbone_digest(BackboneSpec(name=str(published)))
    hub = BackboneSpec(name="cvssp/audioldm2-large", revision="abc")
    assert backbone_digest(hub) == "cvssp/audioldm2-large@abc"


def test_a_model_beside_hidden_files_is_its_weights(tmp_path: Path) -> None:
    """A download leaves .cache with times of its own, a clone .git; of a single model the weights lie at the top."""

    def digest() -> str:
        backbone_digest.cache_clear()
        folder_digest.cache_clear()
        return backbone_digest(BackboneSpec(audiomae=str(tmp_path)))

    (tmp_path / "model.safetensors").write_bytes(b"one")
    plain = digest()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "model.metadata").write_text("1795742681.59")
    assert digest() == plain
    (tmp_path / "model.safetensors").write_bytes(b"another")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "config.json").write_text("{}")
    assert digest() != plain
    backbone_digest.cache_clear()
    folder_digest.cache_clear()


def test_an_audiomae_of_another_width_is_refused(published: Path, tmp_path: Path) -> None:
    AudioMAE(num_frames=256, embed_dim=64, depth=3, num_heads=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="64 dimensions, but the GPT-2 of .* predicts 128"):
        load_backbone(BackboneSpec(name=str(published), audiomae=str(tmp_path)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BackboneSpec(name="no-such-folder"), "no such folder, and no hub id"),
        (BackboneSpec(name="empty"), "no model_index.json"),
        (BackboneSpec(name="bare"), "no audiomae folder; name its AudioMAE in backbone.audiomae"),
        (BackboneSpec(audiomae="nothing.pth"), "no such folder or file, and no hub id"),
    ],
)
def test_what_cannot_be_a_backbone_is_named_before_anything_starts(spec: BackboneSpec, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model_index.json").write_text("{}")
    _, problems = resolved_backbone(spec, tmp_path, lambda field: f"base.backbone.{field}")
    assert len(problems) == 1 and message in problems[0] and problems[0].startswith("base.backbone.")


def test_folders_are_found_beside_the_sweep_and_hub_ids_left_alone(published: Path) -> None:
    spec = BackboneSpec(name=published.name, audiomae=PUBLISHED_AUDIOMAE)
    resolved, problems = resolved_backbone(spec, published.parent, str)
    assert not problems and resolved.name == str(published) and resolved.audiomae == PUBLISHED_AUDIOMAE
    hub = BackboneSpec(name="cvssp/audioldm2-large")
    assert resolved_backbone(hub, published.parent, str) == (hub, [])


def test_without_the_hub_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"backbone\.name='cvssp/audioldm2'.*HF_HUB_OFFLINE=1"):
        pipeline_folder(BackboneSpec(name="cvssp/audioldm2"))


def test_the_pipelines_own_audiomae_comes_first(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audiomae_path(BackboneSpec()) == MINI / "audiomae"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: Path("/cache") / name)
    assert audiomae_path(BackboneSpec(name=str(published))) == Path("/cache") / PUBLISHED_AUDIOMAE


def vit(**options: object) -> timm.models.VisionTransformer:
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=(256, 128), patch_size=16, in_chans=1, num_classes=0, embed_dim=128, depth=4, num_heads=2, **options
    )


def test_timms_layout_loads(tmp_path: Path) -> None:
    encoder = vit()
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    loaded = AudioMAE.from_pretrained(tmp_path)
    assert loaded.config == {"num_frames": 256, "embed_dim": 128, "depth": 4, "num_heads": 2}
    bank = torch.randn(2, 256, 128)
    expected = encoder.eval().forward_features(bank[:, None])[:, 1:].unflatten(1, (16, 8))
    assert torch.allclose(loaded.tokens(bank, "last"), expected, atol=1e-5)


def test_mean_pooled_and_original_checkpoints_load(tmp_path: Path) -> None:
    pooled = vit(global_pool="avg").state_dict()
    assert "fc_norm.weight" in pooled and "norm.weight" not in pooled
    original = {
        **pooled,
        "head.weight": torch.zeros(527, 128),
        "decoder_pos_embed": torch.zeros(1, 129, 8),
        "mask_token": torch.zeros(1),
    }
    torch.save({"model": original, "args": argparse.Namespace(lr=1e-4), "epoch": 3}, tmp_path / "pretrained.pth")
    loaded = AudioMAE.from_pretrained(tmp_path / "pretrained.pth")
    assert torch.equal(loaded.vit.norm.weight, pooled["fc_norm.weight"])
    assert torch.equal(loaded.vit.blocks[3].attn.qkv.weight, pooled["blocks.3.attn.qkv.weight"])


def test_what_is_no_audiomae_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: has no patch_embed\.proj\.weight"):
        AudioMAE.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        AudioMAE.from_pretrained(tmp_path / "missing.pth")


def test_full_size_reads_ten_seconds_into_eight_tokens() -> None:
    """ViT-B/16 over (1, 1024, 128): 512 patches, pooled by 8 x 8; written out here from AudioLDM2's formula."""
    torch.manual_seed(0)
    model = AudioMAE(num_frames=1024, embed_dim=768, depth=12, num_heads=12).eval()
    bank = fbank(torch.randn(1, 163_840) * 0.1, 1024)
    assert bank.shape == (1, 1024, 128)
    with torch.no_grad():
        loa = model.loa(bank)
        blocks: list[Tensor] = []
        hidden = model.vit._pos_embed(model.vit.patch_embed(bank[:, None]))
        for block in model.vit.blocks:
            hidden = block(hidden)
            blocks.append(model.vit.norm(hidden)[:, 1:])
    patches = torch.stack(blocks[-3:]).mean(0).reshape(64, 8, 768)  # time, frequency
    expected = torch.stack([(p.mean((0, 1)) + p.amax((0, 1))) / 2 for p in patches.split(8)])
    assert loa.shape == (1, 8, 768)
    assert torch.allclose(loa[0], expected, atol=1e-4)
