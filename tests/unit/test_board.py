"""The board of a running sweep, where trials do not go their usual way."""

from __future__ import annotations

from pathlib import Path

from timbre_ray.cluster.progress import Board


def test_a_worker_that_dies_before_its_trial_starts_is_tried_again(tmp_path: Path) -> None:
    board = Board(num_trials=1, num_kept=0, progress_folder=tmp_path, concurrency=1)
    board.retry("tune-1", "large-gpt2-flute-s0")
    assert (board.rows["tune-1"].state, board.rows["tune-1"].retries, board.num_waiting) == ("waiting", 1, 1)
    board.start("tune-1", "large-gpt2-flute-s0", now=10.0)
    board.end("tune-1", "large-gpt2-flute-s0", "finished", now=30.0)
    assert (board.num_ended, board.seconds_left(30.0)) == (1, 0.0)
    assert "large-gpt2-flute-s0: its worker failed, trying again" in board.messages
