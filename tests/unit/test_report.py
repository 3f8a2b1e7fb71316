"""The report on a synthetic ledger and store: hand-computed tables, planted effects and nulls, escaping, self-containment."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.report import claims, comparisons, figures, pareto, summary, tables, textforms
from timbre_ray.report.results import Results, load
from timbre_ray.store import Store

ARMS = {  # name: (method, epochs of teacher forcing)
    "base": ("direct", 0),
    "base-teacher": ("direct", 5),
    "base-prior": ("prior", 0),
    "base-lora": ("lora", 0),
    "base-teacher-mixclass-prior": ("mixclass_prior", 5),
}
NASTY = "<script>alert('x')</script> & \"co\""
PLANTED = {  # arm: (FAD at 0, 25, 300; solo piano at 0, 300; duet rank at 0, 300)
    "base": (9.0, 8.0, 4.0, 0.90, 0.10, 1.0, 6.0),
    "base-teacher": (7.0, 6.0, 3.8, 0.90, 0.12, 1.0, 6.0),
    "base-prior": (9.0, 8.0, 4.0, 0.90, 0.80, 1.0, 2.0),
    "base-lora": (9.0, 8.5, 5.0, 0.90, 0.50, 1.0, 3.0),
    "base-teacher-mixclass-prior": (7.0, 6.0, 3.0, 0.90, 0.92, 1.0, 1.0),
}
Scores = Callable[[str, str, int, int], Mapping[str, float]]


def planted(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
    """Effects far above the jitter between seeds; nothing jitters at step 0 of an arm without teacher forcing."""
    fad0, fad25, fad300, piano0, piano300, rank0, rank300 = PLANTED[arm]
    jitter = (seed - 1) * 0.004 * (1 + len(arm)) * (step > 0 or "teacher" in arm)
    fad = {0: fad0, 25: fad25, 300: fad300}[step] + jitter + (1.0 if target.endswith("v2") else 0.0)
    share = step / 300
    piano, rank = piano0 + share * (piano300 - piano0), rank0 + share * (rank300 - rank0)
    return {
        "fad_held_out": fad, "fad_train": fad / 2, "solo_target_confidence": 0.5, "duet_partner_rank": rank + jitter,
        "duet_partner_confidence": piano / 2, "duet_target_confidence": 0.4, "partner_confidence": piano + jitter / 10,
        "partner_rank": rank,
    }  # fmt: skip


def null(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
    """The same for every arm and step, but for noise that has no direction."""
    noise = np.random.default_rng([len(arm), len(target), seed, step]).normal
    scores = planted("base", target, 1, 0)
    return {name: value + float(noise(0, 0.5)) for name, value in scores.items()}


def write_clips(store: Store, stage: str, key: str, names: list[str], prompt: str, gain: float) -> None:
    def produce(folder: Path) -> None:
        time = np.arange(4000) / 16000
        for name in names:
            soundfile.write(folder / name, gain * np.sin(2 * np.pi * 440 * time), 16000)
        (folder / "clips.json").write_text(json.dumps({"prompt": prompt, "seed": 0, "files": names}))

    if not store.has(stage, key):
        store.get_or_compute(stage, key, produce, description={})


def write_sweep(
    tmp_path: Path, scores: Scores = planted, *, seeds: tuple[int, ...] = (0, 1, 2), arms: tuple[str, ...] = tuple(ARMS),
    targets: tuple[str, ...] = ("chinese_flute_v1", "chinese_flute_v2"),
) -> tuple[Path, Path]:  # fmt: skip
    folder, store_root = tmp_path / "results" / "synthetic", tmp_path / "store"
    ledger, store = Ledger(folder), Store(store_root)
    planned = []
    for target in targets:
        write_clips(store, "encode", f"real-{target}", ["train_0000.flac", "held_out_0000.flac"], "", 0.4)
        metrics = {"fad_held_out": 0.75, "solo_target_confidence": 0.95}
        baseline = {"target": target, "num_clips": 24, "metrics": metrics, "audio": {"real": f"real-{target}"}}
        ledger.write_baseline(target, baseline)
        for seed in seeds:
            for arm in arms:
                record = trial_record(arm, target, seed, scores)
                planned.append(record["trial_id"])
                ledger.write_trial(record)
                for evaluation in record["evaluations"]:
                    for prompt, key in evaluation["audio"].items():
                        write_clips(store, "generate", key, ["clip_0000.flac"], f"{prompt} {NASTY}", 0.05 * (1 + len(prompt)))
    ledger.write_sweep({"name": "synthetic", "question": f"What is kept? {NASTY}", "arms": list(arms), "planned": planned,
                        "text": "name: synthetic # <b>", "run": {}, "provenance": {"python": "3.11"}})  # fmt: skip
    return folder, store_root


def trial_record(arm: str, target: str, seed: int, scores: Scores) -> dict[str, Any]:
    method, epochs = ARMS[arm]
    untaught = arm if epochs else "backbone"  # arms without teacher share their clips of step 0
    evaluations = [
        {"step": step, "num_clips": 24, "metrics": dict(scores(arm, target, seed, step)), "confidences": {},
         "audio": {p: f"{arm if step else untaught}-{target}-{step}-{p}" for p in ("solo", "duet", "partner")}}
        for step in (0, 25, 300)
    ]  # fmt: skip
    return {
        "schema": 1, "trial_id": f"{arm}-{target}-s{seed}", "trial_key": "k", "arm": arm, "target": target, "seed": seed,
        "point": {"clips.path": f"mini:{target}", "seed": seed}, "status": "finished", "error": None,
        "spec": {"clips": {"partner": "piano", "instrument": "flute"}, "dreambooth": {"method": method},
                 "teacher": {"epochs": epochs}},
        "evaluations": evaluations,
        "stages": [{"stage": "teach", "key": "k", "seconds": 1.0, "reused": False}], "losses": [], "wall_s": 12.0,
    }  # fmt: skip


def fail(folder: Path, trial_id: str, message: str) -> None:
    ledger = Ledger(folder)
    error = {"type": "ValueError", "message": message, "stage": "score"}
    ledger.write_trial({**ledger.trials()[0], **(ledger.trial(trial_id) or {}), "status": "failed", "error": error})


def table_of(results: Results, number: str) -> tables.Table:
    return next(table for table in tables.build_all(results, None) if table.number == number)


def verdicts(results: Results) -> list[str]:
    return [judgement.verdict for judgement in claims.judge_all(results)]


def test_tables_equal_hand_computed_numbers(tmp_path: Path) -> None:
    results = load(write_sweep(tmp_path)[0])
    version1 = table_of(results, "3").sections[0]
    assert [row.label for row in version1.rows] == [tables.FLOOR_LABEL, tables.UNTOUCHED_LABEL, *ARMS]
    floor, untouched, base = version1.rows[:3]
    assert (floor.cells[0].mean, floor.cells[1], floor.num_clips) == (0.75, None, "24")
    assert (untouched.cells[0].mean, untouched.cells[0].std, untouched.num_seeds) == (9.0, None, 3)
    assert base.cells[0].mean == pytest.approx(4.0)
    assert base.cells[0].std == pytest.approx(0.02)  # 3.98, 4.00, 4.02
    assert base.cells[1].mean == pytest.approx(2.0)
    assert [row.label for row in version1.rows if row.cells[0].is_best] == ["base-teacher-mixclass-prior"]
    assert table_of(results, "4").sections[0].rows[2].cells[0].mean == pytest.approx(5.0)
    assert [row.label for row in table_of(results, "2").sections[0].rows[2:]] == ["base", "base-teacher"]
    assert [c.mean for c in table_of(results, "5").sections[0].rows[1].cells if c] == pytest.approx([1.0, 1 + 5 / 12, 6.0])
    assert table_of(results, "7").sections[1].rows[0].label == tables.UNTOUCHED_LABEL


def test_planted_effects_hold(tmp_path: Path) -> None:
    assert verdicts(load(write_sweep(tmp_path)[0])) == ["holds"] * 5


def test_noise_decides_nothing(tmp_path: Path) -> None:
    results = load(write_sweep(tmp_path, null)[0])
    assert verdicts(results)[:4] == ["cannot be told apart"] * 4
    assert verdicts(results)[4] != "holds"


def test_reversed_effects_do_not_hold(tmp_path: Path) -> None:
    def reverse(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        return {name: 10 - value for name, value in planted(arm, target, seed, step).items()}

    assert verdicts(load(write_sweep(tmp_path, reverse)[0])) == ["does not hold"] * 5


def test_interval_is_the_paired_t_interval(tmp_path: Path) -> None:
    def scores(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        found = planted(arm, target, 1, step)
        return {**found, "fad_held_out": 5.0 + 10 * seed - (arm == "base-teacher") * (1.0 + seed)}

    results = load(write_sweep(tmp_path, scores, targets=("chinese_flute_v1",))[0])
    comparison = claims.teacher_forcing_lowers_fad(results).comparisons[0]
    found = comparison.difference
    assert found.num_pairs == 3 and found.mean == pytest.approx(-2.0)  # -1, -2, -3
    half = 4.302652729911275 / 3**0.5  # t(0.975, 2) times sd 1 over root 3
    assert found.interval == pytest.approx((-2.0 - half, -2.0 + half))
    assert comparison.outcome == "cannot be told apart"


def test_one_seed_has_no_verdict_and_missing_arms_are_said(tmp_path: Path) -> None:
    one = load(write_sweep(tmp_path / "one", seeds=(0,), targets=("mine",))[0])
    assert verdicts(one) == ["cannot be told apart"] * 5
    assert [table.number for table in tables.build_all(one, None)] == ["2", "3", "5", "6", "7"]
    few = load(write_sweep(tmp_path / "few", arms=("base", "base-lora"))[0])
    assert verdicts(few) == ["not measured", "holds", "not measured", "not measured", "not measured"]


def test_a_failed_trial_is_named_and_left_out(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    fail(folder, "base-prior-chinese_flute_v1-s2", f"clip 3: no finite sample {NASTY}")
    results = load(folder)
    assert summary.completeness(results).startswith("29 of 30 planned trials finished, 1 failed, 0 not finished")
    prior = next(row for row in table_of(results, "3").sections[0].rows if row.label == "base-prior")
    assert (prior.num_seeds, prior.cells[0].mean) == (2, pytest.approx(3.978))
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert "base-prior-chinese_flute_v1-s2" in page and "clip 3: no finite sample" in page
    assert "clip 3: no finite sample &lt;script" in (tmp_path / "out" / "report.md").read_text()


def test_orphaned_and_unplanned_trials_are_left_out(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path, arms=("base", "base-prior"))
    ledger = Ledger(folder)
    ledger.write_trial({**ledger.trials()[0], "orphaned": True})
    ledger.write_trial({**ledger.trials()[0], "trial_id": "stray"})
    assert len(load(folder).trials) == 11


def test_the_page_is_escaped_and_needs_nothing_else(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,))
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;alert" in page
    assert "http://" not in page and "https://" not in page
    sources = [source.partition(",")[0] for source in re.findall(r'src="([^"]*)"', page)]
    assert sources.count("data:audio/ogg;base64") == sources.count("data:image/png;base64") == 2 * (1 + 3 + 3 * len(ARMS))
    assert len(sources) == 2 * page.count("<audio")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)
    assert page.count("<svg") == page.count("</title><desc") == 6
    assert "<script" not in (tmp_path / "out" / "report.md").read_text()


def test_a_search_over_two_metrics_shows_its_front(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, targets=("chinese_flute_v1",), seeds=(0,))
    ledger = Ledger(folder)
    trials = ledger.trials()[:4]
    found = {"near": (1.0, 0.2), "keeper": (9.0, 0.9), "beaten": (9.5, 0.9), "equal": (1.0, 0.2)}
    for trial, (name, (fad, piano)) in zip(trials, found.items(), strict=True):
        trial |= {"trial_id": name, "point": {"dreambooth.lr": 1.23456e-5, "dreambooth.method": "prior"}}
        trial["evaluations"][-1]["metrics"] |= {"fad_held_out": fad, "partner_confidence": piano}
        ledger.write_trial(trial)
    sweep = ledger.sweep() | {"planned": list(found)}
    ledger.write_sweep(sweep)
    assert pareto.front(load(folder)) is None, "no search over several metrics"
    ledger.write_sweep(sweep | {"objectives": {"fad_held_out": "min", "partner_confidence": "max"}})
    front = pareto.front(load(folder))
    assert front.headers == ("trial", "fad_held_out (min)", "partner_confidence (max)", "at step", "settings")
    assert front.num_trials == 4
    assert sorted(row[0] for row in front.rows) == ["equal", "keeper", "near"] and front.rows[-1][0] == "keeper"
    assert front.rows[-1][3:] == ("300", "dreambooth.lr=1.235e-05, dreambooth.method=prior")
    page = report.build(folder, store, tmp_path / "out").read_text()
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "3 of 4 finished trials" in text and text.index("## Pareto front") < text.index("## Tables") and "## Claims" not in text
    )
    assert '<section id="pareto-front">' in page and "keeper" in page


def test_csv_and_latex(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path)
    out = tmp_path / "out"
    report.build(folder, store, out)
    with (out / "tables" / "table-3-fad.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["row"] == "base" and line["metric"] == "fad_held_out"]
    assert len(lines) == 1
    assert (float(lines[0]["mean"]), float(lines[0]["std"])) == (pytest.approx(4.0), pytest.approx(0.02))
    assert (lines[0]["num_seeds"], lines[0]["num_clips"], lines[0]["paper"]) == ("3", "24", "")
    tex = (out / "tables" / "table-2-teacher-forcing.tex").read_text()
    assert r"\toprule" in tex and r"chinese\_flute\_v1" in tex and r"\multicolumn{2}{c}{step 25}" in tex
    body = [line for line in tex.splitlines() if line.startswith("base")]
    assert len(body) == 4 and all(line.count("&") == 8 for line in body)
    with (out / "tables" / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30 * 3 * 8


def test_further_scores_have_columns_only_where_they_were_measured(tmp_path: Path) -> None:
    extra = {"fad_inf_held_out": 3.5, "kad_held_out": 0.4, "clap_t": 0.2, "clap_a": 0.7}

    def scores(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        return {**planted(arm, target, seed, step), **extra}

    def columns(results: Results) -> dict[str, str]:
        return {column.metric: column.best for column in table_of(results, "3").columns}

    plain, more = (load(write_sweep(tmp_path / name, made, seeds=(0,))[0]) for name, made in (("a", planted), ("b", scores)))
    assert not set(extra) & set(columns(plain)) and set(columns(more)) - set(columns(plain)) == set(extra)
    assert {metric for metric in extra if columns(more)[metric] == "high"} == {"clap_t", "clap_a"}
    table = table_of(more, "3")
    cells = {column.metric: cell for column, cell in zip(table.columns, table.sections[0].rows[-1].cells, strict=True)}
    assert {metric: cells[metric].mean for metric in extra} == extra


def test_paper_values_are_shown_only_where_given(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,))
    page, markdown = report.build(folder, store, tmp_path / "out").read_text(), (tmp_path / "out" / "report.md").read_text()
    assert page.count("not on file") == markdown.count("not on file") == 1 and "results/synthetic/paper_values.yaml" in page
    (folder / "paper_values.yaml").write_text("3:\n  base-prior: 1.25\n  untouched: 'a / b'\n2:\n  base: {chinese_flute_v2: 7}\n")
    report.build(folder, store, tmp_path / "out")
    given = (tmp_path / "out" / "report.md").read_text()
    assert given.count("paper (audioldm2-large, other data)") == 2
    assert re.search(r"\| base-prior \|.*\| 1\.25 \|\n", given) and "| a / b |\n" in given
    assert given.count("| 7 |") == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3: {base-pror: 1}", r"paper_values\.yaml: 3\.base-pror: no such arm; nearest: base-prior"),
        ("8: {base: 1}", r"8: no such table"),
        ("3: {base: [1]}", r"3\.base=\[1\]: must be a number or a text"),
        ("- 3", "must map tables"),
    ],
)
def test_faulty_paper_values_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,))
    (folder / "paper_values.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        report.build(folder, store, tmp_path / "out")


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    def scores(arm: str, target: str, seed: int, step: int) -> dict[str, float]:
        return {**planted(arm, target, seed, step), "fad_train": float("nan")}

    with pytest.raises(ValueError, match=r"step=0\]\.metrics\.fad_train=nan: .*delete the file .*, then run the sweep again"):
        load(write_sweep(tmp_path, scores, seeds=(0,))[0])


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None])
def test_a_floor_that_is_no_number_is_refused(tmp_path: Path, value: float | None) -> None:
    folder, store = write_sweep(tmp_path, seeds=(0,))
    ledger = Ledger(folder)
    floor = ledger.baselines()["chinese_flute_v2"]
    ledger.write_baseline("chinese_flute_v2", {**floor, "metrics": {**floor["metrics"], "fad_held_out": value}})
    with pytest.raises(ValueError, match=r"baselines/chinese_flute_v2\.json: metrics\.fad_held_out=.*delete the file"):
        report.build(folder, store, tmp_path / "out")
    (folder / "baselines" / "chinese_flute_v2.json").unlink()
    report.build(folder, store, tmp_path / "out")


def test_a_report_without_its_store_says_so(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path, seeds=(0,))
    page = report.build(folder, tmp_path / "elsewhere", tmp_path / "out").read_text()
    assert "not in the store" in page and "<audio" not in page


def test_nothing_finished_yet_still_makes_a_page(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, arms=("base",), seeds=(0,), targets=("mine",))
    fail(folder, "base-mine-s0", "no clip could be read")
    page = report.build(folder, store, tmp_path / "out").read_text()
    assert "No trial has finished yet" in page and "no clip could be read" in page


def test_clips_of_a_table_have_one_level(tmp_path: Path) -> None:
    from base64 import b64decode
    from io import BytesIO

    from timbre_ray.report.listening import gather

    folder, store = write_sweep(tmp_path, seeds=(0,))
    levels = []
    for row in gather(load(folder), store)[0].rows:
        for clip in filter(None, row.clips):
            samples, _ = soundfile.read(BytesIO(b64decode((clip.uri or "").partition(",")[2])))
            levels.append(20 * np.log10(np.sqrt(np.mean(samples[800:-800] ** 2))))
    assert max(levels) - min(levels) < 0.5
    assert np.mean(levels) == pytest.approx(-20, abs=1)


def test_listening_shows_every_seed_and_the_references_once(tmp_path: Path) -> None:
    from timbre_ray.report.listening import gather

    folder, store = write_sweep(tmp_path)
    table = gather(load(folder), store)[1]
    assert table.columns == ("a recording", "untouched backbone", *ARMS)
    assert [(row.prompt, row.seed) for row in table.rows] == [(p, s) for p in ("solo", "duet", "piano") for s in (0, 1, 2)]
    assert [row.clips[0] is not None for row in table.rows] == [True] + [False] * 8
    assert [row.clips[1] is not None for row in table.rows] == [True, False, False] * 3
    assert all(clip and clip.is_arm for row in table.rows for clip in row.clips[2:])


def test_choices_of_the_blind_test_belong_to_these_clips(tmp_path: Path) -> None:
    def clips_of(folder: Path, store: Path, out: str) -> str:
        page = report.build(folder, store, tmp_path / out).read_text()
        labels = re.findall(r'<audio [^>]*aria-label="([^"]*)"', page)
        assert len(labels) == len(set(labels)), "every player has a name of its own"
        return re.findall(r'<section id="blind" data-clips="([0-9a-f]{20})"', page)[0]

    folder, store = write_sweep(tmp_path / "one", seeds=(0, 1))
    before = clips_of(folder, store, "a")
    assert clips_of(folder, store, "b") == before, "of the same clips"
    key = Ledger(folder).trials()[0]["evaluations"][-1]["audio"]["solo"]
    other, _ = write_sweep(tmp_path / "two", seeds=(0, 1))
    shutil.rmtree(tmp_path / "two" / "store" / "artifacts" / "generate" / key)
    write_clips(Store(tmp_path / "two" / "store"), "generate", key, ["clip_0000.flac"], "solo", 0.31)
    assert clips_of(other, tmp_path / "two" / "store", "c") != before


def test_a_large_sweep_says_how_much_of_it_can_be_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timbre_ray.report import listening

    folder, store = write_sweep(tmp_path)
    monkeypatch.setattr(listening, "MAX_CLIPS", 2 * 3 * len(ARMS) * 2)  # room for two seeds
    table = listening.gather(load(folder), store)[0]
    assert table.note == f"Showing 2 of 3 seeds and {len(ARMS)} of {len(ARMS)} arms."
    monkeypatch.setattr(listening, "MAX_CLIPS", 2 * 3 * 2)
    table = listening.gather(load(folder), store)[0]
    assert table.note == f"Showing 1 of 3 seeds and 2 of {len(ARMS)} arms."


def test_a_picture_of_a_tone_is_bright_at_its_pitch() -> None:
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    from timbre_ray.report.embedding import HEIGHT_PX, mel_picture_uri

    def brightest(frequency_hz: float) -> int:
        uri = mel_picture_uri(np.sin(2 * np.pi * frequency_hz * np.arange(32000) / 16000), 16000)
        shades = np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))).convert("L"))
        return int(shades.mean(1).argmax())

    assert HEIGHT_PX > brightest(200) > brightest(1000) > brightest(4000) > 0


def test_a_grid_over_other_settings_keeps_them_apart(tmp_path: Path) -> None:
    folder, _ = write_sweep(tmp_path, arms=("base",), seeds=(0,), targets=("mine",))
    ledger = Ledger(folder)
    record = ledger.trials()[0]
    ledger.write_sweep({**ledger.sweep(), "planned": 2})
    for rate in (1e-5, 1e-4):
        ledger.write_trial({**record, "trial_id": f"base-{rate}", "point": {**record["point"], "dreambooth.lr": rate}})
    (folder / "trials" / f"{record['trial_id']}.json").unlink()
    labels = ["base (dreambooth.lr=1e-05)", "base (dreambooth.lr=0.0001)"]
    ledger.write_sweep({**ledger.sweep(), "planned": ["base-1e-05", "base-0.0001"]})
    assert [arm.label for arm in load(folder).arms] == labels, "as the sweep plans them"


def test_neither_torch_nor_ray_is_imported(tmp_path: Path) -> None:
    folder, store = write_sweep(tmp_path, arms=("base",), seeds=(0,), targets=("mine",))
    code = (
        "import sys; from pathlib import Path; from timbre_ray import report; report.build(*map(Path, sys.argv[1:])); "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(store), str(tmp_path / "out")], check=True)


def test_steps_too_near_each_other_share_no_room_for_their_names() -> None:
    assert figures._tick_labels([0, 25, 300], 250) == ["0", "25", "300"]
    assert figures._tick_labels([0], 250) == ["0"]
    searched = [25, 50, 100, 128, 197, 200, 230, 238, 242, 267, 293]
    named = [label for label in figures._tick_labels(searched, 250) if label]
    assert named[0] == "25" and named[-1] == "293" and 3 < len(named) < len(searched)
    ends = [(250 * (int(n) / 293) ** 0.5, 0.55 * figures.TICK_PT * len(n) / 2) for n in named]
    assert all(right - left > a + b for (left, a), (right, b) in zip(ends, ends[1:], strict=False))


def test_arms_are_told_apart_by_colour_and_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {f"arm-{place}": ("direct", 0) for place in range(16)}
    for arm in arms:
        monkeypatch.setitem(ARMS, arm, arms[arm])
        monkeypatch.setitem(PLANTED, arm, PLANTED["base"])
    styles = figures._styles(load(write_sweep(tmp_path, seeds=(0,), targets=("mine",), arms=tuple(arms))[0]))
    assert len({(style.color, style.mark) for style in styles.values()}) == 16
    first = {style.color: style.mark for style in list(styles.values())[:7]}
    assert (list(first), list(first.values())) == (list(figures.SERIES), list(figures.MARKS)), "as ever up to seven arms"


def test_long_names_are_cut_where_they_stay_distinct() -> None:
    short = figures._short_names(["base", "base-prior", "base-teacher-mixclass-prior"])
    assert list(short.values()) == ["base", "…-prior", "…-teacher-mixclass-prior"]
    same = "x" * 60
    for names in (
        [f"{same}1{same}", f"{same}2{same}", "plain"],  # differ where the cut is, wherever it is
        [f"{same}-slow", f"{same}-fast"],
        [f"slow-{same}", f"fast-{same}"],
        [f"slowly-trained-{same}-one", f"slowly-trainer-{same}-one"],
    ):
        cut = figures._short_names(names)
        assert list(cut) == names and len(set(cut.values())) == len(names)
        assert all(len(name) <= figures.MAX_NAME for name in cut.values()), cut
    assert figures._short_names([f"{same}-slow", f"{same}-fast"])[f"{same}-slow"] == f"{'x' * 17}…{'x' * 11}-slow"


def test_the_best_of_a_column_is_the_highest_where_high_is_good() -> None:
    rows = [
        tables.Row(
            label=str(mean), kind="arm", cells=(tables.Cell(mean=mean, std=None, num_seeds=1),) * 2, num_seeds=1, num_clips="1",
            at_step="1", paper=None,
        )
        for mean in (0.2, 0.7)
    ]  # fmt: skip
    columns = tuple(tables.Column(metric=best, header=best, step=None, best=best) for best in ("low", "high"))
    marked = [[cell.is_best for cell in row.cells] for row in tables._mark_best(rows, columns)]
    assert marked == [[True, False], [False, True]]


def test_the_file_of_comparisons_has_the_corrected_p(tmp_path: Path) -> None:
    contrasts = comparisons.contrast_all(load(write_sweep(tmp_path)[0]))
    textforms.write_contrasts(contrasts, tmp_path)
    written = list(csv.DictReader((tmp_path / "comparisons.csv").open()))
    for row, contrast in zip(written, contrasts.found, strict=True):
        assert int(row["num_pairs"]) == contrast.difference.num_pairs
        assert row["p_adjusted"] == "" if contrast.p_adjusted is None else float(row["p_adjusted"]) == contrast.p_adjusted
    assert any(c.p_adjusted is not None and c.p_adjusted > c.difference.p_value for c in contrasts.found)
    assert any(c.difference.num_pairs != c.difference.num_seeds for c in contrasts.found)
