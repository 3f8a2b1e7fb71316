"""The board of a running sweep, where trials do not go their usual way."""

from __future__ import annotations

import io
import json
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.trainable.metadata import _TrainingRunMetadata
from rich.console import Console

from timbre_ray.cluster import progress
from timbre_ray.cluster.board import AT_ONCE, Board
from timbre_ray.cluster.display import Display
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.progress import SweepCallback
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.search import InOrder
from timbre_ray.cluster.trainable import TrialContext, planned_record
from timbre_ray.ledger import Ledger
from timbre_ray.specs import ClipsSpec, EvaluateSpec, TrialSpec
from timbre_ray.stage_keys import StageKeys
from timbre_ray.sweep import PlannedTrial


def test_a_worker_that_dies_before_its_trial_starts_is_tried_again(tmp_path: Path) -> None:
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1)
    board.retry("tune-1", "large-gpt2-flute-s0")
    assert (board.rows["tune-1"].state, board.rows["tune-1"].retries, board.num_waiting) == ("waiting", 1, 1)
    board.start("tune-1", "large-gpt2-flute-s0", now=10.0)
    board.end("tune-1", "large-gpt2-flute-s0", "finished", now=30.0)
    assert (board.num_ended, board.seconds_left(30.0)) == (1, 0.0)
    assert "large-gpt2-flute-s0: its worker failed or was told to leave, trying again" in board.messages


def test_scores_are_told_with_the_name_of_the_partner(tmp_path: Path) -> None:
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1, partner="guitar")
    board.start("tune-1", "large-gpt2-flute-s0", now=10.0)
    board.report("tune-1", {"step": 25, "fad_held_out": 3.5, "duet_partner_rank": 2.0})
    assert board.messages[-1] == "large-gpt2-flute-s0: step 25, FAD 3.50, guitar rank 2.0"


def test_a_trial_that_hung_to_the_end_names_the_file_of_its_stack(tmp_path: Path) -> None:
    spec = TrialSpec(clips=ClipsSpec(path="flute"))
    planned = PlannedTrial(trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=spec, key="k")
    context = TrialContext(
        ledger_folder=tmp_path, worker=Worker(store_root=tmp_path, device="cpu", threads=1), functions=Functions(),
        scorers=ScorerPool([]), plan=lambda config: planned, hang_timeout_s=60.0,
    )  # fmt: skip
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1)
    dead = SimpleNamespace(
        trial_id="tune-1",
        config={},
        pickled_error_file=None,
        error_file=tmp_path / "error.txt",
        run_metadata=_TrainingRunMetadata(),
    )
    dead.error_file.write_text("the worker died")
    callback, ledger = SweepCallback(context=context, board=board), Ledger(tmp_path)
    stack = context.stack_file("a-flute-s0")
    stack.parent.mkdir()
    stack.write_text("Timeout (0:01:00)!")
    for started, message in (
        (0.0, f"no progress for 60.0 s (run.hang_timeout_s); where it hung: {stack}"),
        (4e9, "the worker died"),
    ):
        ledger.write_trial({**planned_record(planned), "status": "running", "started": started})
        callback.on_trial_error(1, [], dead)
        assert ledger.trial("a-flute-s0")["error"]["message"] == message  # a stack of an earlier run explains nothing


def test_counts_are_those_of_the_rows_whatever_way_trials_go(tmp_path: Path) -> None:
    """Kept as events come, and equal to what counting the rows gives."""
    board, draw = Board(num_trials=9, num_kept=0, progress_folder=tmp_path, concurrency=2), random.Random(0)
    took: list[float] = []
    for now in range(1, 400):
        key = f"tune-{draw.randrange(9)}"
        trial_id = f"trial-{key[-1]}" if key != "tune-8" else "trial-7"  # a search drew one point twice
        match draw.randrange(4):
            case 0:
                board.start(key, trial_id, now=float(now))
            case 1:
                board.retry(key, trial_id)
            case _:
                state = draw.choice(("finished", "stopped early", "failed"))
                board.end(key, trial_id, state, now=float(now), error="" if state != "failed" else "why")
                took += [now - board.rows[key].started] if state != "failed" else []
        rows = list(board.rows.values())
        for state in ("waiting", "running", "finished", "failed", "stopped early"):
            assert board.count(state) == sum(row.state == state for row in rows)
        assert sorted(row.trial_id for row in board.running()) == sorted(row.trial_id for row in rows if row.state == "running")
        assert board.num_ended == sum(row.ended > 0 for row in rows)
        assert board.times_ended("trial-7") == sum(row.ended > 0 for row in rows if row.trial_id == "trial-7")
        if not took:
            assert board.seconds_left(float(now)) is (None if board.running() or board.num_waiting else 0.0)
            continue
        mean = sum(took[-4:]) / len(took[-4:])
        left = [max(0.1 * mean, mean - (now - row.started)) for row in board.running()]
        at_once = max(1, min(2, len(left) + board.num_waiting))
        wanted = max([(sum(left) + board.num_waiting * mean) / at_once, *left])
        assert board.seconds_left(float(now)) == pytest.approx(wanted)


