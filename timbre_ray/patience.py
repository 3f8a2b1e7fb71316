"""Waiting for a disk that fails for a while: a network folder whose server is away answers again, and nothing is lost."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from timbre_ray.object_storage import StorageError

T = TypeVar("T")

#: What a network folder answers while its server, or the way there, is away. A full disk is none of it: somebody must make room.
PASSING = frozenset({
    errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK, errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
#: How libraries in Rust (safetensors) word an error of the system, whose own exceptions are no OSError.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def may_pass(error: BaseException) -> bool:
    """True for an error of the disk that may be gone a moment later."""
    if isinstance(error, OSError):
        return error.errno in PASSING
    found = _OS_ERROR.search(str(error)) if isinstance(error, Exception) else None
    return found is not None and int(found[1]) in PASSING


def patiently(call: Callable[[], T], *, place: Path | str, what: str, patience_s: float) -> T:
    """``call()``, repeated with growing pauses while the disk fails. Raises StorageError, naming ``place``, after ``patience_s``.

    what: the operation in words, as in "cannot publish encode/k".
    """
    deadline, pause = time.monotonic() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            left = deadline - time.monotonic()
            if left <= 0:
                raise StorageError(
                    f"{place}: cannot {what} for {patience_s:g} s (run.storage_patience_s): {error}. Is the disk mounted, and "
                    "does its server answer? What was finished is kept; the same command goes on from there"
                ) from error
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_S)
