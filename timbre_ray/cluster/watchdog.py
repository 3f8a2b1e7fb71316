"""Ends the process of a trial that hangs, with its stack in a file: even one that holds the interpreter's lock."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from types import TracebackType


class Watchdog:
    """A context manager. ``alive`` puts the end off by ``timeout_s`` seconds; without a time-out nothing ever happens.

    A process that ends so is a dead worker to Ray: its trial is tried again.
    """

    def __init__(self, *, timeout_s: float | None, stack_file: Path) -> None:
        self._timeout_s, self._path = timeout_s, stack_file

    def __enter__(self) -> Watchdog:
        if self._timeout_s:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8")
            except OSError:  # behind a URL not every node need have the folder of results; Ray logs what goes here
                self._file = sys.stderr
            self.alive()
        return self

    def alive(self) -> None:
        if self._timeout_s:
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._timeout_s:
            faulthandler.cancel_dump_traceback_later()
            if self._file is sys.stderr:
                return
            self._file.close()
            if not self._path.stat().st_size:
                self._path.unlink()
