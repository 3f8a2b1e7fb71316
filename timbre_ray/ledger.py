"""results/<sweep>/: one JSON record a trial, a baseline a target, the sweep; and what an edited sweep keeps, adds and drops.

    sweep.json   trials/<trial_id>.json   baselines/<target>.json

Every file is replaced by one rename, so that a reader never sees half of it. With a mirror every record is written there too, one
object a record, so that nodes without a common disk keep one ledger.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from timbre_ray.durable import replace
from timbre_ray.object_storage import PATIENCE_S, NoObjectError, ObjectStorage, is_url
from timbre_ray.patience import patiently

if TYPE_CHECKING:  # reading records must not cost the time of importing pydantic
    from timbre_ray.sweep import PlannedTrial

#: What a sweep may be called: it names folders and objects.
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_NUM_TRANSFERS = 16
"""At once, of a mirror's records: one after the other, ten thousand take minutes."""


def short_name(trial_id: str) -> str:
    """The end of a trial's id, by which reports call a search's: its settings, as long as a line each, stand in a table."""
    return trial_id.rsplit("-", 1)[-1]


def common_partner(names: Iterable[str]) -> str:
    """What to call the known instrument whose survival trials measure: its name, or "partner" where they differ."""
    found = set(names)
    return found.pop() if len(found) == 1 else "partner"


def partner_of(records: Iterable[Mapping[str, Any]]) -> str:
    """The same from the specs in trials' records."""
    specs = (record.get("spec") or {} for record in records)
    return common_partner(str(spec.get("clips", {}).get("partner", "partner")) for spec in specs)


