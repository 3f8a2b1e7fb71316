"""Scores over a store of small clips, with the miniature's judges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from timbre_ray.audio_file import write_flac
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows, read_clips, write_clips
from timbre_ray.data.features import normalise_waveform
from timbre_ray.evaluate import scorer
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.ranking import rank
from timbre_ray.evaluate.scorer import (
    ScoreRequest,
    _distances,
    classify_clips,
    compute_floor,
    embed_clips,
    embed_recordings,
    score_clips,
)
from timbre_ray.models.embedders import load_embedder
from timbre_ray.models.judges import load_judges
from timbre_ray.specs import ClipsSpec, EvaluateSpec
from timbre_ray.store import DamagedArtifactError, Store


def shipped(name: str) -> torch.Tensor:
    return load_windows(find_files(ClipsSpec(path=f"mini:{name}")).train[:4], 40_960)


def publish(store: Store, stage: str, key: str, clips: dict[str, torch.Tensor]) -> str:
    def produce(folder: Path) -> None:
        for prefix, waveform in clips.items():
            write_clips(waveform, folder, prefix)
        (folder / "clips.json").write_text(json.dumps({"prompt": "A recording of a flute solo."}))

    return store.get_or_compute(stage, key, produce, description={}).key


def request(store: Store, solo: torch.Tensor, num_clips: int = 4, embedders: tuple[str, ...] = ("vggish",)) -> ScoreRequest:
    target = shipped("chinese_flute_v1")
    name = f"solo{abs(hash(solo.numpy().tobytes()))}"
    audio = (("solo", publish(store, "generate", name, {"clip": solo})),)
    audio += tuple((p, publish(store, "generate", "lute", {"clip": shipped("chinese_lute")})) for p in ("duet", "partner"))
    encode_key = publish(store, "encode", "flute", {"train": target, "held_out": target})
    return ScoreRequest(
        encode_key=encode_key, audio=audio, partner="piano", target_class="chinese flute", embedders=embedders,
        num_clips=num_clips,
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
    assert "clap_t" not in real and "fad_inf_held_out" not in real, "no CLAP was asked for, and four clips are too few"
    assert json.dumps(score_clips(request(store, shipped("chinese_flute_v1")), store)["metrics"]) == json.dumps(real)


def test_a_strange_clip_is_the_first_outlier_and_the_interval_holds_its_distance(tmp_path: Path) -> None:
    store = Store(tmp_path)
    solo = shipped("chinese_flute_v1")
    solo[2] = shipped("chinese_lute")[0]
    scores = score_clips(request(store, solo), store)
    assert [row["clip"] for row in scores["outliers"]][0] == 2 and {row["clip"] for row in scores["outliers"]} == {0, 1, 2, 3}
    distances = [row["fad_held_out"] for row in scores["outliers"]]
    assert distances == sorted(distances, reverse=True)
    low, high = scores["intervals"]["kad_held_out"]
    assert low < scores["metrics"]["kad_held_out"] < high


def test_clap_adds_its_distances_and_similarities(tmp_path: Path) -> None:
    store = Store(tmp_path)
    flute, lute = (
        score_clips(request(store, shipped(name), embedders=("vggish", "clap")), store)["metrics"]
        for name in ("chinese_flute_v1", "chinese_lute")
    )
    assert flute["fad_held_out/clap"] < lute["fad_held_out/clap"]
    assert 1 >= flute["clap_a"] > lute["clap_a"] and -1 <= flute["clap_t"] <= 1
    embedder = load_embedder("clap")
    text = embedder.embed_text(["A recording of a flute solo."])[0]
    expected = float((embedder(shipped("chinese_flute_v1")).flatten(0, 1) @ text).mean())
    assert flute["clap_t"] == pytest.approx(expected, abs=1e-3)  # FLAC's 16 bits lie between


def test_infinity_is_measured_where_clips_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an embedder of few dimensions, which 32 clips suffice for."""

    def embedder(waveform: torch.Tensor) -> torch.Tensor:
        return waveform[:, :8_000].unflatten(1, (2, 8, 500)).abs().mean(-1)

    monkeypatch.setattr("timbre_ray.evaluate.scorer.load_embedder", lambda name, weights=None: embedder)
    noise = 0.2 * torch.randn(32, 40_960, generator=torch.Generator().manual_seed(0))
    asked, held_out = request(Store(tmp_path), shipped("chinese_lute")), {"held_out": embed_clips("few", noise)}
    found = [_distances("few", asked, noise[:count], held_out).metrics for count in (31, 32)]
    assert "fad_inf_held_out" not in found[0]
    assert found[1]["fad_inf_held_out"] == pytest.approx(found[1]["fad_held_out"], abs=0.01)


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


