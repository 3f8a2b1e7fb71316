"""Scores over a store of small clips, with the miniature's judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows, write_clips
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.scorer import ScoreRequest, classify_clips, embed_clips, score_clips
from timbre_ray.models.backbone import load_judges
from timbre_ray.specs import ClipsSpec
from timbre_ray.store import Store


def shipped(name: str) -> torch.Tensor:
    return load_windows(find_files(ClipsSpec(path=f"mini:{name}")).train[:4], 40_960)


def publish(store: Store, stage: str, key: str, clips: dict[str, torch.Tensor]) -> str:
    def produce(folder: Path) -> None:
        for prefix, waveform in clips.items():
            write_clips(waveform, folder, prefix)

    return store.get_or_compute(stage, key, produce, description={}).key


def request(store: Store, solo: torch.Tensor, num_clips: int = 4) -> ScoreRequest:
    target = shipped("chinese_flute_v1")
    name = f"solo{abs(hash(solo.numpy().tobytes()))}"
    audio = (("solo", publish(store, "generate", name, {"clip": solo})),)
    audio += tuple((p, publish(store, "generate", "lute", {"clip": shipped("chinese_lute")})) for p in ("duet", "partner"))
    encode_key = publish(store, "encode", "flute", {"train": target, "held_out": target})
    return ScoreRequest(
        encode_key=encode_key, audio=audio, partner="piano", target_class="chinese flute", embedders=("vggish",), num_clips=num_clips
    )  # fmt: skip


def test_the_real_thing_scores_best(tmp_path: Path) -> None:
    store = Store(tmp_path)
    real = score_clips(request(store, shipped("chinese_flute_v1")), store)["metrics"]
    other = score_clips(request(store, shipped("chinese_lute")), store)["metrics"]
    assert real["fad_held_out"] == pytest.approx(0, abs=0.05)
    expected = frechet_distance(*(embed_clips("vggish", shipped(n)) for n in ("chinese_lute", "chinese_flute_v1")))
    assert other["fad_held_out"] == pytest.approx(expected, rel=0.01) and expected > 20
    assert real["solo_target_confidence"] > 0.9 > 0.1 > other["solo_target_confidence"]
    assert real["duet_partner_rank"] > 1, "the lute's clips are no piano"
    assert json.dumps(score_clips(request(store, shipped("chinese_flute_v1")), store)["metrics"]) == json.dumps(real)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clips: clips[:3], "has 3 clips, not 4"),
        (lambda clips: clips * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None], r"clips \[1, 3\] of prompt 'solo' are silent"),
    ],
)
def test_a_clip_that_cannot_be_scored_fails_the_score(tmp_path: Path, change, message: str) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=message):
        score_clips(request(store, change(shipped("chinese_flute_v1"))), store)


def test_all_of_a_long_clip_is_heard() -> None:
    judges = load_judges()
    flute, lute = shipped("chinese_flute_v1")[:1], shipped("chinese_lute")[:1]
    parts = (classify_clips(judges, flute) + classify_clips(judges, lute)) / 2
    assert classify_clips(judges, torch.cat([flute, lute], dim=1)) == pytest.approx(parts, abs=1e-4)
