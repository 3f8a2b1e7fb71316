"""The checkpoint of a training under way: on this node's disk, and behind the store's URL where there is one.

URL/checkpoints/<stage>/<key>/<step>.pt     the latest alone: each takes the place of those before it
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from timbre_ray.object_storage import Entry, NoObjectError, StorageError
from timbre_ray.store import Store
from timbre_ray.train import checkpoint


class Resumable:
    """For one training at a time; whoever holds it holds the training's lock."""

    def __init__(self, store: Store, stage: str, key: str) -> None:
        self.path = store.scratch(stage, key) / "resume.pt"
        self._storage = store.remote.storage if store.remote else None
        self._prefix = f"checkpoints/{stage}/{key}"
        self._uploads: ThreadPoolExecutor | None = None
        self._upload: Future[None] | None = None
        self._seen = self._version()
        self._step = 0
        """Of the checkpoint that is still to be sent; 0 if none is."""

    def take(self, useful: Callable[[int], bool]) -> int:
        """Leaves at ``path`` the checkpoint that is furthest on, whichever node wrote it; returns its step, 0 without one.

        One that is not ``useful`` is removed everywhere: the training begins anew. Raises StorageError.
        """
        here = checkpoint.reached(self.path)
        reached = self._fetch_further(here) or here
        if not useful(reached):
            self.remove()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return 0
        self._seen = self._version()
        return reached

    def mirror(self, step: int) -> None:
        """To be called after each step: takes up a checkpoint written at it. The training goes on while it is sent; a checkpoint
        written meanwhile waits for the next call."""
        if self._storage is None:
            return
        if (version := self._version()) != self._seen:
            self._seen, self._step = version, step
        if self._step and (self._upload is None or self._upload.done()):
            self._finish_upload()
            self._uploads = self._uploads or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            self._upload, self._step = self._uploads.submit(self._send, self._step), 0

    def flush(self, step: int) -> None:
        """Sends the checkpoint that was written at this step, the last one, and waits for it."""
        self._finish_upload()
        self.mirror(step)
        self._finish_upload()

    def remove(self) -> None:
        """Here and behind the URL."""
        self._finish_upload()
        shutil.rmtree(self.path.parent, ignore_errors=True)
        if self._storage:
            self._storage.delete(*(entry.name for entry in self._entries()))

    def _fetch_further(self, than: int) -> int:
        """Fetches the checkpoint behind the URL if it is further on; its step, 0 otherwise."""
        entries = self._entries()
        if not entries or _step(entries[-1]) <= than:
            return 0
        fetched = self.path.with_suffix(".fetched")
        try:
            self._storage.fetch(entries[-1].name, entries[-1].num_bytes, fetched)
            reached = checkpoint.reached(fetched)
        except NoObjectError:  # another node has just put a later one in its place, or has finished
            return 0
        except ValueError as error:
            raise ValueError(f"{self._storage.url}/{entries[-1].name}: fetched as {error}") from None
        else:
            if not reached:  # or it would stand before those that can be read
                self._storage.delete(entries[-1].name)
            if reached <= than:
                return 0
            fetched.rename(self.path)
            return reached
        finally:
            fetched.unlink(missing_ok=True)

    def _send(self, step: int) -> None:
        name = f"{self._prefix}/{step:08d}.pt"
        self._storage.upload(name, self.path)
        self._storage.delete(*(entry.name for entry in self._entries() if entry.name < name))

    def _finish_upload(self) -> None:
        """The training does without: it is safe on this node, and sent again with its next checkpoint."""
        if self._upload is None:
            return
        try:
            self._upload.result()
        except (StorageError, FileNotFoundError) as error:  # or it was cleared away before it could be sent
            warnings.warn(f"checkpoint kept on this node alone: {error}", UserWarning, stacklevel=2)
        self._upload = None

    def _entries(self) -> list[Entry]:
        """By step."""
        found = [entry for entry in self._storage.entries(self._prefix) if _step(entry)] if self._storage else []
        return sorted(found, key=lambda entry: entry.name)

    def _version(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            stat = self.path.stat()
            return stat.st_mtime_ns, stat.st_ino
        return None


def _step(entry: Entry) -> int:
    """0 for an object that is none of ours."""
    stem = Path(entry.name).stem
    return int(stem) if entry.name.endswith(".pt") and stem.isdecimal() else 0