def test_trials_that_only_lack_scores_say_nothing_of_those_that_have_to_train(tmp_path: Path) -> None:
    stored = {f"{arm}-0": (arm, AT_ONCE) for arm in "ab"}
    kinds = stored | {f"{arm}-{seed}": (arm, "trains") for arm in "ab" for seed in (1, 2, 3)}
    board = Board(num_trials=8, num_kept=0, progress_folder=tmp_path, concurrency=2, kinds=kinds)

    def run(trial_id: str, begin: float, end: float) -> None:
        board.start(trial_id, trial_id, now=begin)
        board.end(trial_id, trial_id, "finished", now=end)

    run("a-0", 0, 4), run("b-0", 0, 6)
    assert board.seconds_left(10.0) is None, "nothing is known of training"
    run("a-1", 10, 110)
    assert board.seconds_left(110.0) == (2 + 3) * 100 / 2, "b is taken to last as long as a"
    run("b-1", 10, 310)
    assert board.seconds_left(310.0) == (2 * 100 + 2 * 300) / 2
    for trial_id in ("a-2", "a-3", "b-2"):
        run(trial_id, 310, 410 if trial_id[0] == "a" else 610)
    board.start("b-3", "b-3", now=610)
    assert board.seconds_left(710.0) == 200.0, "the last one is not shared by two slots"
    board.end("b-3", "b-3", "finished", now=910)
    assert board.seconds_left(910.0) == 0.0


def test_trials_start_in_the_order_of_the_plan() -> None:
    """As Ray's own scheduler has them, without a look at those that have ended."""
    trials = [SimpleNamespace(trial_id=f"t{i}", status=Trial.PENDING) for i in range(4)]
    controller = SimpleNamespace(get_trials=lambda: trials, get_live_trials=lambda: [t for t in reversed(trials) if not t.ended])
    for trial in trials:
        trial.ended = False
    ours, rays = InOrder(), FIFOScheduler()
    for trial in trials:
        ours.on_trial_add(controller, trial)
    for changed, status in ((0, Trial.RUNNING), (1, Trial.RUNNING), (0, Trial.TERMINATED), (1, Trial.PENDING), (1, Trial.ERROR),
                            (2, Trial.RUNNING), (3, Trial.RUNNING)):  # fmt: skip
        trials[changed].status, trials[changed].ended = status, status in (Trial.TERMINATED, Trial.ERROR)
        assert ours.choose_trial_to_run(controller) is rays.choose_trial_to_run(controller)


def test_a_driver_that_was_superseded_stops_at_tunes_next_step(tmp_path):
    def superseded() -> None:
        raise RuntimeError("another driver took this sweep over")

    context = TrialContext(
        ledger_folder=tmp_path, worker=Worker(store_root=tmp_path, device="cpu", threads=1), functions=Functions(),
        scorers=ScorerPool([]), plan=lambda config: None,
    )  # fmt: skip
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1)
    SweepCallback(context=context, board=board).on_step_begin(1, [])
    with pytest.raises(RuntimeError, match="took this sweep over"):
        SweepCallback(context=context, board=board, check_alone=superseded).on_step_begin(1, [])


