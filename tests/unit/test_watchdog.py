"""A process that hangs ends with its stack in a file; one that goes on, or has no time-out, does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timbre_ray.run_specs import RunSpec

CODE = """
import sys, time
from pathlib import Path
from timbre_ray.cluster.watchdog import Watchdog

timeout_s, pause_s = float(sys.argv[2]) or None, float(sys.argv[3])

def stand_still():
    time.sleep(pause_s)

with Watchdog(timeout_s=timeout_s, stack_file=Path(sys.argv[1])) as watchdog:
    for _ in range(3):
        watchdog.alive()
        stand_still()
print("went on")
"""


def watched(path: Path, *, timeout_s: float, pause_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, str(path), str(timeout_s), str(pause_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_process_that_hangs_ends_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "hung" / "trial.txt"
    ended = watched(path, timeout_s=0.5, pause_s=100)
    assert ended.returncode == 1 and not ended.stdout
    assert "in stand_still" in path.read_text()


@pytest.mark.parametrize(("timeout_s", "pause_s"), [(30, 0.01), (0, 0.5)])
def test_a_process_that_goes_on_leaves_no_file(tmp_path: Path, timeout_s: float, pause_s: float) -> None:
    path = tmp_path / "hung" / "trial.txt"
    ended = watched(path, timeout_s=timeout_s, pause_s=pause_s)
    assert ended.stdout == "went on\n", ended.stderr
    assert not path.exists()


def test_a_node_without_the_folder_of_results_tells_ray(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    ended = watched(tmp_path / "results" / "hung" / "trial.txt", timeout_s=0.5, pause_s=100)
    assert ended.returncode == 1 and "in stand_still" in ended.stderr
    assert watched(tmp_path / "results" / "hung" / "trial.txt", timeout_s=30, pause_s=0.01).stdout == "went on\n"


def test_a_time_out_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hang_timeout_s=0: must be above 0; leave it out"):
        RunSpec(hang_timeout_s=0)
