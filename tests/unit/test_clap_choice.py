"""``evaluate.clap``: whose CLAP hears the clips, and what is keyed by it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file

from timbre_ray.clip_sets import ClipError
from timbre_ray.cluster.baselines import baseline_key
from timbre_ray.doctor import CHECKS
from timbre_ray.doctor.case import Case
from timbre_ray.evaluate.clap import clap_a
from timbre_ray.evaluate.scorer import _distances, _similarities, embed_clips
from timbre_ray.identity import MINI, judges_digest
from timbre_ray.models.embedders import ClapEmbedder, load_embedder
from timbre_ray.stage_keys import ScoreRequest
from timbre_ray.store import Store
from timbre_ray.sweep import Sweep, SweepError, load_sweep
from timbre_ray.trial import run_trial


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
    fused = pipeline_of(tmp_path / "fused", scaled=1.0) / "feature_extractor" / "preprocessor_config.json"
    fused.write_text(json.dumps({**json.loads(fused.read_text()), "truncation": "fusion"}))
    assert "truncation: fusion" in problem(clap="fused")
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


def test_too_few_clips_for_clap_end_a_trial_before_anything_is_taught(tmp_path: Path) -> None:
    """One clip held out is one row of CLAP's, and a distance needs two; VGGish has several of it."""
    for i in range(3):
        noise = np.random.default_rng(i).uniform(-0.3, 0.3, 40_960)
        (tmp_path / "flute").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "flute" / f"{i}.wav", noise, 16_000)
    base = {"clips": {"path": "flute"}, "teacher": {"epochs": 1}, "evaluate": {"fad": ["vggish", "clap"]}}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump({"name": "night", "base": base, "arms": {"a": {}}}))
    sweep = load_sweep(tmp_path / "night.yaml")
    finding = CHECKS["distances"](Case(sweep=sweep))
    assert finding.level == "error" and "2 clips to learn from and 1 held out" in finding.found
    store = Store(tmp_path / "store")
    with pytest.raises(ClipError, match="1 held_out clip, and evaluate.fad lists clap"):
        next(run_trial(sweep.trials[0].spec, store=store, score=lambda request: pytest.fail("scored")))
    assert {event["stage"] for event in store.log()} == {"encode"}


def test_clap_hears_each_clip_once_a_score(clips: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    embed = ClapEmbedder.__call__
    monkeypatch.setattr(ClapEmbedder, "__call__", lambda self, waveform: (heard.append(len(waveform)), embed(self, waveform))[1])
    request = ScoreRequest(
        encode_key="e", audio=(), partner="piano", target_class="chinese flute", embedders=("clap",), num_clips=2
    )
    references = {split: embed_clips("clap", clips) for split in ("held_out", "train")}
    heard.clear()
    rows = _distances("clap", request, clips, references).clips
    found = _similarities("A piano.", rows, references["held_out"], "mini")
    assert heard == [2] and found["clap_a"] == pytest.approx(clap_a(embed_clips("clap", clips), rows), abs=1e-6)
