"""Objects below one URL (``s3://bucket/prefix``, ``gs://bucket/prefix``): bytes by name, with patience and clear errors.

Credentials come from the environment or from the machine's role, as obstore's documentation lists them; never from the URL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from timbre_ray.extras import how_to_install

SCHEMES = ("s3", "gs")
#: For how long a request that fails is repeated, with growing pauses, before it counts as failed for good.
PATIENCE_S = 120.0
#: A file is fetched in pieces, each with its own time limit and repetitions.
PIECE_BYTES = 32 * 2**20
REQUEST_TIMEOUT_S = 60
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")


class StorageError(OSError):
    """Storage refused, or did not answer for too long; the message names the URL, the operation and the reason."""


class NoObjectError(StorageError):
    """There is no object of that name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An object in a listing."""

    name: str
    num_bytes: int
    modified: float
    """Unix time, by the server's clock."""


def is_url(place: str | Path) -> bool:
    """True for storage behind a URL; a plain folder and ``file://`` are none."""
    return "://" in str(place) and not str(place).startswith("file://")


def folder_of(place: str | Path) -> Path:
    """The folder that a plain path or ``file:///path`` names."""
    return Path(unquote(urlsplit(str(place)).path)) if str(place).startswith("file://") else Path(place).expanduser()


def check_place(place: str, *, key: str) -> None:
    """Raises ValueError, without repeating a secret, unless ``place`` is a folder or a URL that can be used.

    key: the setting or option that names it, for the message.
    """
    if "://" not in place:
        return
    scheme, _, rest = place.partition("://")
    shown = f"{scheme}://{rest.split('/')[0].rpartition('@')[2].split('?')[0]}/..."
    if "@" in rest.split("/")[0] or "?" in rest or "#" in rest:
        raise ValueError(
            f"{key}={shown!r}: a URL with credentials or parameters would be kept in results and logs; give them in the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), and rotate what stood here"
        )
    if scheme == "file" and rest.startswith("/"):
        return
    if scheme not in SCHEMES or not rest.split("/")[0] or ".." in rest.split("/"):
        raise ValueError(f"{key}={place!r}: must be a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix")


class ObjectStorage:
    """What lies below a URL. Travels by pickle as its URL: each process connects with the credentials of its own machine."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        check_place(url, key="storage")
        if importlib.util.find_spec("obstore") is None:
            raise RuntimeError(f"{url}: object storage needs obstore, which is not installed: {how_to_install('s3')}")
        self.url, self._patience_s = url.rstrip("/"), patience_s
        self._api = importlib.import_module("obstore")  # an extra: sweeps on a plain folder do without it
        self._store = _connect(self.url, patience_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.url, self._patience_s)

    def below(self, prefix: str) -> ObjectStorage:
        return ObjectStorage(f"{self.url}/{prefix}", patience_s=self._patience_s)

    def exists(self, name: str) -> bool:
        try:
            with self._named("look up", name):
                self._api.head(self._store, name)
        except NoObjectError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """Raises NoObjectError where there is no such object."""
        with self._named("read", name):
            return bytes(self._api.get(self._store, name).bytes())

    def write(self, name: str, data: bytes) -> None:
        """Puts the object there, or another in its place: whole at once, as every PUT."""
        with self._named("write", name):
            self._api.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Puts the object there unless there is one (If-None-Match); False if there is."""
        try:
            with self._named("create", name):
                self._api.put(self._store, name, data, mode="create")
        except FileExistsError:
            return False
        return True

    def upload(self, name: str, path: Path) -> None:
        with self._named("upload", name):
            self._api.put(self._store, name, path)

    def fetch(self, name: str, num_bytes: int, path: Path | None) -> str:
        """Writes the first ``num_bytes`` of an object to ``path`` (None: nowhere); returns their SHA-256 in hex."""
        digest = hashlib.sha256()
        with self._named("download", name), path.open("wb") if path else contextlib.nullcontext() as file:
            for start in range(0, num_bytes, PIECE_BYTES):
                piece = self._api.get_range(self._store, name, start=start, end=min(start + PIECE_BYTES, num_bytes))
                digest.update(piece)
                if file:
                    file.write(piece)
        return digest.hexdigest()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Every object below a folder, in no order."""
        with self._named("list", prefix):
            for page in self._api.list(self._store, prefix or None):
                for one in page:
                    yield Entry(name=one["path"], num_bytes=one["size"], modified=one["last_modified"].timestamp())

    def delete(self, *names: str) -> None:
        """What is not there any more counts as deleted."""
        for name in names:
            with contextlib.suppress(NoObjectError), self._named("delete", name):
                self._api.delete(self._store, name)

    @contextlib.contextmanager
    def _named(self, operation: str, name: str) -> Iterator[None]:
        """The client's errors as ours. A bucket that is not there is a mistake; an object that is not there may be an answer."""
        exceptions = self._api.exceptions
        try:
            yield
        except exceptions.AlreadyExistsError:
            raise FileExistsError(f"{self.url}/{name}: is there already") from None
        except (exceptions.BaseError, FileNotFoundError, PermissionError, TimeoutError) as error:
            is_object = isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)
            raise (NoObjectError if is_object else StorageError)(
                f"{self.url}: cannot {operation} {name or 'it'}: {_reason(error)}. Is the bucket there, do this machine's "
                "credentials allow it, and does the endpoint answer?"
            ) from None


def _rebuilt(url: str, patience_s: float) -> ObjectStorage:
    return ObjectStorage(url, patience_s=patience_s)


def _connect(url: str, patience_s: float) -> Any:
    from obstore.store import from_url

    seconds = datetime.timedelta
    backoff = {"init_backoff": seconds(milliseconds=200), "max_backoff": seconds(seconds=10), "base": 2.0}
    plain_http = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)  # a server of one's own
    return from_url(
        url,
        client_options={"timeout": seconds(seconds=REQUEST_TIMEOUT_S), "allow_http": plain_http},
        retry_config={"max_retries": 1000, "backoff": backoff, "retry_timeout": seconds(seconds=patience_s)},
    )


def _reason(error: BaseException) -> str:
    """What the client says, without the server's whole answer: that may repeat what was signed."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    words = " ".join(str(error).split("\n\nDebug")[0].split("<?xml")[0].split())[:400].rstrip(": ")
    return f"{words} ({code[1]})" if code else words
