"""The benchmarks' own parts, and the guard: what the tables promise holds within a margin at a reduced size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import ablation, command_line, generation, overhead, rows, scoring, teacher, training_step, whole
from benchmarks.gpu import shared
from benchmarks.measure import Figure, Row, in_turns, speedup


def test_sides_take_turns_and_ratios_are_of_neighbours() -> None:
    order: list[str] = []

    def side(name: str, seconds: list[float]) -> float:
        order.append(name)
        return seconds.pop(0)

    ours, theirs = [1.0, 2.0, 4.0], [3.0, 4.0, 40.0]
    times = in_turns(lambda: side("ours", ours), lambda: side("theirs", theirs), 3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    figure = speedup("x", *times, goal=3.0)
    assert figure.values == (3.0, 2.0, 10.0) and figure.median == 3.0 and figure.met
    assert not dataclasses.replace(figure, goal=3.5).met and dataclasses.replace(figure, bound="at most").met
    assert dataclasses.replace(figure, goal=None).met is None


def test_a_failing_row_says_so_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(repeats: int) -> list[Figure]:
        raise ValueError("no | sound")

    late = Figure(name="y", values=(1.0,), unit="s", goal=0.5, bound="at most")
    fine = [Figure(name="x", values=(2.0, 3.0, 2.5), goal=2.0), late]
    found = {
        "generation": Row(name="generation", title="Broken", setup="s", measure=broken),
        "scoring": Row(name="scoring", title="Fine", setup="s", measure=lambda repeats: fine),
        "shared-gpu": rows.load("shared-gpu"),
    }
    monkeypatch.setattr(rows, "load", found.get)
    monkeypatch.setattr(command, "run_row", command.measured)  # in this process
    monkeypatch.setattr("sys.argv", ["benchmarks", "--out", str(tmp_path), *found])
    assert command.main() == 1
    assert "in broken" in json.loads((tmp_path / "generation.json").read_text())["traceback"]
    text = (tmp_path / "README.md").read_text()
    assert "| Broken | | failed: ValueError: no / sound | | |" in text
    assert "| Fine: x | at least 2 | **2.5 (2 to 3)** | 3 | measured |" in text
    assert "| Fine: y | at most 0.5 s | 1 s, missed | 1 | measured |" in text
    assert "| 4 LoRA arms on one GPU, audioldm2-large | | not measured: no GPU at hand | | |" in text


def test_every_row_of_the_table_is_there() -> None:
    assert all(rows.load(name).name == name for name in rows.MODULES)


# -- the guard: at least so much of each ratio, whatever the machine -------------------------------------------------------------

REPEATS = 3


def ratio(figures: list[Figure]) -> float:
    return figures[0].median


@pytest.mark.slow
def test_a_training_step_is_faster_than_item_by_item() -> None:
    figures = training_step.measure(REPEATS)
    assert ratio(figures) > 1.2
    memory = next(figure for figure in figures if figure.name.startswith("peak resident memory, one clip"))
    assert memory.median < 1.05


@pytest.mark.slow
def test_the_ablation_shares_its_work() -> None:
    measured, *_ = figures = ablation.measure(1, num_arms=3, num_seeds=2)
    assert measured.median > 1.3
    curve = [figure for figure in figures if figure.kind == "computed"]
    assert len(curve) == 3 and all(figure.median >= 1 for figure in curve)


@pytest.mark.slow
def test_a_sweep_finds_what_the_scripts_find() -> None:
    """At this size Ray's start counts for more than the work: no word on speed."""
    _, _, difference = whole.measure(1, num_seeds=1, num_arms=2, size=whole.Size(epochs=2, at_steps=(0, 2), num_clips=2))
    assert 0 < difference.median < 1e-3


@pytest.mark.slow
def test_a_sweeps_own_time_is_bounded() -> None:
    own = next(figure for figure in overhead.measure(1) if figure.name == "a sweep's own time")
    assert own.median < 120


@pytest.mark.slow
def test_the_command_line_answers_without_torch() -> None:
    for words, _ in command_line.COMMANDS.values():
        modules = command_line.imported(words)
        assert "timbre_ray.cli" in modules and not {"torch", "ray", "transformers"} & {m.partition(".")[0] for m in modules}


@pytest.mark.slow
def test_generation_is_faster_than_a_call_a_clip() -> None:
    assert ratio(generation.measure(REPEATS)) > 1.2


@pytest.mark.slow
def test_scoring_is_faster_than_file_by_file() -> None:
    speed, difference = scoring.measure(REPEATS, num_models=4)
    assert speed.median > 1.2 and difference.median <= 1e-4


@pytest.mark.slow
def test_teacher_forcing_is_faster_than_item_by_item() -> None:
    spec = dataclasses.replace(teacher.SPEC, epochs=6)
    speed, difference = teacher.measure(REPEATS, spec)
    assert speed.median > 4 and difference.median <= 1e-3


@pytest.mark.slow
def test_lora_arms_share_their_base() -> None:
    throughput, memory, _ = shared.MINI.measure(REPEATS)
    assert throughput.median > 1.2 and memory.median < 0.5