def is_stopped_early(record: Mapping[str, Any]) -> bool:
    """ASHA ended this finished trial before its last step."""
    return record["status"] == "finished" and bool(record.get("stopped_early"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """A sweep against its ledger. Every planned trial is in exactly one of keep, run and changed."""

    keep: tuple[PlannedTrial, ...]
    """Finished under the same key."""
    run: tuple[PlannedTrial, ...]
    """New, unfinished or failed."""
    changed: tuple[PlannedTrial, ...]
    """To run as well: the ledger holds the same arm and grid point under another key (its spec was edited)."""
    superseded: tuple[str, ...]
    """Trial ids of records at the arm and grid point of a planned trial, under another key."""
    orphaned: tuple[str, ...]
    """Trial ids of the records that nothing planned corresponds to."""


class Ledger:
    """The records of one sweep. A disk that fails as one that may come back is waited for, as the store's is."""

    def __init__(self, folder: Path | str, mirror: ObjectStorage | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self.folder, self._mirror, self._patience_s = Path(folder), mirror, patience_s

    @classmethod
    def of(cls, folder: Path, storage: str | Path | None, *, patience_s: float = PATIENCE_S) -> Ledger:
        """The ledger in ``folder``, mirrored below ``storage`` where that is a URL."""
        mirror = mirror_of(str(storage), folder.name, patience_s=patience_s) if storage and is_url(storage) else None
        return cls(folder, mirror, patience_s=patience_s)

    def pull(self) -> set[str]:
        """Takes over every record of the mirror; returns their names."""
        if self._mirror is None:
            return set()
        names = [entry.name for entry in self._mirror.entries() if _is_record(entry.name)]
        with ThreadPoolExecutor(_NUM_TRANSFERS) as pool:
            for name, data in zip(names, pool.map(self._mirror.read, names), strict=True):
                replace(self.folder / name, data, sync=False)
        return set(names)

    def sync(self) -> None:
        """Pulls, and gives the mirror what it lacks: records of runs before there was one, and of trials that finished while
        it could not be reached."""
        if self._mirror is None:
            return
        finished = []
        for path in (self.folder / "trials").glob("*.json"):
            with contextlib.suppress(ValueError):  # a copy that a loss of power has spoilt: the mirror has it
                finished += [record for record in [self._read(path)] if record["status"] == "finished"]
        there = self.pull()
        for record in finished:
            current = self._read(self._path("trials", record["trial_id"]))
            if current["status"] != "finished" and current.get("trial_key") == record.get("trial_key"):
                self.write_trial(record)
        for path in (self.folder / "sweep.json", *self.folder.glob("trials/*.json"), *self.folder.glob("baselines/*.json")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in there:
                self._mirror.write(name, path.read_bytes())

    def write_trial(self, record: Mapping[str, Any]) -> None:
        self._write(self._path("trials", record["trial_id"]), record)

    def trials(self) -> list[dict[str, Any]]:
        """Every record, by trial id; those that are no longer planned carry ``"orphaned": true``."""
        return [self._read(path) for path in sorted((self.folder / "trials").glob("*.json"))]

    def trial(self, trial_id: str) -> dict[str, Any] | None:
        path = self._path("trials", trial_id)
        if self._mirror:
            with contextlib.suppress(NoObjectError):  # another node may have written it
                replace(path, self._mirror.read(path.relative_to(self.folder).as_posix()), sync=False)
        try:
            return self._read(path)
        except FileNotFoundError:
            return None

    def write_baseline(self, target: str, record: Mapping[str, Any]) -> None:
        self._write(self._path("baselines", target), {**record, "target": target})

    def baselines(self) -> dict[str, dict[str, Any]]:
        """Target -> its record."""
        records = [self._read(path) for path in sorted((self.folder / "baselines").glob("*.json"))]
        return {record["target"]: record for record in records}

    def write_sweep(self, record: Mapping[str, Any]) -> None:
        self._write(self.folder / "sweep.json", record)

    def sweep(self) -> dict[str, Any]:
        """What write_sweep wrote. Raises FileNotFoundError with the remedy."""
        path = self.folder / "sweep.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no sweep was run into this folder; run it first, or give the folder of its results")
        return self._read(path)

    def difference(self, planned: Iterable[PlannedTrial]) -> Difference:
        """Compares; changes nothing on disk (see ``mark``)."""
        planned, records = tuple(planned), {record["trial_id"]: record for record in self.trials()}
        planned_ids = {trial.trial_id for trial in planned}
        planned_places = {_place(trial.arm, trial.point) for trial in planned}
        idle = {name: _place(record["arm"], record["point"]) for name, record in records.items() if name not in planned_ids}
        idle_places, keep, run, changed = set(idle.values()), [], [], []
        for trial in planned:
            record = records.get(trial.trial_id)
            if record and record["trial_key"] == trial.key and record["status"] == "finished":
                keep.append(trial)
            else:
                edited = record is None and _place(trial.arm, trial.point) in idle_places
                (changed if edited else run).append(trial)
        return Difference(
            keep=tuple(keep),
            run=tuple(run),
            changed=tuple(changed),
            superseded=tuple(name for name, place in idle.items() if place in planned_places),
            orphaned=tuple(name for name, place in idle.items() if place not in planned_places),
        )

    def mark(self, difference: Difference) -> None:
        """Writes ``orphaned`` into the records, so that reports leave out what is not planned; what is planned again comes back.

        For the driver, before it starts trials: two writers of one record would overwrite each other.
        """
        idle = {*difference.superseded, *difference.orphaned}
        for record in self.trials():
            orphaned = record["trial_id"] in idle
            if record.get("orphaned", False) != orphaned:
                self.write_trial({**record, "orphaned": orphaned})

    def _write(self, path: Path, record: Mapping[str, Any]) -> None:
        data = json.dumps(record, indent=1).encode()
        patiently(lambda: replace(path, data), place=self.folder, what=f"write {path.name}", patience_s=self._patience_s)
        if self._mirror:
            self._mirror.write(path.relative_to(self.folder).as_posix(), data)

    def _read(self, path: Path) -> dict[str, Any]:
        return patiently(lambda: _read(path), place=self.folder, what=f"read {path.name}", patience_s=self._patience_s)

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{quote(name, safe=' ')}.json"


def mirror_of(url: str, name: str, *, patience_s: float = PATIENCE_S) -> ObjectStorage:
    """Where the records of a sweep of that name lie below a store's URL."""
    return ObjectStorage(url, patience_s=patience_s).below(f"results/{quote(name)}")


def _place(arm: str, point: Mapping[str, Any]) -> str:
    """Arm and grid point: what a trial is called, whatever its spec says."""
    return json.dumps([arm, point], sort_keys=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a record of timbre-ray ({error}); delete the file, its trial will run again") from None


def _is_record(name: str) -> bool:
    """What a mirror may put into the folder."""
    kind, _, file = name.partition("/")
    return name == "sweep.json" or (kind in ("trials", "baselines") and "/" not in file and file.endswith(".json"))
