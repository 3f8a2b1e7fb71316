"""``evaluate.classifier``: a sweep's judge by path, part of its identity by content, refused before anything starts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from instruments import sound

from tests.unit.score_keys import key_of_score
from timbre_ray.cluster.baselines import baseline_key
from timbre_ray.evaluate.scorer import ScoreRequest, classify_clips
from timbre_ray.identity import MINI, VERSIONS, judges_digest
from timbre_ray.models.classifier import InstrumentClassifier
from timbre_ray.models.judges import load_judges
from timbre_ray.store import Store, stage_key
from timbre_ray.sweep import Sweep, SweepError, load_sweep


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Classes of one's own before the miniature's AudioMAE."""
    folder = tmp_path / "classifiers" / "mine"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        InstrumentClassifier(classes=("piano", "reed", "chinese flute"), embed_dim=128).save_pretrained(folder)
    shutil.copytree(MINI / "audiomae", folder / "audiomae")
    return folder


def load(tmp_path: Path, evaluate: dict | None = None, **clips: str) -> Sweep:
    base = {"clips": {"path": "mini:chinese_flute_v1", **clips}, "evaluate": evaluate or {}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "base": base}))
    return load_sweep(tmp_path / "s.yaml")


def problem(tmp_path: Path, evaluate: dict | None = None, **clips: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, evaluate, **clips)
    (found,) = caught.value.problems
    return found


def test_the_default_is_what_it_was(tmp_path: Path) -> None:
    """Keys that were computed before the field was there: results of then are results of now."""
    trial = load(tmp_path).trials[0]
    assert load(tmp_path, {"classifier": "mini"}).trials[0].key == trial.key
    assert trial.spec.evaluate.classifier == "mini" and judges_digest() == judges_digest("mini")


def test_a_folder_is_found_beside_the_sweep_and_counts_by_content(tmp_path: Path, classifier: Path) -> None:
    default = load(tmp_path).trials[0]
    trial = load(tmp_path, {"classifier": "classifiers/mine"}).trials[0]
    assert trial.spec.evaluate.classifier == str(classifier) and trial.key != default.key
    assert baseline_key(trial.spec) != baseline_key(default.spec)
    moved = shutil.move(classifier, tmp_path / "moved")
    again = load(tmp_path, {"classifier": str(moved)}).trials[0]
    assert again.key == trial.key and baseline_key(again.spec) == baseline_key(trial.spec)
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    (other / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes() + b" ")
    assert load(tmp_path, {"classifier": "other"}).trials[0].key != trial.key


def test_mistakes_are_found_before_anything_starts(tmp_path: Path, classifier: Path) -> None:
    missing = problem(tmp_path, {"classifier": "classifiers/mina"})
    assert missing.startswith("base.evaluate.classifier='classifiers/mina': no such folder")
    assert missing.endswith("nearest: classifiers/mine")
    mine = {"classifier": "classifiers/mine"}
    assert problem(tmp_path, mine, target_class="chinese flut") == (
        "base.clips.target_class='chinese flut': no class of the classifier classifiers/mine; nearest: chinese flute"
    )
    assert problem(tmp_path, mine, partner="organ").endswith("choose one of piano, reed, chinese flute")
    assert problem(tmp_path, partner="pianno") == "base.clips.partner='pianno': no class of the classifier mini; nearest: piano"
    (classifier / "audiomae" / "model.safetensors").unlink()
    assert "no audiomae/model.safetensors in" in problem(tmp_path, mine)


def test_a_sweeps_judges_are_the_classifier_and_its_audiomae(classifier: Path) -> None:
    judges = load_judges(classifier=str(classifier))
    assert judges.classifier.classes == ("piano", "reed", "chinese flute") and judges.audiomae.config["num_frames"] == 256
    clip = torch.from_numpy(sound("flute", 0, 40_960))[None]
    assert classify_clips(judges, clip).shape == (1, 3)
    assert load_judges().classifier.classes[0] == "piano" and len(load_judges().classifier.classes) == 13


def test_a_score_is_keyed_by_the_classifiers_content(tmp_path: Path, classifier: Path) -> None:
    common = {"encode_key": "e", "audio": (), "partner": "piano", "target_class": "chinese flute", "embedders": ("vggish",)}
    request = ScoreRequest(**common, num_clips=4)
    moved = shutil.copytree(classifier, tmp_path / "copy")
    store = Store(tmp_path / "store")
    keys = [key_of_score(dataclasses.replace(request, classifier=name), store) for name in ("mini", str(classifier), str(moved))]
    before = {**common, "num_clips": 4}  # all that a request was when there was one classifier alone
    assert keys[0] == stage_key("score", VERSIONS["score"], before, [judges_digest()])
    assert keys[1] == keys[2] != keys[0]
