"""What every process did with a store's artifacts, a line an event: a folder for each trial, a file for each process."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote


class StoreLog:
    """Written by one process, read by any."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name, self._pid = "", 0

    def write(self, trial: str | None, event: dict[str, Any]) -> None:
        """Adds time (unix), pid and trial to ``event``."""
        if not self._name or self._pid != os.getpid():  # a forked child opens files of its own
            self._pid = os.getpid()
            self._name = f"{socket.gethostname()}-{self._pid}-{time.time_ns()}.jsonl"
        folder = self._folder / (_quoted(trial) if trial else "")
        folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({**event, "time": time.time(), "pid": self._pid, "trial": trial})
        try:
            _append(folder / self._name, line + "\n")
        except OSError:
            self._name = ""  # it may end in half a line, which nothing may follow
            raise

    def read(self, trial: str | None = None) -> list[dict[str, Any]]:
        """Every event of every process, or those of one trial, oldest first."""
        events = []
        # Beside the folders: lines of no trial and, in a store of an older version, of all.
        own = "*" if trial is None else _quoted(trial)
        for path in sorted([*self._folder.glob("*.jsonl"), *self._folder.glob(f"{own}/*.jsonl")]):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A process killed while it wrote, or a full disk, may leave half a line at the end of a file.
            events += [json.loads(line) for line in lines if line.endswith("\n")]
        return sorted((e for e in events if trial is None or e["trial"] == trial), key=lambda event: event["time"])


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _quoted(trial: str) -> str:
    """A trial as the name of a folder; no pattern of glob either."""
    return quote(trial, safe="")
