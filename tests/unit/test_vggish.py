"""``evaluate.vggish``: weights of one's own by path, an identity by content, refused where their names are not VGGish's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.unit import test_scorer
from tests.unit.score_keys import key_of_score
from timbre_ray.cluster.baselines import baseline_key
from timbre_ray.evaluate.scorer import ScoreRequest, embed_clips, score_clips
from timbre_ray.identity import MINI, judges_digest
from timbre_ray.models.vggish import VGGish, windows
from timbre_ray.store import Store
from timbre_ray.sweep import Sweep, SweepError, load_sweep
from timbre_ray.vggish_choice import NAMES


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small VGGish under torchvggish's names, as its ``.pth`` has them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = VGGish(widths=(4, 4, 8, 8, 8, 8), hidden_dim=16, embed_dim=12).state_dict()
    torch.save(state, tmp_path / "own.pth")
    return tmp_path / "own.pth"


def load(tmp_path: Path, **evaluate: object) -> Sweep:
    base = {"clips": {"path": "mini:chinese_flute_v1"}, "evaluate": evaluate}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "base": base}))
    return load_sweep(tmp_path / "s.yaml")


def problem(tmp_path: Path, **evaluate: object) -> str:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, **evaluate)
    (found,) = caught.value.problems
    return found


def test_the_published_size_has_torchvggishs_names_and_shapes() -> None:
    with torch.device("meta"):
        model = VGGish()
    state = model.state_dict()
    assert tuple(state) == NAMES
    assert sum(value.numel() for value in state.values()) == 72_141_184
    assert state["embeddings.0.weight"].shape == (4096, 12288) and state["features.13.weight"].shape == (512, 512, 3, 3)


def test_the_default_is_what_it_was(tmp_path: Path) -> None:
    trial = load(tmp_path).trials[0]
    assert load(tmp_path, vggish="mini").trials[0].key == trial.key and trial.spec.evaluate.vggish == "mini"
    assert judges_digest() == judges_digest("mini", "mini") and judges_digest().count("-") == 5


def test_a_file_is_found_beside_the_sweep_and_counts_by_content(tmp_path: Path, weights: Path) -> None:
    default, own = load(tmp_path).trials[0], load(tmp_path, vggish="own.pth").trials[0]
    assert own.spec.evaluate.vggish == str(weights) and own.key != default.key
    assert baseline_key(own.spec) != baseline_key(default.spec)
    moved = shutil.copy(weights, tmp_path / "moved.pth")
    again = load(tmp_path, vggish=str(moved)).trials[0]
    assert again.key == own.key and baseline_key(again.spec) == baseline_key(own.spec)
    (tmp_path / "other.pth").write_bytes(weights.read_bytes() + b" ")
    assert load(tmp_path, vggish="other.pth").trials[0].key != own.key


def test_mistakes_are_found_before_anything_starts(tmp_path: Path, weights: Path) -> None:
    missing = problem(tmp_path, vggish="owm.pth")
    assert missing.startswith("base.evaluate.vggish='owm.pth': no such file") and missing.endswith(".pth or .safetensors")
    (tmp_path / "own.npz").touch()
    assert problem(tmp_path, vggish="own.npz").endswith("unknown kind of file; .pth and .safetensors are read")
    assert "base.evaluate.fad=['clap'] has no vggish" in problem(tmp_path, vggish="own.pth", fad=["clap"])
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    assert "cannot be read as safetensors" in problem(tmp_path, vggish="broken.safetensors")
    state = torch.load(weights, weights_only=True)
    state["extra"] = state.pop("embeddings.4.bias")
    save_file(state, tmp_path / "named.safetensors")
    expected = "not the names of torchvggish's weights; missing: embeddings.4.bias; unexpected: extra"
    assert problem(tmp_path, vggish="named.safetensors") == f"base.evaluate.vggish='named.safetensors': {expected}"
    torch.save(state, tmp_path / "named.pth")
    with pytest.raises(ValueError, match=expected):
        VGGish.from_pretrained(tmp_path / "named.pth")


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(VGGish(widths=(4,) * 6, hidden_dim=4, embed_dim=4), tmp_path / "module.pth")  # a pickled object: never run
    with pytest.raises(ValueError, match="cannot be read as weights alone"):
        VGGish.from_pretrained(tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no plain state dict"):
        VGGish.from_pretrained(tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no such file on this node"):
        VGGish.from_pretrained(tmp_path / "gone.pth")


def test_own_weights_embed(tmp_path: Path, weights: Path) -> None:
    clips = 0.3 * torch.randn(3, 40_960, generator=torch.Generator().manual_seed(0))
    model = VGGish.from_pretrained(weights)
    with torch.no_grad():
        expected = model(windows(clips, 48).flatten(0, 1)).double().numpy()
    assert embed_clips("vggish", clips, weights=str(weights)) == pytest.approx(expected, abs=1e-5)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    again = embed_clips("vggish", clips, weights=str(tmp_path / "own.safetensors"))
    assert again == pytest.approx(expected, abs=1e-5) and again.shape == (12, 12)


def test_a_score_is_keyed_by_the_weights_content(tmp_path: Path, weights: Path) -> None:
    request = ScoreRequest(
        encode_key="e", audio=(), partner="piano", target_class="chinese flute", embedders=("vggish",), num_clips=4
    )
    moved = shutil.copy(weights, tmp_path / "copy.pth")
    store = Store(tmp_path / "store")
    paths = (str(MINI / "vggish" / "model.safetensors"), str(weights), str(moved))
    keys = [key_of_score(dataclasses.replace(request, vggish=path), store) for path in paths]
    assert keys[1] == keys[2] != keys[0]


def test_a_clip_shorter_than_a_window_is_an_error() -> None:
    assert windows(torch.zeros(1, 15_600)).shape == (1, 1, 96, 64)
    with pytest.raises(ValueError, match="needs at least 0.975 s"):
        windows(torch.zeros(1, 15_599))


def test_its_features_are_flattened_as_torchvggishs_are() -> None:
    """Published weights would be heard wrongly otherwise, and no shape would tell."""
    torch.manual_seed(0)
    model, window = VGGish(widths=(2, 3, 4, 4, 5, 5), hidden_dim=7, embed_dim=3).eval(), torch.randn(2, 96, 64)
    features = model.features(window[:, None])
    flat = features.transpose(1, 3).transpose(1, 2).contiguous().view(2, -1)  # torchvggish's own lines
    assert torch.equal(model(window), model.embeddings(flat))


def test_recordings_are_heard_by_the_same_weights_as_clips(tmp_path: Path, weights: Path) -> None:
    """A target's own recordings, scored as if they had been generated, are at no distance from it."""
    store, flute = Store(tmp_path / "store"), test_scorer.shipped("chinese_flute_v1")
    asked = dataclasses.replace(test_scorer.request(store, flute), vggish=str(weights))
    assert score_clips(asked, store)["metrics"]["fad_held_out"] == pytest.approx(0.0, abs=1e-2)
