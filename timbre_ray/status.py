"""How a sweep stands, from its ledger alone: also while it runs, from any process that sees the results' folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import filelock

from timbre_ray.ledger import Ledger

State = Literal["running", "interrupted", "finished", "stopped early", "failed"]
ORDER: tuple[State, ...] = ("running", "interrupted", "failed", "stopped early", "finished")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStatus:
    trial_id: str
    state: State
    stage: str
    """Of a running trial; with how much of it is done."""
    step: int | None
    """Dreambooth step of the latest scores; None before the first."""
    metrics: Mapping[str, float]
    seconds: float
    """Since its start, or what it took."""
    error: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepStatus:
    name: str
    is_running: bool
    """A process holds the sweep's lock at this moment."""
    num_planned: int | None
    trials: tuple[TrialStatus, ...]
    """Begun and still planned; those under way first."""

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)

    @property
    def line(self) -> str:
        counts = Counter(trial.state for trial in self.trials)
        parts = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
        if self.num_planned is not None:
            parts.append(f"{self.num_planned - len(self.trials)} not begun, {self.num_planned} planned")
        how = "running" if self.is_running else "not running"
        return f"{self.name} ({how}): {', '.join(parts) or 'nothing begun'}"


def read_status(folder: Path) -> SweepStatus:
    """Raises FileNotFoundError where no sweep was run into the folder."""
    ledger, now = Ledger(folder), time.time()
    sweep, is_running = ledger.sweep(), _is_running(folder)
    planned = sweep.get("planned")
    names = set(planned) if isinstance(planned, list) else None
    records = [r for r in ledger.trials() if not r.get("orphaned") and (names is None or r["trial_id"] in names)]
    trials = [_trial(record, folder, is_running, now) for record in records]
    return SweepStatus(
        name=str(sweep.get("name", folder.name)),
        is_running=is_running,
        num_planned=len(planned) if isinstance(planned, list) else planned,
        trials=tuple(sorted(trials, key=lambda t: (ORDER.index(t.state), t.trial_id))),
    )


def _is_running(folder: Path) -> bool:
    """The driver holds this lock as long as it lives; the system frees it when the driver is killed."""
    path = folder / ".lock"
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _trial(record: Mapping[str, Any], folder: Path, is_running: bool, now: float) -> TrialStatus:
    state: State = record["status"]
    if state == "running" and not is_running:
        state = "interrupted"
    elif state == "finished" and record.get("stopped_early"):
        state = "stopped early"
    last = record["evaluations"][-1] if record["evaluations"] else {}
    error = record.get("error") or {}
    return TrialStatus(
        trial_id=record["trial_id"],
        state=state,
        stage=_stage(folder / "progress" / f"{record['trial_id']}.json") if state == "running" else "",
        step=last.get("step"),
        metrics=last.get("metrics", {}),
        seconds=float(record["wall_s"] if record.get("wall_s") is not None else now - record["started"]),
        error=f"{error.get('type')} in {error.get('stage')}: {error.get('message')}" if error else "",
    )


def _stage(path: Path) -> str:
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return "starting"
    return f"{progress['stage']} {progress['done']}/{progress['total']}" if progress["total"] else str(progress["stage"])