def test_every_window_is_heard_as_loud_as_the_classifier_learnt_it() -> None:
    """The end of a note is soft, and silence says nothing of the instrument."""
    judges = load_judges()
    flute, lute = shipped("chinese_flute_v1")[:1], shipped("chinese_lute")[:1]
    alone = classify_clips(judges, flute)
    for clip in (torch.cat([flute, 0.01 * flute], dim=1), torch.cat([flute, torch.zeros_like(flute)], dim=1)):
        assert classify_clips(judges, clip) == pytest.approx(alone, abs=1e-4)
    both = torch.cat([torch.cat([flute, 0.0001 * lute], dim=1), torch.cat([lute, flute], dim=1)])
    parts = (alone + classify_clips(judges, lute)) / 2
    assert classify_clips(judges, both) == pytest.approx(np.concatenate([alone, parts]), abs=1e-4)


def test_padding_of_the_recordings_moves_no_distance(tmp_path: Path) -> None:
    """The same recordings in files of half a window: each is padded, and none of that is heard."""
    whole, padded = shipped("chinese_flute_v1"), {}
    for length in (20_480, 30_000):
        files = []
        for i, clip in enumerate(whole):
            write_flac(tmp_path / f"{length}_{i}.flac", clip[:length].numpy(), 16_000)
            files.append(tmp_path / f"{length}_{i}.flac")
        write_clips(load_windows(tuple(files), 40_960), tmp_path, f"padded{length}")
        padded[length] = read_clips(tmp_path, f"padded{length}")
        recorded = normalise_waveform(whole[:, :length])
        assert embed_recordings("vggish", padded[length]) == pytest.approx(embed_clips("vggish", recorded), abs=0.02)
    both = torch.cat([padded[20_480][:1], padded[30_000][:1], whole[:1]])
    assert len(embed_recordings("vggish", both)) == 1 + 2 + 4, "rows of windows of 0.96 s every 0.48 s"
    assert np.array_equal(embed_recordings("vggish", whole), embed_clips("vggish", whole)), "nothing is cut off what was recorded"


def test_the_floor_is_the_recordings_own_distance(tmp_path: Path) -> None:
    store, clips = Store(tmp_path), shipped("chinese_flute_v1")
    key = publish(store, "encode", "flute", {"train": clips, "held_out": clips})
    num_clips, metrics = compute_floor(key, "chinese flute", EvaluateSpec(num_clips=3, fad=("vggish", "clap")), store)
    assert num_clips == 3 and metrics["fad_held_out"] > 0, "three clips of the four"
    assert 0.5 < metrics["clap_a"] <= 1 and metrics["solo_target_confidence"] > 0.9
    assert "clap_a" not in compute_floor(key, "chinese flute", EvaluateSpec(num_clips=4), store)[1]


def test_recordings_that_were_damaged_before_they_were_read_spoil_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, store, solo = Store(tmp_path / "calm"), Store(tmp_path / "store"), shipped("chinese_flute_v1")
    expected = score_clips(request(calm, solo), calm)
    asked = request(store, solo)
    damage = [store.get("encode", asked.encode_key).file("held_out_0000.flac")]

    def read(folder: Path, prefix: str = "clip") -> torch.Tensor:
        if prefix == "held_out" and damage:
            shutil.copy(store.get("generate", "lute").file("clip_0000.flac"), damage.pop())
        return read_clips(folder, prefix)

    monkeypatch.setattr(scorer, "read_clips", read)
    with store.attributed_to("flute-s0"), pytest.raises(DamagedArtifactError, match="held_out_0000.flac"):
        score_clips(asked, store)
    request(store, solo)  # the next attempt publishes the recordings again
    assert score_clips(asked, store) == expected


def test_each_score_is_of_its_own_prompt(tmp_path: Path) -> None:
    """Three kinds of clips, so that no two prompts sound alike to the classifier."""
    store, noise = Store(tmp_path), 0.1 * torch.randn(4, 40_960, generator=torch.Generator().manual_seed(0))
    heard = {"solo": shipped("chinese_lute"), "duet": shipped("chinese_flute_v1"), "partner": noise}
    audio = tuple((prompt, publish(store, "generate", prompt, {"clip": clips})) for prompt, clips in heard.items())
    encoded = publish(store, "encode", "flute", {"train": heard["duet"], "held_out": heard["duet"]})
    asked = ScoreRequest(
        encode_key=encoded, audio=audio, partner="piano", target_class="chinese flute", embedders=("vggish",), num_clips=4
    )
    scores = score_clips(asked, store)
    of, found = scores["confidences"], scores["metrics"]
    assert rank("piano", of["duet"]) != rank("piano", of["partner"]), "or nothing is tested"
    assert found["solo_target_confidence"] == of["solo"]["chinese flute"]
    assert found["duet_target_confidence"] == of["duet"]["chinese flute"]
    assert found["duet_partner_confidence"] == of["duet"]["piano"]
    assert found["partner_confidence"] == of["partner"]["piano"]
    assert (found["duet_partner_rank"], found["partner_rank"]) == tuple(rank("piano", of[p]) for p in ("duet", "partner"))


def test_the_floor_hears_the_held_out_recordings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    encoded = publish(store, "encode", "mixed", {"train": shipped("chinese_flute_v1"), "held_out": shipped("chinese_lute")})
    assert compute_floor(encoded, "chinese flute", EvaluateSpec(num_clips=4), store)[1]["solo_target_confidence"] < 0.5
