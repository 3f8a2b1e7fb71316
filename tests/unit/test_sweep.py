"""Sweeps: what a YAML becomes, and how its mistakes are named."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import yaml

from timbre_ray.sweep import Sweep, SweepError, load_sweep

SHIPPED = Path(__file__).parents[2] / "sweeps"
PAPER_ARMS = (
    "large-gpt2", "large-gpt2-teacher", "large-gpt2-prior", "large-gpt2-lora",
    "large-gpt2-teacher-mixclass-prior", "large-gpt2-teacher-chineseclass-prior",
)  # fmt: skip
BODY = {
    "name": "small",
    "base": {"clips": {"path": "mini:chinese_flute_v1"}},
    "arms": {"direct": {}, "prior": {"dreambooth": {"method": "prior", "prior_weight": 0.5}}},
}


@pytest.fixture
def load(tmp_path):
    def write_and_load(text: str | None = None, clips: str | None = None, **parts) -> Sweep:
        path = tmp_path / "small.yaml"
        path.write_text(text or "# Question: is it small?\n" + yaml.safe_dump(BODY | parts, sort_keys=False))
        return load_sweep(path, clips=clips)

    return write_and_load


@pytest.fixture
def problems(load):
    def of(text: str | None = None, **parts) -> tuple[str, ...]:
        with pytest.raises(SweepError) as caught:
            load(text, **parts)
        assert all("small.yaml: " in line for line in str(caught.value).splitlines())
        return caught.value.problems

    return of


def base(**sections) -> dict:
    return {"clips": {"path": "mini:chinese_flute_v1"}, **sections}


def folder_of_clips(folder: Path, names: tuple[str, ...] = ("a.wav",)) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(f"{folder.parent.name}/{name}, never decoded".encode())
    return folder


def test_a_sweep_and_its_trials(load):
    sweep = load()
    assert (sweep.name, sweep.question, sweep.arms) == ("small", "is it small?", ("direct", "prior"))
    assert sweep.text.startswith("# Question") and sweep.path.name == "small.yaml" and sweep.search is None
    direct, prior = sweep.trials
    assert direct.target == "chinese_flute_v1" and direct.point == {}
    assert re.fullmatch(r"[0-9a-f]{20}", direct.key) and direct.trial_id.endswith(direct.key[:8])
    assert direct.trial_id == f"direct-chinese_flute_v1-s0-{direct.key[:8]}"
    assert prior.spec.dreambooth.method == "prior"


def test_arms_merge_into_base(load):
    shared = base(teacher={"epochs": 50, "lr": 2e-5}, dreambooth={"lr": 3e-5})
    arms = {"a": {"teacher": {"epochs": 0}}, "b": None, "c": {"teacher": {}}}
    a, b, c = load(base=shared, arms=arms).trials
    assert (a.spec.teacher.epochs, a.spec.teacher.lr, a.spec.dreambooth.lr) == (0, 2e-5, 3e-5)
    assert b.spec == c.spec and b.spec.teacher.epochs == 50


def test_grid_over_dotted_keys_runs_breadth_first_over_seeds(load):
    paths = ["mini:chinese_flute_v1", "mini:chinese_lute"]
    sweep = load(grid={"clips.path": paths, "seed": [0, 1], "dreambooth": {"lr": [1e-5]}})
    found = [(t.spec.seed, t.target, t.arm) for t in sweep.trials]
    targets = ("chinese_flute_v1", "chinese_lute")
    assert found == [(seed, target, arm) for seed in (0, 1) for target in targets for arm in ("direct", "prior")]
    assert sweep.trials[-1].point == {"clips.path": "mini:chinese_lute", "seed": 1, "dreambooth.lr": 1e-5}
    assert len({t.trial_id for t in sweep.trials}) == 8


def test_ids_and_keys_are_stable_and_independent_of_run(load):
    first = load(run={"threads": 1})
    other = load(run={"threads": 4, "storage": "elsewhere", "resources": {"train": {"gpu": 1}}}, name="renamed")
    assert [(t.trial_id, t.key) for t in first.trials] == [(t.trial_id, t.key) for t in other.trials]
    assert first.trials[0].key == load(base=base(teacher={"epochs": 0})).trials[0].key, "a default written out is the same trial"
    assert first.trials[0].key != load(base=base(teacher={"epochs": 1})).trials[0].key


def test_run_fills_in_what_is_left_out(load):
    run = load(run={"resources": {"train": {"gpu": 0.5, "slice": 1}}, "max_concurrent": 2}).run
    assert run.resources.train == {"cpu": 1, "gpu": 0.5, "slice": 1} and run.resources.score == {"cpu": 0, "gpu": 0}
    assert (run.max_concurrent, run.num_scorers, run.time_budget_s) == (2, 1, None)


def test_numbers_as_yaml_writes_them(load):
    text = "name: small\nbase: {clips: {path: mini:chinese_lute}, dreambooth: {lr: 1e-5, mixture_gain_db: -.inf}}\n"
    sweep = load(text)
    assert sweep.trials[0].spec.dreambooth.lr == 1e-5 and sweep.question == "" and sweep.arms == ("base",)
    assert sweep.trials[0].spec.dreambooth.mixture_gain_db == -math.inf


@pytest.mark.parametrize("name", ["mixclass-prior", "mixclass_prior"])
def test_method_names_with_dashes(load, name):
    assert load(arms={"mix": {"dreambooth": {"method": name}}}).trials[0].spec.dreambooth.method == "mixclass_prior"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"arms": {"a": {"dreambooth": {"lrr": 1}}}}, "arms.a.dreambooth.lrr=1: unknown key; nearest: dreambooth.lr"),
        ({"base": base(dreambooh={"lr": 1})}, "base.dreambooh={'lr': 1}: unknown key; nearest: dreambooth"),
        ({"base": base(epochs=3)}, "base.epochs=3: unknown key; nearest: teacher.epochs"),
        ({"serch": {}}, "serch={}: unknown key; nearest: search"),
        (
            {"run": {"resources": {"score": {"gpu": 0.25}}}},
            "run.resources.score.gpu=0.25: the models that score listen on the CPU",
        ),
        ({"run": {"num_scorer": 2}}, "run.num_scorer=2: unknown key; nearest: num_scorers"),
        ({"grid": {"dreambooth.lrr": [1]}}, "grid.dreambooth.lrr: unknown key; nearest: dreambooth.lr"),
        ({"grid": {"teacher": [1]}}, "grid.teacher: a group of settings; choose one of teacher.epochs"),
        ({"grid": {"seed": 3}}, "grid.seed=3: must be a list"),
        ({"grid": {"seed": [0, 0]}}, "grid: {'seed': 0} repeats {'seed': 0}; remove one"),
        ({"grid": {"dreambooth.lr": [1e-5, "fast"]}}, "grid.dreambooth.lr='fast': input should be a valid number"),
        ({"base": base(dreambooth={"steps": 300.5})}, "base.dreambooth.steps=300.5: input should be a valid integer"),
        ({"base": base(seed=True)}, "base.seed=True: true or false where a number is expected"),
        ({"base": base(teacher=50)}, "base.teacher=50: input should be a dictionary"),
        (
            {"base": base(dreambooth={"method": "mixclas-prior"})},
            "base.dreambooth.method='mixclas_prior': must be one of direct, prior, mixclass_prior, chineseclass_prior, lora; "
            "nearest: mixclass_prior",
        ),
        ({"base": base(), "arms": {"a": {"teacher": {"lr": -1}}}}, "arms.a.teacher.lr=-1.0: must be above 0"),
        ({"base": {}}, "base.clips: missing"),
        ({"base": base(dreambooth={"steps": 100})}, "base.evaluate.at_steps=[0, 25, 300]: the last lies beyond dreambooth."),
        ({"arms": {"a b": {}}}, "arms.a b='a b': a name of letters"),
        ({"arms": {"a": 3}}, "arms.a=3: must be a mapping"),
        ({"name": "../up"}, "name='../up': a name of letters"),
        ({"base": base(dreambooth={"lora_alpha": 0})}, "base.dreambooth.lora_alpha=0.0: must be above 0"),
        ({"base": base(dreambooth={"weight_decay": -1})}, "base.dreambooth.weight_decay=-1.0: must be at least 0"),
        ({"base": base(dreambooth={"mixture_gain_db": float("nan")})}, "base.dreambooth.mixture_gain_db=nan: must be a number"),
        ({"base": base(evaluate={"sampler": {"guidance_scale": 0}})}, "base.evaluate.sampler.guidance_scale=0.0: must be"),
        (
            {"base": base(evaluate={"sampler": {"num_inference_steps": 1000}})},
            "base.evaluate.sampler.num_inference_steps=1000: must be below 1000",
        ),
        (
            {"base": base(evaluate={"sampler": {"num_inference_steps": 400}})},
            "base.evaluate.sampler.num_inference_steps=400: DDIM takes every 2. of 1000 steps and would begin at 799",
        ),
        ({"run": {"train_together": 0}}, "run.train_together=0: must be at least 1"),
        ({"run": {"threads": 0}}, "run.threads=0: must be at least 1"),
        ({"run": {"resources": {"train": {"gpu": -1}}}}, "run.resources.train.gpu=-1.0: must be at least 0"),
        ({"run": {"device": "gpu"}}, "run.device='gpu': must be one of auto, cpu, cuda"),
        ({"run": {"exporters": ["mlfow"]}}, "run.exporters.0='mlfow': must be one of wandb, mlflow, aim; nearest: mlflow"),
        (
            {"base": base(prompts={"duet": "A {tokn} {"})},
            "base.prompts.duet='A {tokn} {': unknown {tokn}; choose {token}, {instrument}, {partner}",
        ),
        ({"base": base(prompts={"duet": "A {token} {"})}, "base.prompts.duet='A {token} {': Single '{' encountered"),
        ({"base": base(), "arms": {"a": {"prompts": {"partner": "A {}"}}}}, "arms.a.prompts.partner='A {}': unknown {}; choose"),
        ({"base": base(prompts={"partner": "A {partner.name}"})}, "base.prompts.partner='A {partner.name}': unknown {partner.n"),
        ({"base": base(prompts={"partner": "A {partner:d}"})}, "base.prompts.partner='A {partner:d}': Unknown format code"),
    ],
)
def test_mistakes_are_named(problems, parts, words):
    found = problems(**parts)
    assert any(problem.startswith(words) for problem in found), found
    assert len(found) == 1, "one mistake, one problem, however many trials share it"


def test_all_mistakes_come_at_once(problems):
    found = problems(base=base(teacher={"epoch": 1}), arms={"a": {"dreambooth": {"lr": "x"}}}, run={"thread": 1})
    assert len(found) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: !!python/object/apply:os.getcwd []\n", "not plain YAML: could not determine a constructor"),
        ("name: [\n", "not plain YAML"),
        ("- 1\n", "a sweep is a mapping"),
        ("name: a\narms:\n  x: {}\n  x: {seed: 1}\n", "line 4: key 'x' stands twice (first in line 3)"),
    ],
)
def test_what_is_no_sweep_is_refused(problems, text, words):
    assert problems(text)[0].startswith(words)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SweepError, match=r"absent\.yaml: cannot be read"):
        load_sweep(tmp_path / "absent.yaml")


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "old.yaml").write_text("name: flûte\n", encoding="latin-1")
    with pytest.raises(SweepError, match=r"old\.yaml: not UTF-8 \(byte 8\); save it as UTF-8"):
        load_sweep(tmp_path / "old.yaml")


def test_a_brace_that_is_written_twice_is_a_brace(load):
    spec = load(base=base(prompts={"duet": "A {{{token}}} and {{}}"})).trials[0].spec
    assert spec.prompts.filled(spec.clips).duet == "A {sks} and {}"


def test_clip_folders_are_found_beside_the_yaml_first(load, tmp_path, monkeypatch):
    beside = folder_of_clips(tmp_path / "flute")
    (working := tmp_path / "elsewhere").mkdir()
    folder_of_clips(working / "flute")
    other = folder_of_clips(working / "lute", ("b.FLAC",))
    monkeypatch.chdir(working)
    trial = load(base={"clips": {"path": "flute", "held_out": "lute"}}).trials[0]
    assert (trial.spec.clips.path, trial.spec.clips.held_out, trial.target) == (str(beside), str(other), "flute")


def test_missing_and_empty_clip_folders(problems, tmp_path):
    folder_of_clips(tmp_path / "flutes")
    folder_of_clips(tmp_path / "empty", ("notes.txt",))
    (tmp_path / "file").touch()
    (missing,) = problems(base={"clips": {"path": "flute"}})
    assert missing.startswith("base.clips.path='flute': no such folder (looked for ") and missing.endswith("; nearest: flutes")
    (empty,) = problems(grid={"clips.path": ["empty"]})
    assert empty.startswith("grid.clips.path='empty': no recording in ")
    (held_out,) = problems(base={"clips": {"path": "flutes", "held_out": "empty"}})
    assert held_out.startswith("base.clips.held_out='empty': no recording in ")
    (file,) = problems(base={"clips": {"path": "file"}})
    assert "is a file" in file


def test_a_recording_on_both_sides_of_the_split(problems, tmp_path):
    flute = folder_of_clips(tmp_path / "flute", ("a.wav", "b.wav", "c.wav"))
    (same,) = problems(base={"clips": {"path": "flute", "held_out": "flute"}})
    assert same.startswith("base.clips.held_out='flute': the same recording is trained on and scored against: ")
    assert same.endswith("(and 2 more); name others, or leave held_out out: a part of path is held out then")
    (flute / "d.wav").write_bytes((flute / "a.wav").read_bytes())  # the last quarter is held out
    (twice,) = problems(base={"clips": {"path": "flute"}})
    assert twice.startswith("base.clips.path='flute': the same recording is trained on and scored against: ")
    assert twice.endswith(f"{flute / 'a.wav'} and {flute / 'd.wav'}; take one of them out")


def test_an_unknown_shipped_set_gets_the_nearest(problems):
    (problem,) = problems(base={"clips": {"path": "mini:chinese_flut_v2"}})
    assert problem == "base.clips.path='mini:chinese_flut_v2': no such set is shipped; nearest: mini:chinese_flute_v2"


def test_two_clip_sets_of_one_name_are_refused(problems, tmp_path):
    for parent in ("a", "b"):
        folder_of_clips(tmp_path / parent / "flute")
    (problem,) = problems(grid={"clips.path": ["a/flute", "b/flute"]}, arms={"direct": {}})
    assert "share the name 'flute'" in problem


def test_other_clips_replace_those_of_the_file(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of_clips(tmp_path / "lute")
    sweep = load(clips="lute", grid={"clips.path": ["mini:chinese_flute_v1", "mini:chinese_flute_v2"], "seed": [0]})
    assert [t.spec.clips.path for t in sweep.trials] == [str(folder)] * 2


SPACE = {
    "dreambooth.lr": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
    "dreambooth.steps": {"type": "int", "low": 100, "high": 300},
    "dreambooth.method": {"type": "categorical", "choices": ["direct", "mixclass-prior"]},
}


def search(space: dict | None = None, **settings) -> dict:
    return {"arms": {}, "search": {"num_trials": 4, "space": space or SPACE, **settings}}


def test_a_search_overrides_the_base_arm(load):
    sweep = load(**search(scheduler={"name": "asha", "grace_period": 25, "reduction_factor": 2}))
    assert sweep.search is not None and sweep.search.scheduler is not None and list(sweep.search.space) == list(SPACE)
    assert sweep.arms == ("search",) and len(sweep.trials) == 1
    values = {"dreambooth.lr": 1e-4, "dreambooth.steps": 120, "dreambooth.method": "mixclass-prior"}
    trial = sweep.suggested(values)
    assert (trial.spec.dreambooth.lr, trial.spec.dreambooth.method) == (1e-4, "mixclass_prior")
    assert trial.spec.evaluate.at_steps == (0, 25, 120), "evaluated below its last step, and at it"
    assert trial.point == values and trial.key == sweep.suggested(values).key != sweep.trials[0].key
    assert sweep.suggested({}).key == sweep.trials[0].key
    with pytest.raises(SweepError, match=r"search\.space\.dreambooth\.lr=-1\.0: must be above 0"):
        sweep.suggested({"dreambooth.lr": -1.0})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (search({"dreambooth.lrr": SPACE["dreambooth.lr"]}), "search.space.dreambooth.lrr: unknown key; nearest: dreambooth.lr"),
        (search({"clips.path": SPACE["dreambooth.method"]}), "search.space.clips.path: trials on other clips"),
        (search({"dreambooth.lr": {"type": "float", "low": -1, "high": 1}}), "search.space.dreambooth.lr=-1.0: must be above 0"),
        (search({"dreambooth.lr": {"type": "float", "low": 1}}), "search.space.dreambooth.lr.high=None: type float needs"),
        (search({"dreambooth.lr": {"type": "float", "low": 1, "hihg": 2}}), "search.space.dreambooth.lr.hihg=2: unknown key; "),
        (search({"dreambooth.steps": {"type": "int", "low": 1.5, "high": 3}}), "search.space.dreambooth.steps.low=1.5: type int"),
        (search({"dreambooth.method": {"type": "categorical"}}), "search.space.dreambooth.method.choices=[]: a categorical"),
        (search(metric="fad_heldout"), "search.metric='fad_heldout': nothing of that name is measured; nearest: fad_held_out"),
        (
            search(metric=["fad_held_out", "piano"], mode=["min", "max"]),
            "search.metric='piano': nothing of that name is measured",
        ),
        (
            search(metric=["fad_held_out"] * 2, mode=["min"] * 2),
            "search.metric=['fad_held_out', 'fad_held_out']: must be distinct",
        ),
        (search(metric=["fad_held_out", "kad_held_out"]), "search.mode=['min']: 2 metric(s) need as many modes"),
        (search(mode="least"), "search.mode='least': must be min or max"),
        (search(metric="fad_held_out/clap"), "search.metric='fad_held_out/clap': base.evaluate.fad=['vggish'] has no clap"),
        (search(metric="clap_a"), "search.metric='clap_a': base.evaluate.fad=['vggish'] has no clap"),
        (search(scheduler={"name": "ash"}), "search.scheduler.name='ash': must be one of asha; nearest: asha"),
        (search() | {"grid": {"seed": [0]}}, "grid: a search draws its own points"),
        (search() | {"arms": {"a": {}, "b": {}}}, "arms=['a', 'b']: a search starts from one arm"),
    ],
)
def test_mistakes_in_a_search_are_named(problems, parts, words):
    found = problems(**parts)
    assert any(problem.startswith(words) for problem in found), found


@pytest.mark.parametrize(("name", "num_trials"), [("demo", 6), ("mini-ablation", 72), ("mini-factorial", 12), ("mini-search", 1)])
def test_the_shipped_sweeps_load(name, num_trials):
    sweep = load_sweep(SHIPPED / f"{name}.yaml")
    assert sweep.name == name and sweep.question and len(sweep.trials) == num_trials
    assert all(t.spec.backbone.name == "mini" and t.spec.evaluate.num_clips == 20 for t in sweep.trials)
    assert (sweep.search is not None) == (name == "mini-search")
    if name == "mini-factorial":
        assert sweep.ablation is not None and sweep.arms == ("baseline", "teacher", "prior", "teacher+prior")
    else:
        assert sweep.search is not None or sweep.arms == PAPER_ARMS


@pytest.fixture
def full_size(tmp_path, monkeypatch):
    """A shipped sweep over recordings of one's own, copied to where data/ has two tiny folders of them."""

    def copied(name: str, *, recordings: bool = True) -> Path:
        path = tmp_path / "sweeps" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(SHIPPED / path.name, path)
        for target in ("flute_v1", "flute_v2") if recordings else ():
            folder_of_clips(tmp_path / "data" / target, (f"{target}_a.wav", f"{target}_b.wav"))
        monkeypatch.chdir(tmp_path)
        return path

    return copied


