"""A folder that all nodes of a cluster must see as one: it carries an id, and who finds another or none has a disk of its own."""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from pathlib import Path

from timbre_ray.object_storage import StorageError
from timbre_ray.patience import patiently

ID_FILE = ".timbre-ray-disk"


class DiskNotSharedError(RuntimeError):
    """A node does not see a folder that the driver wrote to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedDisk:
    """A folder and the id that the driver found or wrote in it."""

    key: str
    """The setting that names it, for messages: ``run.storage`` or ``run.results``."""
    folder: Path
    """Absolute."""
    id: str

    @classmethod
    def of(cls, key: str, folder: Path) -> SharedDisk:
        """For the driver: reads the folder's id, or gives it one. Two drivers at once agree on the id of the faster."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ID_FILE
        if not path.is_file():
            draft = folder / f"{ID_FILE}.{uuid.uuid4().hex}"
            draft.write_text(uuid.uuid4().hex, encoding="utf-8")
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return cls(key=key, folder=folder, id=path.read_text(encoding="utf-8"))

    def check(self, *, patience_s: float = 0.0) -> None:
        """For any node. Raises DiskNotSharedError naming this node, the folder and the remedy: at once where nothing is mounted,
        or something else, and ``patience_s`` after it began where the disk fails in a way that may pass."""
        path = self.folder / ID_FILE
        try:
            found = patiently(
                lambda: path.read_text(encoding="utf-8"), place=self.folder, what=f"read {ID_FILE}", patience_s=patience_s
            )
        except OSError as error:
            cause = error.__cause__ if isinstance(error, StorageError) else error
            waited = f", for {patience_s:g} s" if cause is not error and patience_s else ""
            raise self.not_shared(f"cannot read {ID_FILE} there ({getattr(cause, 'strerror', cause)}{waited})") from None
        if found != self.id:
            raise self.not_shared("finds another folder under that path")

    def not_shared(self, what: str) -> DiskNotSharedError:
        return DiskNotSharedError(
            f"{self.key}={str(self.folder)!r}: node {socket.gethostname()} {what}. Every node must see one shared folder there: "
            "mount it on that node, or name a shared one"
        )
