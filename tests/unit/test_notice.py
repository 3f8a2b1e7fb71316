"""What SIGTERM means to a trial's process: a notice while a trial runs, the end otherwise, and when the time is over."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import ray
from ray.tune.trainable.function_trainable import wrap_function

from timbre_ray.cluster import notice
from timbre_ray.cluster.trainable import tune_function
from timbre_ray.leaving import Leaving

#: Ray's own handler is a line that says so; ``steps`` is what the trial does once it runs.
CODE = """
import os, signal, sys, time
from timbre_ray.cluster import notice
from timbre_ray.leaving import Leaving

notice.GONE_AFTER_S = 1.0
notice.Notice._watch_node = lambda self, done: None  # there is no Ray here

def ends(number, frame):
    print("ended by Ray")
    sys.exit(1)

def told():
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, ends)
here = notice.Notice()
here.take_signals()
{steps}
"""


@pytest.mark.parametrize(
    ("steps", "printed"),
    [
        ("told()", "ended by Ray\n"),
        ("with here.watched():\n    pass\ntold()", "ended by Ray\n"),
        ("with here.watched():\n    told()\n    print('works on')\n    told()", "works on\nended by Ray\n"),
        ("notice.GRACE_S = 1.0\nwith here.watched():\n    told()\n    time.sleep(60)", "ended by Ray\n"),  # it never looked
        (
            "try:\n    with here.watched():\n        here.check()\n        told()\n        here.check()\n"
            "except Leaving as leaving:\n    print(leaving)\ntime.sleep(60)",
            "its process got SIGTERM\nended by Ray\n",  # nobody else ends it
        ),
    ],
)
def test_a_signal_is_a_notice_while_a_trial_runs(steps: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-c", CODE.format(steps=steps)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout, done.returncode) == (printed, 1), done.stderr


def test_a_drained_node_is_a_notice_and_others_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "ASKED_EVERY_S", 0.01)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    answers = iter([ConnectionError("no control plane"), {"other": 0}, {"mine": 0, "other": 0}])
    asked = []

    def draining_nodes() -> dict[str, int]:
        asked.append(next(answers))
        if isinstance(asked[-1], Exception):
            raise asked[-1]
        return asked[-1]

    monkeypatch.setattr(notice, "draining_nodes", draining_nodes)
    here = notice.Notice()
    here.check()
    here._watch_node(threading.Event())
    assert len(asked) == 3
    with pytest.raises(Leaving, match="its node is being drained"):
        here.check()


def test_the_process_of_a_trial_takes_signals_before_tune_sets_it_up() -> None:
    trainable = wrap_function(tune_function(None))
    assert issubclass(trainable, notice.LeavesWhenTold) and trainable.setup is notice.LeavesWhenTold.setup