def test_a_trial_that_asha_stops_leaves_no_checkpoint(tmp_path: Path) -> None:
    spec = TrialSpec(clips=ClipsSpec(path="mini:chinese_flute_v1"), evaluate=EvaluateSpec(at_steps=(0, 300)))
    planned = PlannedTrial(trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=spec, key="k")
    worker = Worker(store_root=tmp_path / "store", device="cpu", threads=1)
    context = TrialContext(
        ledger_folder=tmp_path, worker=worker, functions=Functions(), scorers=ScorerPool([]), plan=lambda config: planned
    )
    callback = SweepCallback(context=context, board=Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1))
    Ledger(tmp_path).write_trial({**planned_record(planned), "status": "running", "started": 0.0})
    other = worker.store().scratch("dreambooth", "another")
    own = worker.store().scratch("dreambooth", StageKeys(spec).dreambooth(300).key)
    (own / "resume.pt").write_bytes(b"8.6 GB at full size")
    trial = SimpleNamespace(trial_id="tune-1", config={})
    callback.on_trial_start(1, [], trial)
    callback.on_trial_result(1, [], trial, {"step": 25, "fad_held_out": 9.0})
    assert own.is_dir()
    callback.on_trial_result(2, [], trial, {"step": 50, "fad_held_out": 9.0, "done": True})
    assert not own.exists() and other.is_dir() and Ledger(tmp_path).trial("a-flute-s0")["status"] == "finished"
    own.mkdir()
    (own / "resume.pt").write_bytes(b"written while it was being stopped")
    Ledger(tmp_path).write_trial({**Ledger(tmp_path).trial("a-flute-s0"), "status": "failed"})
    callback.on_experiment_end([trial])
    assert own.is_dir(), "one that is to go on has the same training"
    Ledger(tmp_path).write_trial({**Ledger(tmp_path).trial("a-flute-s0"), "status": "finished"})
    callback.on_experiment_end([trial])
    assert not own.exists() and other.is_dir()


def test_a_worker_that_dies_after_its_trial_has_finished_takes_nothing_back(tmp_path: Path) -> None:
    planned = PlannedTrial(
        trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=TrialSpec(clips=ClipsSpec(path="flute")), key="k"
    )
    context = TrialContext(
        ledger_folder=tmp_path, worker=Worker(store_root=tmp_path, device="cpu", threads=1), functions=Functions(),
        scorers=ScorerPool([]), plan=lambda config: planned,
    )  # fmt: skip
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1)
    callback = SweepCallback(context=context, board=board)
    dead = SimpleNamespace(
        trial_id="tune-1", config={}, pickled_error_file=None, error_file=None, run_metadata=_TrainingRunMetadata()
    )
    finished = {**planned_record(planned), "status": "finished", "error": None, "evaluations": [{"step": 0}], "started": 1.0}
    Ledger(tmp_path).write_trial(finished)
    callback.on_trial_start(1, [], dead)
    callback.on_trial_error(2, [], dead)
    assert Ledger(tmp_path).trial("a-flute-s0") == finished and board.rows["tune-1"].state == "finished"
    Ledger(tmp_path).write_trial({**finished, "trial_key": "of an earlier sweep"})
    callback.on_trial_error(3, [], dead)
    record = Ledger(tmp_path).trial("a-flute-s0")
    assert (record["status"], record["trial_key"], board.rows["tune-1"].state) == ("failed", "k", "failed")


def test_a_sweep_that_finds_no_place_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    context = TrialContext(
        ledger_folder=tmp_path, worker=Worker(store_root=tmp_path, device="cpu", threads=1), functions=Functions(),
        scorers=ScorerPool([]), plan=lambda config: None,
    )  # fmt: skip
    board = Board(num_trials=2, num_kept=0, progress_folder=tmp_path, concurrency=1)
    callback = SweepCallback(context=context, board=board, why_idle=lambda: "nothing is free")
    board.start("tune-1", "a-flute-s0", now=0.0)
    now = 2 * progress.IDLE_S
    callback.on_step_begin(1, [])
    board.end("tune-1", "a-flute-s0", "finished", now=now)
    for now in (2.9 * progress.IDLE_S, 3.1 * progress.IDLE_S, 5 * progress.IDLE_S):
        callback.on_step_begin(2, [])
        assert board.notices == ["no trial has run for 5 min: nothing is free"] * (now > 3 * progress.IDLE_S)


@pytest.mark.parametrize("width", [74, 80, 120])
def test_a_narrow_terminal_keeps_every_number(tmp_path: Path, width: int) -> None:
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1, partner="piano")
    trial_id = "large-gpt2-teacher-chineseclass-prior-my_flute-s0-4397abcd"
    board.start("tune-1", trial_id, now=time.time() - 395)
    board.report("tune-1", {"step": 25, "fad_held_out": 120.256, "duet_partner_rank": 1.8})
    (tmp_path / f"{trial_id}.json").write_text(json.dumps({"stage": "dreambooth", "done": 120, "total": 300}))
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    console.print(Display(board, console, title="small").render())
    row = next(line for line in text.getvalue().splitlines() if "4397abcd" in line)
    assert all(word in row for word in ("dreambooth", "120/300", " 25 ", "120.26", "1.8", "6 min 3")), row
    assert len(row) <= width and ("…" in row) == (width < 120)
