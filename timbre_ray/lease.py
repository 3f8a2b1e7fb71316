"""A name below a URL that one process holds at a time: renewed while it lives, free soon after it died. Standard library only."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from timbre_ray.object_storage import NoObjectError, ObjectStorage, StorageError

RENEWED_EVERY_S = 20.0
#: A lease that did not change for so long belongs to a process that is gone. Watched by the waiting process's own clock.
LOST_AFTER_S = 90.0
POLL_S = 2.0


class Lease:
    """Two may hold it after all, where one of them could not reach the URL for long: the first learns of it by ``lost``."""

    def __init__(self, storage: ObjectStorage, name: str, **holder: str) -> None:
        """holder: in words, for those who find it taken."""
        self._storage, self._name = storage, name
        self._holder = {**holder, "lease": uuid.uuid4().hex}
        self.lost = False
        """Another took it, because this one was not renewed in time."""

    def take(self, stop: Callable[[Mapping[str, Any], bool], bool]) -> bool:
        """Waits until it is free, or whoever holds it is gone.

        stop: asked at each look with the holder and whether it has renewed the lease since the first look; True ends the wait,
        and the lease is not taken.
        """
        seen, since = b"", time.monotonic()
        while not self._storage.create(self._name, self._stamp()):
            with contextlib.suppress(NoObjectError):  # just given back
                now = self._storage.read(self._name)
                if stop(_holder(now), bool(seen) and now != seen):
                    return False
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > LOST_AFTER_S:
                    self._storage.delete(self._name)
                    continue
            time.sleep(POLL_S)
        return True

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block it is renewed; after it, given back."""
        done = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(done,), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            done.set()
            renewal.join()
            if not self.lost:
                with contextlib.suppress(StorageError):  # it runs out by itself
                    self._storage.delete(self._name)

    def _renew(self, done: threading.Event) -> None:
        while not done.wait(RENEWED_EVERY_S):
            with contextlib.suppress(StorageError):
                if self._taken_away():
                    self.lost = True
                    return
                self._storage.write(self._name, self._stamp())

    def _taken_away(self) -> bool:
        try:
            return _holder(self._storage.read(self._name)).get("lease") != self._holder["lease"]
        except NoObjectError:  # who takes it away puts its own there at once, or finds ours
            return False

    def _stamp(self) -> bytes:
        """Another at each renewal, so that who waits sees that the holder lives."""
        return json.dumps({**self._holder, "nonce": uuid.uuid4().hex}).encode()


def _holder(stamp: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(stamp)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}
