"""What a process that goes from trial to trial gives back between them."""

from __future__ import annotations

import ctypes
import gc
import importlib
import sys
from types import ModuleType


def imported(name: str) -> ModuleType:
    """A module and the libraries beneath it, without the collector: torch, transformers and diffusers are half a million objects
    that are never garbage. It rests while they come, a seventh of that time, and passes over them for good, a quarter of a second
    for each collection.
    """
    if name in sys.modules:
        return importlib.import_module(name)  # which waits while another thread is still at it
    collects = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()


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
