"""What went wrong in a trial, in words, and whether trying again could help."""

from __future__ import annotations

import re

import ray.exceptions

from timbre_ray.backbones import UnreachableWeightsError
from timbre_ray.store import DamagedArtifactError

#: Errors of the operating system that stay the same however often one tries.
_LASTING_OS_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
#: An error of the system as libraries in Rust put it (safetensors), which raise no OSError.
_OF_THE_SYSTEM = re.compile(r"\(os error (?P<number>\d+)\)")


class ScoringFailedError(Exception):
    """A score that could not be computed; ``cause`` is the error in the evaluation actor."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


def root_of(error: BaseException) -> BaseException:
    """The error itself, without what Ray and the evaluation actors wrapped around it."""
    while True:
        inner = error.cause if isinstance(error, ScoringFailedError | ray.exceptions.RayTaskError) else None
        if not isinstance(inner, BaseException):
            return error
        error = inner


def is_transient(error: BaseException) -> bool:
    """True if the same work might succeed on a second try: memory, network, disk or a dead process.

    A wrong value, a missing file or a loss that is not a number comes back unchanged, so it is not tried again. A damaged
    artifact does not come back: the stages of a trial compute anew what they find damaged.
    """
    root = root_of(error)
    if told := _OF_THE_SYSTEM.search(str(root)):
        root = OSError(int(told["number"]), str(root))
    if isinstance(root, DamagedArtifactError):
        return True
    if isinstance(root, OSError):
        return not isinstance(root, _LASTING_OS_ERRORS)
    return _is_of_the_gpu(root) or isinstance(root, UnreachableWeightsError | MemoryError | ray.exceptions.RayError)


def describe(error: BaseException, *, stage: str) -> dict[str, str]:
    """The ``error`` of a ledger record. A failed score names the stage ``score``, whatever was being trained meanwhile."""
    root = root_of(error)
    where, message = "score" if isinstance(error, ScoringFailedError) else stage, str(root).strip() or repr(root)
    if _is_gpu_out_of_memory(root):
        message += " `timbre-ray doctor SWEEP` says what a trial needs and which settings need less."
    return {"type": type(root).__name__, "message": message, "stage": where}


def _is_of_the_gpu(error: BaseException) -> bool:
    """Out of memory, or broken (``CUDA error: ...``): a process of its own, on another GPU perhaps, may do better."""
    return _is_gpu_out_of_memory(error) or type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _is_gpu_out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError"  # torch's; this module must not import torch
