"""``evaluate.clap``: whose CLAP hears the clips, and what is keyed by it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from timbre_ray.cluster.baselines import baseline_key
from timbre_ray.doctor import CHECKS
from timbre_ray.doctor.case import Case
from timbre_ray.evaluate.scorer import embed_clips
from timbre_ray.identity import MINI, judges_digest
from timbre_ray.models.embedders import load_embedder
from timbre_ray.stage_keys import ScoreRequest
from timbre_ray.sweep import Sweep, SweepError, load_sweep


def load(folder: Path, **evaluate: object) -> Sweep:
    base = {"clips": {"path": "mini:chinese_flute_v1"}, "evaluate": {"fad": ["clap"], **evaluate}}
    (folder / "night.yaml").write_text(yaml.safe_dump({"name": "night", "base": base, "arms": {"a": {}}}))
    return load_sweep(folder / "night.yaml")


def pipeline_of(folder: Path, *, scaled: float) -> Path:
    """The miniature's CLAP with other weights, as a pipeline's folder has it."""
    for part in ("text_encoder", "tokenizer", "feature_extractor"):
        shutil.copytree(MINI / part, folder / part)
    path = next((folder / "text_encoder").glob("*.safetensors"))
    weights = load_file(path)
    save_file({k: v * scaled if "projection" in k else v for k, v in weights.items()}, path, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return 0.3 * torch.randn(2, 40_960, generator=torch.Generator().manual_seed(0))


def test_the_default_is_what_it_was(tmp_path: Path) -> None:
    trial = load(tmp_path).trials[0]
    assert load(tmp_path, clap="mini").trials[0].key == trial.key and trial.spec.evaluate.clap == "mini"
    assert judges_digest() == judges_digest("mini", "mini", "mini")


def test_a_pipelines_clap_is_heard_and_counts_by_content(tmp_path: Path, clips: torch.Tensor) -> None:
    same, other = pipeline_of(tmp_path / "same", scaled=1.0), pipeline_of(tmp_path / "other", scaled=-0.5)
    shutil.copytree(other, tmp_path / "moved")
    default, own, moved = (load(tmp_path, **given).trials[0] for given in ({}, {"clap": "other"}, {"clap": "moved"}))
    assert own.spec.evaluate.clap == str(other) and own.key == moved.key != default.key
    assert baseline_key(own.spec) == baseline_key(moved.spec) != baseline_key(default.spec)
    request = ScoreRequest(
        encode_key="e", audio=(), partner="piano", target_class="chinese flute", embedders=("clap",), num_clips=4
    )
    keys = [dataclasses.replace(request, clap=str(path)).stage().key for path in (other, tmp_path / "moved", "mini")]
    assert keys[0] == keys[1] != keys[2]
    rows = {path: embed_clips("clap", clips, weights=str(path)) for path in ("mini", same, other)}
    assert rows["mini"] == pytest.approx(rows[same], abs=1e-6)
    assert abs(rows[other] - rows["mini"]).max() > 0.01
    texts = [load_embedder("clap", weights=str(path)).embed_text(["A piano."]) for path in ("mini", same, other)]
    assert torch.allclose(texts[0], texts[1], atol=1e-6) and not torch.allclose(texts[0], texts[2], atol=0.01)


def test_mistakes_are_found_before_anything_starts(tmp_path: Path) -> None:
    def problem(**evaluate: object) -> str:
        with pytest.raises(SweepError) as caught:
            load(tmp_path, **evaluate)
        (found,) = caught.value.problems
        return found

    assert problem(clap="nowhere") == (
        "base.evaluate.clap='nowhere': no such folder, and no hub id (owner/name) of a pipeline with a CLAP"
    )
    (tmp_path / "half" / "text_encoder").mkdir(parents=True)
    assert "no tokenizer/ and no feature_extractor/ in" in problem(clap="half")
    assert "base.evaluate.fad=['vggish'] has no clap" in problem(clap="half", fad=["vggish"])
    assert load(tmp_path, clap="cvssp/audioldm2-large").trials[0].spec.evaluate.clap == "cvssp/audioldm2-large"


def test_doctor_says_whose_weights_hear_a_foreign_backbone(tmp_path: Path) -> None:
    def finding(backbone: str, **evaluate: object):
        sweep = load(tmp_path, **evaluate)
        (trial,) = sweep.trials
        spec = dataclasses.replace(trial.spec, backbone=dataclasses.replace(trial.spec.backbone, name=backbone))
        return CHECKS["embedders"](Case(sweep=dataclasses.replace(sweep, trials=(dataclasses.replace(trial, spec=spec),))))

    assert finding("mini").level == "ok"
    told = finding("cvssp/audioldm2", fad=["vggish", "clap", "audiomae"])
    assert told.level == "warning" and "miniature's vggish and clap and audiomae" in told.found
    assert told.remedy.endswith("name weights in evaluate.vggish and evaluate.clap")
    assert finding("cvssp/audioldm2", clap="cvssp/audioldm2").level == "ok"
