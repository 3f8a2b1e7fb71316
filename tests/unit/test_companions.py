"""Who trains together, and what a trial does for its companions: weights under their keys, and nothing that harms its own."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from safetensors.torch import load_file

from timbre_ray import companions as who
from timbre_ray import training
from timbre_ray.cluster import ahead, notice
from timbre_ray.cluster.board import AT_ONCE
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.search import GridPlan
from timbre_ray.cluster.trainable import TrialContext, run_planned_trial
from timbre_ray.leaving import Leaving
from timbre_ray.ledger import Ledger
from timbre_ray.methods import METHODS
from timbre_ray.specs import BackboneSpec, ClipsSpec, DreamboothSpec, EvaluateSpec, TeacherSpec, TrialSpec
from timbre_ray.stages import TrialStages
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial
from timbre_ray.trial_progress import Evaluation, Progress

LORA = DreamboothSpec(method="lora", lr=1e-3, batch_size=1, gradient_accumulation=1)
SPEC = TrialSpec(
    clips=ClipsSpec(path="mini:chinese_flute_v1"), dreambooth=LORA, evaluate=EvaluateSpec(at_steps=(0, 2, 3), num_clips=2)
)


def changed(seed: int = 0, spec: TrialSpec = SPEC, **dreambooth: Any) -> TrialSpec:
    return dataclasses.replace(spec, seed=seed, dreambooth=dataclasses.replace(spec.dreambooth, **dreambooth))


def planned(*specs: TrialSpec) -> list[PlannedTrial]:
    return [PlannedTrial(trial_id=f"t{i}", key=f"k{i}", arm="a", target="t", point={}, spec=s) for i, s in enumerate(specs)]


def test_methods_that_train_together_are_those_that_can() -> None:
    assert {name for name, method in METHODS.items() if method.together} == who.METHODS


ANOTHER = (
    changed(lora_rank=8), changed(batch_size=2), changed(gradient_accumulation=2), changed(lora_targets="attention"),
    changed(mixed_precision="bf16"), dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(0, 3))),
    dataclasses.replace(SPEC, backbone=BackboneSpec(dtype="bfloat16")),
)  # fmt: skip
LIKE = (
    changed(seed=5), changed(lr=1e-5), changed(lora_alpha=1), changed(weight_decay=0.0), changed(prior_weight=0.3),
    dataclasses.replace(SPEC, clips=ClipsSpec(path="mini:chinese_flute_v2", instrument="flute")),
    dataclasses.replace(SPEC, teacher=TeacherSpec(epochs=3)),
    dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, num_clips=9)),
)  # fmt: skip
ALONE = (
    changed(method="direct"), changed(train_language_model=True), changed(mixed_precision="fp16"),
    dataclasses.replace(SPEC, evaluate=dataclasses.replace(SPEC.evaluate, at_steps=(0,))),
)  # fmt: skip


def test_what_one_pass_needs_in_common_decides_the_kind() -> None:
    assert {who.kind(spec) for spec in LIKE} == {who.kind(SPEC)}
    assert len({who.kind(spec) for spec in (SPEC, *ANOTHER)}) == 1 + len(ANOTHER)
    assert {who.kind(spec) for spec in ALONE} == {None}


@pytest.mark.parametrize(
    ("num", "at_once", "slots", "wanted"),
    [
        (6, 1, 2, {}),  # each alone: the default
        (6, 4, 8, {}),  # all run at a time
        (6, 4, 1, {0: (1, 2, 3), 4: (5,)}),
        (6, 4, 2, {0: (2, 4), 1: (3, 5)}),
        (7, 2, 2, {0: (2,), 1: (3,), 4: (6,)}),
        (1, 4, 1, {}),
    ],
)
def test_those_that_start_at_a_time_do_not_train_each_other(num: int, at_once: int, slots: int, wanted: dict) -> None:
    found = who.companions(planned(*(changed(seed=i) for i in range(num))), at_once=at_once, slots=slots)
    assert found == {f"t{leader}": tuple(f"t{i}" for i in others) for leader, others in wanted.items()}


def test_trials_of_other_kinds_in_between_count_for_nothing() -> None:
    specs = (changed(0), changed(0, method="direct"), changed(0, lora_rank=8), changed(1), changed(1, lora_rank=8))
    assert who.companions(planned(*specs), at_once=4, slots=1) == {"t0": ("t3",), "t2": ("t4",)}


# -- on the miniature ------------------------------------------------------------------------------------------------------------

OTHERS = (changed(seed=1, lr=2e-3), dataclasses.replace(SPEC, clips=ClipsSpec(path="mini:chinese_flute_v2"), seed=2))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("alone"))
    for spec in (SPEC, *OTHERS):
        list(TrialStages(spec, store, "cpu").train(3))
    return store


def trained(store: Store) -> list[str]:
    return [event["key"] for event in store.log() if (event["event"], event["stage"]) == ("computed", "dreambooth")]


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train_together", lambda *_, **__: pytest.fail("trained again"))


def assert_as_alone(spec: TrialSpec, store: Store, alone: Store) -> None:
    for step in (2, 3):
        key = TrialStages(spec, store, "cpu").dreambooth_key(step)
        mine, theirs = (
            load_file(s.get("dreambooth", key).file("adapter_model.safetensors")) for s in (store, alone)
        )  # fmt: skip
        assert mine.keys() == theirs.keys()
        difference, size = (sum((f(name) ** 2).sum() for name in mine) for f in (lambda n: mine[n] - theirs[n], theirs.get))
        assert difference < 1e-4 * size, (spec.seed, step)


def test_companions_find_their_weights(tmp_path: Path, alone: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    clock = itertools.count(step=3.0)  # three seconds from one look to the next
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = list(TrialStages(SPEC, store, "cpu").train(3, OTHERS))
    assert [step for step, _ in found] == [2, 3] and len(trained(store)) == 6
    for spec in (SPEC, *OTHERS):
        assert_as_alone(spec, store, alone)
    assert not list((store.root / "scratch" / "dreambooth").glob("*/*"))
    spent = [m["description"]["spent"]["seconds"] for m in store.manifests("dreambooth")]
    assert spent == [1.0] * 6, "a pass counts a third for each"
    no_training(monkeypatch)
    for spec in (SPEC, *OTHERS):
        steps = list(TrialStages(spec, store, "cpu").train(3))
        assert [(step, len(losses)) for step, losses in steps] == [(2, 2), (3, 3)]
        assert steps[-1][1] == [pytest.approx(row, rel=1e-3) for row in TrialStages(spec, alone, "cpu").losses(3)]


def test_who_is_done_or_has_no_recordings_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    done, gone = changed(seed=1), dataclasses.replace(SPEC, clips=ClipsSpec(path=str(tmp_path / "nowhere")))
    list(TrialStages(done, store, "cpu").train(3))
    before = trained(store)
    with pytest.warns(UserWarning, match=r"a companion trains alone: .*nowhere"):
        list(TrialStages(SPEC, store, "cpu").train(3, (done, gone, SPEC)))
    own = [TrialStages(SPEC, store, "cpu").dreambooth_key(step) for step in (2, 3)]
    assert trained(store) == before + own


def hold(root: Path, key: str, held: Any, over: Any) -> None:
    with Store(root).holding("dreambooth_run", key):
        held.set()
        over.wait(60)


def test_who_is_under_way_elsewhere_is_left_out(tmp_path: Path) -> None:
    store, context = Store(tmp_path), multiprocessing.get_context("spawn")
    key, held, over = TrialStages(OTHERS[0], store, "cpu").dreambooth_key(3), context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, key, held, over))
    other.start()
    try:
        assert held.wait(60)
        list(TrialStages(SPEC, store, "cpu").train(3, OTHERS[:1]))
    finally:
        over.set()
        other.join()
    assert trained(store) == [TrialStages(SPEC, store, "cpu").dreambooth_key(step) for step in (2, 3)]


def leaving_at(step: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if (progress.stage, progress.done) == ("dreambooth", step):
            raise Leaving("spot")

    return on_progress


def test_all_go_on_where_one_had_to_leave(tmp_path: Path, alone: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together again, or one of them for itself: nobody begins anew."""
    passes: list[int] = []
    inner = training.train_together

    def counted(unet: Any, *parts: Any, **named: Any) -> Any:
        unet.register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
        return inner(unet, *parts, **named)

    monkeypatch.setattr(training, "train_together", counted)
    store = Store(tmp_path)
    with pytest.raises(Leaving, match="spot"):
        list(TrialStages(SPEC, store, "cpu", leaving_at(1)).train(3, OTHERS))
    assert passes == [3] and not trained(store)
    list(TrialStages(OTHERS[1], store, "cpu").train(3))
    assert passes == [3, 1, 1]
    list(TrialStages(SPEC, store, "cpu").train(3, OTHERS))
    assert passes == [3, 1, 1, 2, 2]
    for spec in (SPEC, *OTHERS):
        assert_as_alone(spec, store, alone)