def test_the_full_size_ablation_is_the_miniatures_with_the_papers_settings(full_size):
    sweep, mini = load_sweep(full_size("ablation")), load_sweep(SHIPPED / "mini-ablation.yaml")
    assert sweep.name == "ablation" and sweep.question and sweep.arms == mini.arms == PAPER_ARMS
    seeds = {t.spec.seed for t in sweep.trials}
    same = [t for t in mini.trials if t.spec.seed in seeds]  # the miniature's has more seeds: they are cheap there
    assert [(t.arm, t.spec.seed) for t in sweep.trials] == [(t.arm, t.spec.seed) for t in same]
    for ours, other in zip(sweep.trials, same, strict=True):
        spec, sampler = ours.spec, ours.spec.evaluate.sampler
        assert (spec.dreambooth.method, spec.teacher.epochs) == (other.spec.dreambooth.method, other.spec.teacher.epochs)
        assert spec.backbone.name == "cvssp/audioldm2-large" and spec.evaluate.at_steps == (0, 25, 300)
        assert (spec.dreambooth.lr, spec.dreambooth.batch_size, spec.dreambooth.gradient_accumulation) == (1e-5, 1, 4)
        assert (spec.teacher.lr, spec.dreambooth.steps, spec.dreambooth.num_class_clips) == (1e-5, 300, 50)
        assert (sampler.scheduler, sampler.num_inference_steps, sampler.guidance_scale) == ("ddim", 200, 3.5)
        assert sampler.negative_prompt == "Low quality" and sampler.mel_inversion == "vocoder"


