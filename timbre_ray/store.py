"""Content-addressed artifacts in a local folder: computed once, published whole, never overwritten.

With a remote tier (remote_tier.py) the folder is a node's cache: what it lacks is fetched, what it publishes is uploaded before.

    root/artifacts/<stage>/<key>/   files of a stage and ``artifact.json``; it appears by one rename, complete or not at all
    root/scratch/<stage>/<key>/     resumable checkpoints of a stage that is not published yet
    root/log/<trial>/               what each process computed or reused for a trial; lines of no trial lie in root/log/
    root/tmp/<stage>/<key>/<host>-<pid>/  what one process is writing;  root/locks/
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from timbre_ray.artifact_files import MANIFEST, NAME, damage_of, own_folder, publish, write_manifest
from timbre_ray.cache_room import make_room, note_use
from timbre_ray.object_storage import PATIENCE_S
from timbre_ray.patience import holding, patiently
from timbre_ray.specs import digest
from timbre_ray.store_log import StoreLog

if TYPE_CHECKING:
    from timbre_ray.remote_tier import RemoteTier

T = TypeVar("T")


class ArtifactNotFoundError(KeyError):
    """Nothing is published under a stage and key."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0])


class DamagedArtifactError(ValueError):
    """A published file is not what was published."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A published result."""

    folder: Path
    stage: str
    key: str
    seconds: float
    """Time that computing it took, whoever did."""
    reused: bool
    """True if it was there already when it was asked for."""

    def file(self, name: str) -> Path:
        """Path of one file of the artifact. Raises FileNotFoundError with the names that are there."""
        path = self.folder / name
        if not path.is_file():
            there = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"nearest: {near[0]}" if near else f"it holds {', '.join(there)}"
            raise FileNotFoundError(f"{self.folder}: artifact {self.stage}/{self.key} has no file {name!r}; {hint}")
        return path