def test_a_companion_that_diverges_gets_no_weights(tmp_path: Path, alone: Store) -> None:
    store, wild = Store(tmp_path), changed(seed=1, lr=1e30)
    list(TrialStages(SPEC, store, "cpu").train(3, (wild, OTHERS[1])))
    assert_as_alone(SPEC, store, alone)
    assert_as_alone(OTHERS[1], store, alone)
    assert not store.has("dreambooth", TrialStages(wild, store, "cpu").dreambooth_key(3))
    with pytest.raises(FloatingPointError, match=r"lower dreambooth\.lr \(now 1e\+30\)"):
        list(TrialStages(wild, store, "cpu").train(3))


def test_the_others_go_on_where_the_first_one_diverged(tmp_path: Path, alone: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store, passes = Store(tmp_path), list[int]()
    inner = training.train_together

    def counted(unet: Any, *parts: Any, **named: Any) -> Any:
        unet.register_forward_pre_hook(lambda _, arguments: passes.append(len(arguments[0])))
        return inner(unet, *parts, **named)

    monkeypatch.setattr(training, "train_together", counted)
    with pytest.raises(FloatingPointError, match=r"lower dreambooth\.lr"):
        list(TrialStages(changed(seed=7, lr=1e30), store, "cpu").train(3, (OTHERS[1],)))
    num_together = len(passes)
    assert 1 < num_together <= 3 and set(passes) == {2}, "its second step is already lost"
    list(TrialStages(OTHERS[1], store, "cpu").train(3))
    assert passes[num_together:] == [1] * (3 - (num_together - 1)), "only the steps that were not whole"
    assert_as_alone(OTHERS[1], store, alone)


def test_a_checkpoint_that_outlived_its_training_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = TrialStages(SPEC, store, "cpu")
    list(stages.train(3))
    left = store.scratch("dreambooth", stages.keys.dreambooth(3).key) / "resume.pt"
    left.write_bytes(b"of a process that had to leave while it kept its companions' weights")
    list(TrialStages(SPEC, store, "cpu").train(3))
    assert not left.exists()


# -- in a sweep ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "wanted"), [(None, [1, 2]), ("running", [1, 2]), ("failed", [])])
def test_what_failed_in_company_is_tried_again_alone(
    status: str | None, wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = {trial.trial_id: trial for trial in planned(*(changed(seed=seed) for seed in range(3)))}
    told: list[list[int]] = []

    def trial(spec: TrialSpec, *, companions: list[TrialSpec], **named: Any) -> Iterator[Evaluation]:
        told.append([other.seed for other in companions])
        yield Evaluation(step=0, num_clips=2, metrics={"fad_held_out": 1.0}, confidences={}, audio={}, losses=[])

    monkeypatch.setattr(tune, "report", lambda metrics: None)
    monkeypatch.setattr(notice.Notice, "_watch_node", lambda self, done: None)  # there is no Ray here
    context = TrialContext(
        ledger_folder=tmp_path / "results", worker=Worker(store_root=tmp_path / "store", device="cpu", threads=1),
        functions=Functions(trial=trial), scorers=ScorerPool([None]), plan=GridPlan(trials), companions={"t0": ("t1", "t2")},
    )  # fmt: skip
    if status:
        Ledger(context.ledger_folder).write_trial({"trial_id": "t0", "trial_key": "k0", "status": status})
    run_planned_trial({"trial_id": "t0"}, context=context)
    assert told == [wanted]


def test_who_is_trained_already_neither_leads_nor_is_led(alone: Store, tmp_path: Path) -> None:
    trials = planned(SPEC, *OTHERS, changed(seed=8), changed(seed=9))
    stored = ahead.stored(trials, alone)
    assert stored == {"t0", "t1", "t2"} and not ahead.stored(trials, Store(tmp_path))
    along = who.companions([t for t in trials if t.trial_id not in stored], at_once=4, slots=1)
    assert along == {"t3": ("t4",)}
    kinds = ahead.kinds(trials, stored, along)
    assert [kinds[f"t{i}"] for i in range(5)] == [("a", AT_ONCE)] * 3 + [("a", "trains 1 along"), ("a", AT_ONCE)]
