"""What a process that goes from trial to trial gives back between them."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys


@functools.cache
def spare_libraries() -> None:
    """What is imported by now is never garbage: the collector passes over it. torch, transformers and diffusers are half a
    million objects, a quarter of a second for each collection.
    """
    gc.freeze()


def release() -> None:
    """Frees what an ended trial left: copies of models in reference cycles, torch's cache on a GPU, pages that malloc keeps.

    Python's own collector counts objects, not bytes: a U-Net in a cycle is a few objects to it, and stays for many trials.
    """
    gc.collect()
    torch = sys.modules.get("torch")  # a process without it has nothing on a GPU
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
        if trim is not None:
            trim(0)