class Store:
    """Artifacts under one root folder. Any number of processes may share it; one Store object serves one trial at a time.

    A disk that fails as one that may come back is waited for, ``patience_s`` at most; then StorageError names it.
    """

    def __init__(self, root: Path | str, remote: RemoteTier | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self.root = Path(root).expanduser().resolve()  # the working folder may change later
        self.remote, self._patience_s = remote, patience_s
        self.trial: str | None = None
        """Trial that the lines of the log are attributed to; see attributed_to."""
        self.while_waiting: Callable[[], None] = lambda: None
        """Called while another process is at what this one needs."""
        self._given: set[tuple[str, str]] = set()
        """Stage and key of what this trial was given."""
        self._log = StoreLog(self.root / "log")

    @property
    def place(self) -> str:
        """Where its results lie for good: the URL, or the folder."""
        return self.remote.storage.url if self.remote else str(self.root)

    def get_or_compute(
        self, stage: str, key: str, produce: Callable[[Path], None], *, description: Mapping[str, Any]
    ) -> Artifact:
        """The artifact, computed by ``produce(folder)`` unless it is published already.

        When two processes ask at once, one computes and the other waits for it; of two hosts with a remote tier too. If
        ``produce`` raises, nothing is published, its folder is removed and the error goes on; the scratch folder stays, so
        that the next try resumes. A damaged artifact is taken away and computed again. Where the disk fails in between,
        ``produce`` may be called again.
        """

        def found_or_made() -> Artifact:
            with contextlib.suppress(ArtifactNotFoundError, DamagedArtifactError):
                return self._get(stage, key)
            with self.holding(stage, key), self._lease(stage, key):
                with contextlib.suppress(ArtifactNotFoundError, DamagedArtifactError):
                    return self._get(stage, key)
                self._take_away(stage, key)
                with contextlib.suppress(ArtifactNotFoundError):
                    return self._get(stage, key)  # damaged here alone: behind the remote tier it is whole
                return self._compute(stage, key, produce, description)

        artifact = self.patiently(f"keep {stage}/{key}", found_or_made)
        self.patiently("write the log", lambda: self._record("reused" if artifact.reused else "computed", artifact))
        return artifact

    def _lease(self, stage: str, key: str) -> AbstractContextManager[None]:
        """Of the remote tier, if there is one."""
        if self.remote is None:
            return contextlib.nullcontext()
        return self.remote.lease(stage, key, lambda: self.while_waiting())

    def patiently(self, what: str, call: Callable[[], T]) -> T:
        """``call()``, repeated while the disk fails; ``what`` it does, in words, for the error in the end."""
        return patiently(call, place=self.root, what=what, patience_s=self._patience_s)

    def get(self, stage: str, key: str) -> Artifact:
        """A published artifact, its files as published, fetched if it lies behind the remote tier alone.

        Raises ArtifactNotFoundError (a KeyError), DamagedArtifactError or StorageError.
        """
        return self.patiently(f"read {stage}/{key}", lambda: self._get(stage, key))

    def _get(self, stage: str, key: str) -> Artifact:
        folder = self._place("artifacts", stage, key)
        if self.remote and not self._has_here(stage, key) and self.remote.has(stage, key):
            self._fetch(self.remote, stage, key)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            damage = damage_of(folder, manifest["files"])
        except FileNotFoundError:
            raise ArtifactNotFoundError(
                f"{self.place}: no artifact {stage}/{key}; it was not computed yet, or in another store (run.storage)"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            damage = f"{MANIFEST} cannot be used ({type(error).__name__}: {error})"
        if damage:
            raise DamagedArtifactError(
                f"{folder}: {damage}. It is not used. Remove the folder and run the sweep again, which computes it anew (for a "
                "finished trial only if its record in the results is removed too); `timbre-ray store verify` looks for others."
            )
        self._give(stage, key)
        if self.remote:
            note_use(folder)
        return Artifact(folder=folder, stage=stage, key=key, seconds=manifest["seconds"], reused=True)

    def description(self, stage: str, key: str) -> Mapping[str, Any]:
        """What a published artifact was said to be. Raises as ``get``."""
        return json.loads(self.get(stage, key).file(MANIFEST).read_text(encoding="utf-8"))["description"]

    def has(self, stage: str, key: str) -> bool:
        here = self.patiently(f"look up {stage}/{key}", lambda: self._has_here(stage, key))
        return here or (self.remote is not None and self.remote.has(stage, key))

    def confirm(self) -> None:
        """Raises DamagedArtifactError if something that the trial (``attributed_to``) was given is no longer whole: it may have
        been damaged before it was read, and what was made of it is not to be believed.
        """
        for stage, key in sorted(self._given):
            try:
                self.get(stage, key)
            except ArtifactNotFoundError:  # taken away as damaged, by another process
                raise DamagedArtifactError(f"{self.root}: {stage}/{key} was found damaged while it was in use") from None

    def is_whole(self, stage: str, key: str) -> bool:
        """Published, and every file as it was published."""
        try:
            self.get(stage, key)
        except (ArtifactNotFoundError, DamagedArtifactError):
            return False
        return True

    def manifests(self, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """``artifact.json`` of every published artifact, or of those of a stage: stage, key, description, seconds, created, files
        with their bytes.

        One that cannot be read is left out, as its artifact counts as damaged: `timbre-ray store verify` names it.
        """
        if self.remote:
            yield from self.remote.manifests(stage)
            return
        for path in sorted((self.root / "artifacts").glob(f"{stage or '*'}/*/{MANIFEST}")):
            try:
                manifest = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            yield manifest

    def keys(self, stage: str) -> set[str]:
        """Of the artifacts of a stage that are published, by one listing."""
        if self.remote:
            return self.remote.keys(stage)
        return {path.parent.name for path in (self.root / "artifacts" / stage).glob(f"*/{MANIFEST}")}

    def scratch(self, stage: str, key: str) -> Path:
        """Folder for the checkpoints of a stage under way. It outlives a crash and is removed once the key is published."""
        folder = self._place("scratch", stage, key)
        self.patiently(f"make {folder}", lambda: folder.mkdir(parents=True, exist_ok=True))
        return folder

    def drop_checkpoint(self, stage: str, key: str) -> None:
        """Of a stage that nobody will go on with: here, and behind the remote tier."""
        shutil.rmtree(self._place("scratch", stage, key), ignore_errors=True)
        if self.remote:
            self.remote.storage.delete(*(entry.name for entry in self.remote.storage.entries(f"checkpoints/{stage}/{key}")))

    def lock(self, stage: str, key: str) -> FileLock:
        """For work that publishes several artifacts: a context manager that one process holds at a time, freed if it dies.

        get_or_compute may be called within it, for the same key too.
        """
        path = self._place("locks", stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A singleton is re-entrant within its thread. No fallback to a soft lock: it would outlive a process that is killed.
        return FileLock(path.with_name(f"{key}.lock"), is_singleton=True, fallback_to_soft=False)

    def holding(self, stage: str, key: str) -> AbstractContextManager[None]:
        """Within the block this process holds ``lock(stage, key)``; while it waits it calls ``while_waiting``; what that
        raises ends the waiting."""
        return holding(self.lock(stage, key), lambda: self.while_waiting())

    @contextlib.contextmanager
    def holding_if_free(self, stage: str, key: str) -> Iterator[bool]:
        """As ``holding``, but False at once where another process holds it."""
        lock, is_free = self.lock(stage, key), True
        try:
            lock.acquire(timeout=0)
        except Timeout:
            is_free = False
        try:
            yield is_free
        finally:
            if is_free:
                lock.release()

    @contextlib.contextmanager
    def attributed_to(self, trial_id: str) -> Iterator[None]:
        """Within the block the lines of the log name this trial, and ``confirm`` knows what it was given."""
        before = self.trial, self._given
        self.trial, self._given = trial_id, set()
        try:
            yield
        finally:
            self.trial, self._given = before

    def log(self, trial: str | None = None) -> list[dict[str, Any]]:
        """Every event of every process, or those of one trial, oldest first: event, stage, key, seconds, time (unix), pid, trial.

        ``seconds`` is what computing the artifact took; for the event "reused" that is the time saved. A trial's own are read in
        a time that does not grow with the number of trials.
        """
        return self._log.read(trial)

    def _compute(self, stage: str, key: str, produce: Callable[[Path], None], description: Mapping[str, Any]) -> Artifact:
        published = self._place("artifacts", stage, key)
        if self.remote:
            make_room(self, self._given)
        with own_folder(self._place("tmp", stage, key)) as folder:
            started = time.perf_counter()
            produce(folder)
            seconds = round(time.perf_counter() - started, 3)
            self.confirm()
            about = {"stage": stage, "key": key, "description": dict(description), "seconds": seconds}
            # Each patient for itself: a disk that fails for a moment shall not cost what was computed.
            self.patiently(f"describe {stage}/{key}", lambda: write_manifest(folder, about))
            if self.remote and not self.remote.publish(stage, key, folder):
                shutil.rmtree(folder)  # another host was faster: its result is everybody's, as a GPU's may differ by a rounding
                folder.mkdir()
                self.remote.fetch(stage, key, folder)
            first = self.patiently(f"publish {stage}/{key}", lambda: publish(folder, published))
        shutil.rmtree(self._place("scratch", stage, key), ignore_errors=True)
        if not first:
            return self._get(stage, key)
        self._give(stage, key)
        return Artifact(folder=published, stage=stage, key=key, seconds=seconds, reused=False)

    def _fetch(self, remote: RemoteTier, stage: str, key: str) -> None:
        with self.holding(stage, key):
            if self._has_here(stage, key):
                return
            make_room(self, self._given)
            with own_folder(self._place("tmp", stage, key)) as folder:
                remote.fetch(stage, key, folder)
                publish(folder, self._place("artifacts", stage, key))

    def _has_here(self, stage: str, key: str) -> bool:
        return (self._place("artifacts", stage, key) / MANIFEST).is_file()

    def _give(self, stage: str, key: str) -> None:
        if self.trial is not None:
            self._given.add((stage, key))

    def _take_away(self, stage: str, key: str) -> None:
        """Removes what is damaged, if anything is there; the caller holds the lock. Renamed first: readers see all or nothing."""
        published = self._place("artifacts", stage, key)
        if not published.exists():
            return
        with own_folder(self._place("tmp", stage, key)) as folder:
            os.rename(published, folder / "damaged")

    def _record(self, event: str, artifact: Artifact) -> None:
        about = {"event": event, "stage": artifact.stage, "key": artifact.key, "seconds": artifact.seconds}
        self._log.write(self.trial, about)

    def _place(self, kind: str, stage: str, key: str) -> Path:
        for name in (stage, key):
            assert NAME.fullmatch(name), f"{stage}/{key}: stage and key become folder names"
        return self.root / kind / stage / key


def stage_key(stage: str, version: int, spec: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """Key of a stage's result: its name, the version of its code, the part of the spec it reads, the keys of its inputs."""
    return digest({"stage": stage, "version": version, "spec": dict(spec), "inputs": list(inputs)})
