"""A store behind a URL: every artifact that a node publishes lies there too, and a node that lacks one fetches it.

    URL/payload/<stage>/<key>/<writer>/...      files of a stage; garbage until an artifact.json names their writer
    URL/artifacts/<stage>/<key>/artifact.json   written last, by one conditional PUT: the first writer's result is everybody's
    URL/leases/<stage>/<key>                    a host computes this; renewed while it does
    URL/checkpoints/<stage>/<key>/<step>.pt     of a training under way (resumable.py)
    URL/results/<sweep>/...                     the ledger, and the lease of the driver that runs the sweep

The folder of each node (``run.cache``) is a store as on one machine; to this one it only adds what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from timbre_ray.artifact_files import MANIFEST
from timbre_ray.lease import Lease
from timbre_ray.object_storage import NoObjectError, ObjectStorage, check_place, folder_of, is_url
from timbre_ray.store import Store

DEFAULT_CACHE = "~/.cache/timbre-ray"
_NUM_TRANSFERS = 8


class CorruptArtifactError(ValueError):
    """What storage holds is not what was put there; the message names the object and the remedy."""


def open_store(storage: str | Path, cache: str = DEFAULT_CACHE) -> Store:
    """The store in a folder; behind a URL the store in this node's cache of it."""
    remote = RemoteTier(ObjectStorage(str(storage))) if is_url(storage) else None
    return Store(local_root(storage, cache), remote)


def local_root(storage: str | Path, cache: str = DEFAULT_CACHE) -> Path:
    """The folder that a node works in; one of its own for each URL."""
    check_place(str(storage), key="run.storage")
    return cache_of(str(storage), cache).expanduser() if is_url(storage) else folder_of(storage)


def cache_of(url: str, cache: str) -> Path:
    """As ``run.cache`` has it, ``~`` and all: that is another folder on each node."""
    url = url.rstrip("/")
    bucket = url.partition("://")[2].split("/")[0]
    return Path(cache) / f"{bucket}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


class RemoteTier:
    """Artifacts below a URL, for Store."""

    def __init__(self, storage: ObjectStorage) -> None:
        self.storage = storage

    def has(self, stage: str, key: str) -> bool:
        return self.storage.exists(_manifest_name(stage, key))

    def publish(self, stage: str, key: str, folder: Path) -> bool:
        """Uploads a whole folder with its artifact.json; False if another host was first: then nothing of this one stays."""
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        writer = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        names = {name: f"{_payload_name(stage, key, writer)}/{name}" for name in manifest["files"]}
        with ThreadPoolExecutor(_NUM_TRANSFERS) as pool:
            list(pool.map(lambda name: self.storage.upload(names[name], folder / name), names))
        entry = json.dumps({**manifest, "payload": writer}, indent=1).encode()
        # A PUT that was repeated after a lost answer finds its own object there: what counts is whose payload it names.
        first = self.storage.create(_manifest_name(stage, key), entry) or self.manifest(stage, key)["payload"] == writer
        if not first:
            self.storage.delete(*names.values())
        return first

    def fetch(self, stage: str, key: str, folder: Path) -> None:
        """Downloads an artifact into ``folder``, its artifact.json last. Raises CorruptArtifactError, and NoObjectError."""
        manifest = self.manifest(stage, key)
        with ThreadPoolExecutor(_NUM_TRANSFERS) as pool:
            problems = [p for p in pool.map(lambda name: self._checked(manifest, name, folder), manifest["files"]) if p]
        if problems:
            raise CorruptArtifactError(f"{'; '.join(problems)}. {self.remedy(stage, key)}")
        del manifest["payload"]
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def problems(self, manifest: dict[str, Any]) -> list[str]:
        """What is wrong with an artifact's files: all are read again."""
        with ThreadPoolExecutor(_NUM_TRANSFERS) as pool:
            return [p for p in pool.map(lambda name: self._checked(manifest, name, None), manifest["files"]) if p]

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """artifact.json as it lies there, checked for what is read of it."""
        name = _manifest_name(stage, key)
        try:
            manifest = json.loads(self.storage.read(name))
            names = [str(manifest["payload"]), *manifest["files"]]
            unsafe = [one for one in names if PurePosixPath(one).is_absolute() or {"..", "."} & set(one.split("/"))]
            wrong = (manifest["stage"], manifest["key"]) != (stage, key)
            [(entry["sha256"], int(entry["bytes"])) for entry in manifest["files"].values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptArtifactError(
                f"{self.storage.url}/{name}: cannot be used ({type(error).__name__}: {error}). {self.remedy(stage, key)}"
            ) from None
        if unsafe or wrong:
            what = f"{unsafe[0]!r} leads out of the artifact's folder" if unsafe else "is that of another artifact"
            raise CorruptArtifactError(f"{self.storage.url}/{name}: {what}; nothing of it was read. {self.remedy(stage, key)}")
        return manifest

    def manifests(self, stage: str | None = None) -> Iterator[dict[str, Any]]:
        """artifact.json of every published artifact, or of those of a stage; without those that cannot be used, or went since."""

        def found(place: tuple[str, str]) -> dict[str, Any] | None:
            with contextlib.suppress(CorruptArtifactError, NoObjectError):
                return self.manifest(*place)
            return None

        places = [place for place in self.places() if stage in (None, place[0])]
        with ThreadPoolExecutor(_NUM_TRANSFERS) as pool:
            yield from (manifest for manifest in pool.map(found, places) if manifest)

    def places(self) -> list[tuple[str, str]]:
        """(stage, key) of every published artifact."""
        names = (entry.name.split("/") for entry in self.storage.entries("artifacts"))
        return sorted((parts[1], parts[2]) for parts in names if len(parts) == 4 and parts[3] == MANIFEST)

    def keys(self, stage: str) -> set[str]:
        names = (entry.name.split("/") for entry in self.storage.entries(f"artifacts/{stage}"))
        return {parts[2] for parts in names if len(parts) == 4 and parts[3] == MANIFEST}

    def remedy(self, stage: str, key: str) -> str:
        return f"Remove {self.storage.url}/{_manifest_name(stage, key)}: the next run computes the artifact again"

    @contextlib.contextmanager
    def lease(self, stage: str, key: str, while_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Waits until no other host computes this, or its result is there. A convenience: two who compute it do no harm.

        while_waiting: called at each look; what it raises ends the waiting.
        """
        lease = Lease(self.storage, f"leases/{stage}/{key}", host=socket.gethostname())

        def stop(holder: Mapping[str, Any], renewed: bool) -> bool:
            while_waiting()
            return self.has(stage, key)

        if lease.take(stop):
            with lease.kept():
                yield
        else:
            yield

    def _checked(self, manifest: dict[str, Any], name: str, folder: Path | None) -> str | None:
        """Reads one file, into ``folder`` if there is one; what is wrong with it."""
        place = f"{_payload_name(manifest['stage'], manifest['key'], manifest['payload'])}/{name}"
        path, wanted = folder / name if folder else None, manifest["files"][name]
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = self.storage.fetch(place, wanted["bytes"], path)
        except NoObjectError:
            return f"{self.storage.url}/{place}: missing"
        if found == wanted["sha256"]:
            return None
        return f"{self.storage.url}/{place}: sha256 {found[:12]}... instead of {wanted['sha256'][:12]}..."


def _manifest_name(stage: str, key: str) -> str:
    return f"artifacts/{stage}/{key}/{MANIFEST}"


def _payload_name(stage: str, key: str, writer: str) -> str:
    return f"payload/{stage}/{key}/{writer}"
