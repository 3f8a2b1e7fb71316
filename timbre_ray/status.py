"""How a sweep stands, from its ledger alone: also while it runs, from any process that sees the results' folder."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from timbre_ray.finished import fetch_results
from timbre_ray.ledger import Ledger, is_stopped_early, mirror_of, partner_of
from timbre_ray.sole_driver import is_driven

State = Literal["running", "interrupted", "finished", "stopped early", "failed"]
ORDER: tuple[State, ...] = ("running", "interrupted", "failed", "stopped early", "finished")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStatus:
    trial_id: str
    state: State
    stage: str
    """Of a running trial; with how much of it is done. Only where its worker's folder of results is seen."""
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
    partner: str
    """The known instrument whose survival is measured; "partner" where trials differ."""
    trials: tuple[TrialStatus, ...]
    """Begun and still planned; those under way first."""

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)

    @property
    def line(self) -> str:
        counts = Counter(trial.state for trial in self.trials)
        parts = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
        if self.num_planned is not None:
            num_planned = max(self.num_planned, len(self.trials))  # a search keeps its trials where num_trials was lowered
            parts.append(f"{num_planned - len(self.trials)} not begun, {num_planned} planned")
        how = "running" if self.is_running else "not running"
        return f"{self.name} ({how}): {', '.join(parts) or 'nothing begun'}"


def read_status(folder: Path, *, is_run: bool | None = None) -> SweepStatus:
    """Raises FileNotFoundError where no sweep was run into the folder.

    is_run: whether a driver is at it, for records that were fetched; None: as the folder's own lock says.
    """
    ledger, now = Ledger(folder), time.time()
    sweep, is_running = ledger.sweep(), _is_running(folder) if is_run is None else is_run
    planned = sweep.get("planned")
    names = set(planned) if isinstance(planned, list) else None
    records = [r for r in ledger.trials() if not r.get("orphaned") and (names is None or r["trial_id"] in names)]
    trials = [_trial(record, folder, is_running, now) for record in records]
    return SweepStatus(
        name=str(sweep.get("name", folder.name)),
        is_running=is_running,
        num_planned=len(planned) if isinstance(planned, list) else planned,
        partner=partner_of(records),
        trials=tuple(sorted(trials, key=lambda t: (ORDER.index(t.state), t.trial_id))),
    )


def read_status_behind(url: str, name: str) -> SweepStatus:
    """The same of results below a URL; nothing of them stays here. Raises ValueError where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        fetch_results(name, Path(folder), url)
        return read_status(Path(folder) / name, is_run=is_driven(mirror_of(url, name)))


def _is_running(folder: Path) -> bool:
    """The driver holds this lock as long as it lives; the system frees it when the driver is killed. Looked at by a reader's
    lock, as the folder may be one that one may only read."""
    try:
        file = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _trial(record: Mapping[str, Any], folder: Path, is_running: bool, now: float) -> TrialStatus:
    state: State = record["status"]
    if state == "running" and not is_running:
        state = "interrupted"
    elif is_stopped_early(record):
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
