"""A trial's process that is told to leave: by SIGTERM, or because its node is drained before it goes.

A spot machine says two minutes before that it will be taken away. The trial writes its checkpoint and raises Leaving; Tune starts
it elsewhere at that step and counts no failure. What has not left when ``GRACE_S`` are over ends as Ray ends a worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import ray

from timbre_ray.leaving import Leaving

#: From the notice to the end, whatever the trial is at: two minutes are given at best.
GRACE_S = 100.0
#: From a trial that has left to the end of its process, should Tune not end it: a driver that is gone cannot.
GONE_AFTER_S = 10.0
#: How often the trial's process asks whether its node is drained.
ASKED_EVERY_S = 5.0


class Notice:
    """Given to a process once; trials look at it as they go."""

    def __init__(self) -> None:
        self._given = threading.Event()
        self._trial_runs = False
        self._reason = ""

    def give(self, reason: str) -> None:
        self._reason = reason
        self._given.set()

    def check(self) -> None:
        """Raises Leaving once the notice is given."""
        if self._given.is_set():
            raise Leaving(self._reason)

    def take_signals(self) -> None:
        """SIGTERM becomes a notice while a trial runs; the second one, and any other, is Ray's. For the main thread."""
        ends = signal.getsignal(signal.SIGTERM)

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._trial_runs and not self._given.is_set():
                self.give("its process got SIGTERM")
                _signal_after(GRACE_S)
            elif callable(ends):
                ends(number, frame)

        signal.signal(signal.SIGTERM, on_signal)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around a trial: within it a signal or a drained node is a notice."""
        done = threading.Event()
        threading.Thread(target=self._watch_node, args=(done,), name="notice", daemon=True).start()
        self._trial_runs = True
        try:
            yield
        except Leaving:
            _signal_after(GONE_AFTER_S)
            raise
        finally:
            self._trial_runs = False
            done.set()

    def _watch_node(self, done: threading.Event) -> None:
        own = ray.get_runtime_context().get_node_id()
        while not done.wait(ASKED_EVERY_S):
            with contextlib.suppress(Exception):  # a control plane that does not answer is no notice
                if own in draining_nodes():
                    self.give("its node is being drained")
                    return


#: Of this process, as its signals are.
NOTICE = Notice()


class LeavesWhenTold:
    """Mixed into Tune's trainable, whose ``setup`` runs in the main thread: no other may take a signal."""

    def setup(self, config: dict[str, Any]) -> None:
        NOTICE.take_signals()
        super().setup(config)  # type: ignore[misc]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Raises where Tune's own returns False: Tune would end the next trial without a word to callbacks and searcher."""
        if not super().reset_config(new_config):  # type: ignore[misc]
            waited_s = os.environ.get("TUNE_FUNCTION_THREAD_TIMEOUT_S")
            raise RuntimeError(
                f"its process could not be used: the trial before it has not ended for {waited_s} s after it was stopped. "
                "The same command runs it again"
            )
        return True


def draining_nodes() -> dict[str, int]:
    """Id of each node that will go -> when, in ms. Ray's own libraries ask it so; there is no public way yet."""
    return ray._private.state.state.get_draining_nodes()


def _signal_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
