"""The measurement at scale: its own parts; and, slow, the promises themselves at a size that a test can afford."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from benchmarks.scale import page, planning, records, sweeps, tuning
from benchmarks.scale.stub import METRICS, STUBS, Scored, own_seconds
from benchmarks.spot.study import study
from timbre_ray.cluster.functions import Worker
from timbre_ray.cluster.trainable import _read
from timbre_ray.store import Store
from timbre_ray.sweep import load_sweep


def test_a_sweep_has_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    sweep = load_sweep(sweeps.write(tmp_path, 100))
    assert len(sweep.trials) == 100 and len({trial.key for trial in sweep.trials}) == 100
    with pytest.raises(ValueError, match="120 trials: must be a multiple of 50"):
        sweeps.write(tmp_path, 120)


def test_the_stub_leaves_what_a_trial_leaves(tmp_path: Path) -> None:
    sweep, store = load_sweep(sweeps.write(tmp_path, 50)), Store(tmp_path / "store")
    worker, spec = Worker(store_root=store.root, device="cpu", threads=1), sweep.trials[0].spec
    found = [list(STUBS.trial(spec, worker=worker, store=store, score=Scored, on_progress=lambda p: None)) for _ in range(2)]
    assert [evaluation.step for evaluation in found[0]] == [0, 25] and set(found[0][0].metrics) == set(METRICS)
    assert [evaluation.metrics for evaluation in found[0]] == [evaluation.metrics for evaluation in found[1]]
    assert [event["event"] for event in store.log()] == ["computed"] * 2 + ["reused"] * 2
    assert own_seconds([spec]) > 0


def made_up_run(num: int, planned: int) -> dict:
    """Two at once, a trial every half a second in the first half and every second in the other; memory that does not grow."""
    ends = [0.5 * i if i <= num // 2 else 0.5 * (num // 2) + (i - num // 2) for i in range(1, num + 1)]
    samples = [{"time": end, "begun": i, "rss_mib": 500.0, "cpu_s": 0.01 * i} for i, end in enumerate(ends)]
    return {
        "planned": planned, "finished": num, "concurrent": 2, "own_s": 0.1, "wall_s": ends[-1], "finished_at_s": ends,
        "samples": samples, "workers": [{"pid": 1, "rss_mib": 200.0}] * num,
        "machine": "a machine", "date": "2026-01-01", "loads": [0.5, 2.0],
    }  # fmt: skip


def test_what_a_run_of_tune_is_summed_up_to() -> None:
    found = tuning.summary(made_up_run(100, 100))
    assert found["trial_s"] == pytest.approx(0.75) and found["overhead_s"] == pytest.approx(2 * 0.75 - 0.1)
    assert (found["early_trial_s"], found["late_trial_s"]) == (pytest.approx(0.5), pytest.approx(1.0))
    assert found["driver_cpu_s"] == pytest.approx(0.01, rel=0.05) and found["early_rss_mib"] == found["late_rss_mib"] == 500


def test_the_page_says_what_was_met_and_what_was_cut_short(tmp_path: Path) -> None:
    where = {"machine": "a machine", "date": "2026-01-01", "loads": [0.5, 7.0]}
    took = {"wall_s": 9.0, "cpu_s": 8.0, "peak_mib": 100.0}
    recorded = {
        "write_s": 1.0, "read_s": 1.0, "difference_s": 1.0, "status": took, "report": {**took, "cpu_s": 61.0}, "plan": took,
        "page_mib": 7.5, "opens_s": [2.0, 1.0, 3.0],
    }  # fmt: skip
    parts = {
        "plan-10000": {"trials": 10_000, **took, **where}, "plan-100": {"trials": 100, **took, **where},
        "records-10000": {"trials": 10_000, **recorded, **where}, "tune-10000": tuning.summary(made_up_run(700, 10_000)),
        "spot": study(num_gpus=4, days=0.1, rates=(0.0, 0.5)),
    }  # fmt: skip
    for name, content in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    text = page.write(tmp_path).read_text()
    assert "| 100 | 9.0 | 8.0 | 100 |" in text and "| 10,000 | 9.0 | 8.0 (under 10) | 100 |" in text
    assert "(a machine, 2026-01-01; load average by row: 0.5 to 7, 0.5 to 7)" in text
    assert "61.0 (**not** under 60)" in text and "| 7.5 | 2.00 (1.00 to 3.00) |" in text
    assert "ended after 9 minutes with 700 trials finished; nothing here is extrapolated" in text
    assert "**Nothing in this section was run.**" in text and "Where the stages' times come from" in text
    assert (tmp_path / "tune.svg").is_file() and (tmp_path / "spot.svg").is_file()


def test_a_worker_reads_what_trials_share_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a large sweep among it: for each trial anew it would cost a time that grows with the sweep."""
    asked = []
    monkeypatch.setattr("ray.get", lambda ref: asked.append(ref) or f"context of {ref}")
    _read.cache_clear()
    assert [_read(ref) for ref in ("one", "one", "two", "two")] == ["context of one"] * 2 + ["context of two"] * 2
    assert asked == ["one", "two"]
    _read.cache_clear()


@pytest.mark.slow
def test_ten_thousand_trials_are_planned_in_bounded_time() -> None:
    """Twice the goal, for machines differ; what grows with the square of the trials takes minutes."""
    assert planning.measure(10_000)["cpu_s"] < 20


@pytest.mark.slow
def test_a_report_over_many_trials_is_bounded() -> None:
    found = records.measure(1_000)
    assert found["report"]["cpu_s"] < 20 and found["read_s"] < 10
    assert not found["opens_s"] or statistics.median(found["opens_s"]) < 4  # two seconds on an idle machine


@pytest.mark.slow
def test_a_run_of_tune_is_measured() -> None:
    found = tuning.measure(50, 300.0)
    assert found["finished"] == 50 and 0 < found["overhead_s"] < 20 and found["samples"][-1]["begun"] == 50
