"""Counts, time and disk of a sweep from what a store has measured. The stores are made up: nothing is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from timbre_ray.cli_plan import estimate_lines
from timbre_ray.estimate import KINDS, Estimate, StageCount, estimate
from timbre_ray.model_sizes import PUBLISHED_SIZES
from timbre_ray.quantities import duration, size
from timbre_ray.stage_keys import Stage, StageKeys
from timbre_ray.sweep import Sweep, load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


class MadeUpStore:
    """Holds these stages, each computed in some seconds a unit of work and with some bytes a clip."""

    def __init__(self, stages: tuple[Stage, ...] = (), seconds: float = 0.5, num_bytes: int = 1000) -> None:
        self._stages, self._seconds, self._bytes = {(s.name, s.key): s for s in stages}, seconds, num_bytes

    def has(self, name: str, key: str) -> bool:
        return (name, key) in self._stages

    def manifests(self):
        for (name, key), stage in self._stages.items():
            spent = {"seconds": self._seconds * stage.work, "work": stage.work}
            trained = {"spent": spent} if name == "dreambooth" else {}
            yield {
                "stage": name, "key": key, "seconds": 0.001 if trained else spent["seconds"],
                "description": stage.description() | trained, "files": {"a": {"bytes": self._bytes * stage.num_clips}},
            }  # fmt: skip
        yield {"stage": "encode", "key": "old", "seconds": 9e9, "description": {"spec": {}}, "files": {}}  # of an older version


def counts(found: Estimate) -> dict[str, StageCount]:
    assert tuple(count.kind for count in found.counts) == KINDS
    return {count.kind: count for count in found.counts}


def everything(sweep: Sweep) -> set[str]:
    return {trial.trial_id for trial in sweep.trials}


@pytest.fixture(scope="module")
def demo() -> Sweep:
    return load_sweep(SWEEPS / "demo.yaml")


def test_what_sharing_spares(demo):
    found = counts(estimate(demo.trials, MadeUpStore(), todo=everything(demo)))
    numbers = {kind: (count.alone, count.shared, count.stored, count.num_to_do) for kind, count in found.items()}
    assert numbers["encode"] == (6, 1, 0, 1) and numbers["teach"] == (3, 1, 0, 1)
    assert numbers["class_audio"] == (3, 2, 0, 2), "prior and mixclass-prior share the piano"
    assert numbers["mixture_audio"] == (1, 1, 0, 1) and numbers["dreambooth"] == (12, 12, 0, 12)
    assert numbers["generate"] == (54, 42, 0, 42), "step 0 is the untouched model's, or the taught GPT-2's"
    assert numbers["score"] == (18, 14, 0, 14)
    assert found["prompt"].shared < found["prompt"].alone


def test_times_are_medians_scaled_by_the_work(demo):
    done = tuple(StageKeys(demo.trials[0].spec).all())
    found = counts(estimate(demo.trials, MadeUpStore(done, seconds=0.5), todo=everything(demo)))
    assert found["encode"].stored == 1 and found["encode"].num_to_do == 0 and found["encode"].seconds.known == 0
    assert found["generate"].num_to_do == 42 - 9 and found["generate"].seconds.unknown == ()
    assert found["generate"].seconds.known == pytest.approx(33 * 0.5 * 20 * 8), "clips times sampler steps"
    # Only direct training was measured; the direct arm after teacher forcing trains 300 steps of 2 clips.
    assert found["dreambooth"].seconds.known == pytest.approx(0.5 * 300 * 2)
    assert "dreambooth (prior)" in found["dreambooth"].seconds.unknown and found["dreambooth"].num_to_do == 10
    assert found["teach"].seconds.unknown == ("teach (rollout)",) and found["teach"].seconds.known == 0
    assert found["generate"].num_bytes.known == pytest.approx(33 * 20 * 1000)


def test_a_training_that_lacks_one_step_starts_again(demo):
    trial = demo.trials[0]
    keys = StageKeys(trial.spec)
    store = MadeUpStore((keys.dreambooth(25),), seconds=1.0)
    found = counts(estimate([trial], store, todo=[trial.trial_id]))["dreambooth"]
    assert (found.stored, found.num_to_do, found.seconds.known) == (1, 1, 600)


def test_kept_trials_cost_nothing(demo):
    found = estimate(demo.trials, MadeUpStore(), todo=())
    assert found.seconds.unknown == () and found.num_bytes.known == 0 and found.checkpoint_bytes is None
    assert estimate_lines(found)[-1] == "Nothing is left to compute."


def test_another_backbones_measurements_do_not_count(demo):
    done = tuple(dataclasses.replace(stage, backbone="another") for stage in StageKeys(demo.trials[0].spec).all())
    foreign = [dataclasses.replace(stage, spec={**stage.spec, "other": 1}) for stage in done]  # other keys too
    found = estimate(demo.trials, MadeUpStore(tuple(foreign)), todo=everything(demo))
    assert found.seconds.known == 0 and found.seconds.unknown


def full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **dreambooth) -> Sweep:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no cache"))
    body = {"name": "full", "base": {
        "backbone": {"name": "cvssp/audioldm2-large"}, "clips": {"path": "mini:chinese_flute_v1"},
        "dreambooth": dreambooth, "evaluate": {"at_steps": [300]},
    }}  # fmt: skip
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(body))
    return load_sweep(tmp_path / "full.yaml")


@pytest.mark.parametrize("method", ["direct", "lora"])
def test_disk_of_published_weights_follows_from_their_parameters(tmp_path, monkeypatch, method):
    sweep, large = full_size(tmp_path, monkeypatch, method=method), PUBLISHED_SIZES["cvssp/audioldm2-large"]
    found = estimate(sweep.trials, MadeUpStore(), todo=everything(sweep))
    trained = large.unet if method == "direct" else large.lora["cross_attention"] * 4
    assert counts(found)["dreambooth"].num_bytes.known == 4 * trained
    assert found.checkpoint_bytes == 2 * 3 * 4 * trained
    assert counts(found)["generate"].num_bytes.known == 3 * 64 * 10.24 * 16_000 * 2, "three prompts, as if FLAC saved nothing"
    text = "\n".join(estimate_lines(found))
    assert "not measured yet" in text and "718 M parameters" in text and "saved in float32" in text


def test_prompts_of_a_tokenizer_that_is_not_here_are_counted_apart(tmp_path, monkeypatch):
    sweep = full_size(tmp_path, monkeypatch)
    prompts = counts(estimate(sweep.trials, MadeUpStore(), todo=everything(sweep)))["prompt"]
    assert prompts.shared == 6, "three prompts, and the negative one at each one's length"


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "1.5 min"), (5400, "1.5 h"), (86_400, "24.0 h"), (200_000, "2.3 d")],
)
def test_durations(value, words):
    assert duration(value) == words


@pytest.mark.parametrize(("value", "words"), [(900, "1 kB"), (2.5e6, "2.5 MB"), (1.724e11, "172.4 GB"), (3e12, "3.0 TB")])
def test_sizes(value, words):
    assert size(value) == words


def test_what_a_store_holds_is_counted_afresh_where_that_is_asked(demo):
    done = tuple(StageKeys(demo.trials[0].spec).all())
    for afresh, num_to_do in ((False, 42 - 9), (True, 42)):
        found = counts(estimate(demo.trials, MadeUpStore(done), todo=everything(demo), afresh=afresh))
        assert (found["generate"].stored, found["generate"].num_to_do) == (9, num_to_do)
