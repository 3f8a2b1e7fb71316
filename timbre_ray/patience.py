"""Waiting: for a disk that fails for a while (a network folder whose server is away answers again, and nothing is lost), and for
a lock that another process holds.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from timbre_ray.object_storage import StorageError

T = TypeVar("T")

#: What a network folder answers while its server, or the way there, is away. A full disk is none of it: somebody must make room.
PASSING = frozenset({
    errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK, errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
#: Between two looks at a lock that another process holds.
FIRST_LOOK_S, LONGEST_LOOK_S = 0.05, 1.0
#: How libraries in Rust (safetensors) word an error of the system, whose own exceptions are no OSError.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def may_pass(error: BaseException) -> bool:
    """True for an error of the disk that may be gone a moment later."""
    if isinstance(error, OSError):
        return error.errno in PASSING
    found = _OS_ERROR.search(str(error)) if isinstance(error, Exception) else None
    return found is not None and int(found[1]) in PASSING


@contextlib.contextmanager
def holding(lock: FileLock, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Within the block this process holds ``lock``. It is tried with growing pauses, as a hundred trials may wait on one server,
    and ``while_waiting`` is called before each of them."""
    pause = FIRST_LOOK_S
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            while_waiting()
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_LOOK_S)
    try:
        yield
    finally:
        lock.release()


def patiently(call: Callable[[], T], *, place: Path | str, what: str, patience_s: float) -> T:
    """``call()``, repeated with growing pauses while the disk fails. Raises StorageError, naming ``place``, ``patience_s`` after
    it first failed: what it computed until then does not count.

    what: the operation in words, as in "cannot publish encode/k".
    """
    deadline, pause = None, FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            deadline = deadline or time.monotonic() + patience_s
            left = deadline - time.monotonic()
            if left <= 0:
                raise StorageError(
                    f"{place}: cannot {what} for {patience_s:g} s (run.storage_patience_s): {error}. Is the disk mounted, and "
                    "does its server answer? What was finished is kept; the same command goes on from there"
                ) from error
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_S)