@pytest.mark.parametrize(("name", "key"), [("ablation", "grid.clips.path"), ("search", "base.clips.path")])
def test_full_size_sweeps_say_how_to_get_the_recordings(full_size, name, key):
    with pytest.raises(SweepError) as caught:
        load_sweep(full_size(name, recordings=False))
    first = caught.value.problems[0]
    assert first.startswith(f"{key}='data/flute_v1': no such folder")
    assert "`timbre-ray data prepare SONGS --out data/flute_v1` makes it" in first


def test_the_full_size_search_is_the_miniatures(full_size):
    sweep, mini = load_sweep(full_size("search")), load_sweep(SHIPPED / "mini-search.yaml")
    assert sweep.search is not None and mini.search is not None and sweep.question
    assert list(sweep.search.space) == list(mini.search.space) and sweep.search.scheduler == mini.search.scheduler
    assert sweep.search.objectives == {"fad_held_out": "min", "partner_confidence": "max"}
    assert mini.search.objectives == {"fad_held_out": "min"}
    assert sweep.trials[0].spec.backbone.name == "cvssp/audioldm2-large"


def test_demo_is_part_of_the_ablation():
    """Both then share every stage of the store."""
    demo, ablation = (load_sweep(SHIPPED / f"{name}.yaml") for name in ("demo", "mini-ablation"))
    assert {t.key for t in demo.trials} <= {t.key for t in ablation.trials}


def test_a_trials_key_is_its_recordings_content_not_their_folder(load, tmp_path):
    here = folder_of_clips(tmp_path / "flute")
    key = load(base={"clips": {"path": "flute"}}).trials[0].key
    shutil.move(here, tmp_path / "moved")
    assert load(base={"clips": {"path": "moved"}}).trials[0].key == key
    (tmp_path / "moved" / "a.wav").write_bytes(b"another take")
    assert load(base={"clips": {"path": "moved"}}).trials[0].key != key


@pytest.mark.parametrize("name", ["backbone_digest", "judges_digest"])
def test_other_weights_are_other_trials(load, monkeypatch, name):
    before = load().trials[0].key
    monkeypatch.setattr(f"timbre_ray.inputs.{name}", lambda *_: "retrained")
    assert load().trials[0].key != before
