"""Ablations by factors: which arms a design makes, that these are the arms one would write by hand, and every mistake in one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from timbre_ray.ablation import AblationSpec
from timbre_ray.ledger import Ledger
from timbre_ray.sweep import Sweep, SweepError, load_sweep

TEACHER, PRIOR, GENTLE = {"teacher": {"epochs": 20}}, {"dreambooth": {"method": "prior"}}, {"dreambooth": {"lr": 1e-6}}
FACTORS = {"teacher": TEACHER, "prior": PRIOR}


def load(folder: Path, **parts: Any) -> Sweep:
    base = {"clips": {"path": "mini:chinese_flute_v1"}, "dreambooth": {"steps": 25}, "evaluate": {"at_steps": [0, 25]}}
    body = {"name": "factors", "base": base, "grid": {"seed": [0, 1]}} | parts
    path = folder / "factors.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return load_sweep(path)


def problems(folder: Path, **parts: Any) -> tuple[str, ...]:
    with pytest.raises(SweepError) as caught:
        load(folder, **parts)
    return caught.value.problems


def test_every_design_names_an_arm_by_what_it_has() -> None:
    def arms(design: str) -> list[str]:
        return list(AblationSpec(factors={"a": TEACHER, "b": PRIOR, "c": GENTLE}, design=design).arms)

    assert arms("factorial") == ["baseline", "a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    assert arms("add_one") == ["baseline", "a", "b", "c"]
    assert arms("leave_one_out") == ["a+b+c", "b+c", "a+c", "a+b"]
    assert {*arms("add_one"), *arms("leave_one_out")} == set(arms("factorial")), "both are parts of the factorial"


def test_arms_of_factors_are_the_arms_one_would_write(tmp_path: Path) -> None:
    """Of the same keys: what one way has computed is not computed again for the other."""
    by_hand = {"baseline": {}, "teacher": TEACHER, "prior": PRIOR, "teacher+prior": TEACHER | PRIOR}
    by_hand = {name.replace("+", "-and-"): change for name, change in by_hand.items()}
    made, written = load(tmp_path, ablation={"factors": FACTORS}), load(tmp_path, arms=by_hand)
    assert [t.key for t in made.trials] == [t.key for t in written.trials]
    assert [t.spec for t in made.trials] == [t.spec for t in written.trials]
    assert made.arms == ("baseline", "teacher", "prior", "teacher+prior") and len(made.trials) == 8
    assert made.ablation is not None and written.ablation is None


def test_a_design_that_grows_keeps_its_trials(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results")
    for trial in load(tmp_path, ablation={"design": "add_one", "factors": FACTORS}).trials:
        record = {"trial_id": trial.trial_id, "trial_key": trial.key, "arm": trial.arm, "point": trial.point}
        ledger.write_trial(record | {"status": "finished"})
    whole = load(tmp_path, ablation={"factors": FACTORS})
    found = ledger.difference(whole.trials)
    assert (len(found.keep), {t.arm for t in found.run}, found.changed) == (6, {"teacher+prior"}, ())


def test_dotted_keys_are_settings_too(tmp_path: Path) -> None:
    nested, dotted = (load(tmp_path, ablation={"factors": {"t": change}}) for change in (TEACHER, {"teacher.epochs": 20}))
    assert [t.key for t in nested.trials] == [t.key for t in dotted.trials]


def ablation(factors: Any, **more: Any) -> dict[str, Any]:
    return {"ablation": {"factors": factors, **more}}


CLASH = {"prior": PRIOR, "lora": {"dreambooth": {"method": "lora"}}}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (ablation(CLASH), "ablation.factors.lora.dreambooth.method='lora': the factor 'prior' sets this key too"),
        (ablation(CLASH, design="leave_one_out"), "ablation.factors.lora.dreambooth.method='lora': the factor 'prior' sets"),
        (ablation({"t": {"teacher": {"epoch": 2}}}), "ablation.factors.t.teacher.epoch=2: unknown key; nearest: teacher.epochs"),
        (ablation({"t": {"teacher": {"epochs": -2}}}), "ablation.factors.t.teacher.epochs=-2: must be at least 0"),
        (ablation(FACTORS, design="factorail"), "ablation.design='factorail': must be one of factorial, add_one"),
        (ablation(FACTORS, desing="factorial"), "ablation.desing='factorial': unknown key; nearest: design"),
        (ablation({}), "ablation.factors={}: an ablation needs at least one factor"),
        ({"ablation": {"design": "add_one"}}, "ablation.factors: missing"),
        (ablation({"t": 3}), "ablation.factors.t=3: "),
        (ablation({"a+b": TEACHER}), "ablation.factors.a+b='a+b': a name of letters"),
        (ablation({"baseline": TEACHER}), "ablation.factors.baseline='baseline': a name of letters"),
        (ablation({"s": {"seed": 3}}), "ablation.factors.s.seed=3: arms that differ in it cannot be compared"),
        (ablation({"c": {"clips": {"token": "x"}}}), "ablation.factors.c.clips.token='x': arms that differ in it"),
        (ablation({"n": {"evaluate.num_clips": 4}}), "ablation.factors.n.evaluate.num_clips=4: arms that differ in it"),
        (ablation(FACTORS) | {"arms": {"a": {}}}, "ablation: it makes the arms, and arms are written out as well"),
        (ablation({"none": {"teacher": {"epochs": 0}}, "prior": PRIOR}) | {"base": {"clips": {"path": "mini:chinese_flute_v1"},
         "teacher": {"epochs": 0}}}, "ablation.factors.none: changes nothing (baseline and none are one and the same trial)"),
        (ablation(FACTORS) | {"grid": {"seed": [0], "teacher.epochs": [0, 20]}}, "ablation.factors.teacher: changes nothing"),
        (ablation(FACTORS) | {"grid": {}, "search": {"space": {"dreambooth.lr": {"type": "float", "low": 1e-6, "high": 1e-4}}}},
         "ablation=['baseline', 'teacher', 'prior', 'teacher+prior']: a search starts from one arm"),
        ({"ablation": [1]}, "ablation=[1]: must be a mapping"),
    ],
)  # fmt: skip
def test_mistakes_in_an_ablation_are_named(tmp_path: Path, parts: dict[str, Any], words: str) -> None:
    found = problems(tmp_path, **parts)
    assert any(problem.startswith(words) for problem in found), found


def test_each_alone_may_set_the_same_key(tmp_path: Path) -> None:
    """No arm has both, so there is no conflict."""
    sweep = load(tmp_path, ablation={"design": "add_one", "factors": CLASH})
    methods = {trial.arm: trial.spec.dreambooth.method for trial in sweep.trials}
    assert methods == {"baseline": "direct", "prior": "prior", "lora": "lora"}


@pytest.mark.parametrize("design", ["factorial", "add_one", "leave_one_out"])
def test_any_number_of_factors_makes_distinct_arms(design: str) -> None:
    for num in range(1, 6):
        spec = AblationSpec(factors={f"f{i}": {f"dreambooth.k{i}": 1} for i in range(num)}, design=design)
        assert len(spec.arms) == (2**num if design == "factorial" else num + 1)
        assert not any(set(one) == set(two) for one, two in itertools.combinations(spec.arms.values(), 2))
