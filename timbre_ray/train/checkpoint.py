"""Resumable training state: the trained weights, the optimizer, fp16's loss scale, the step. No random state: draws are keyed by
the step.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from timbre_ray.models.pickled import load_pickled
from timbre_ray.patience import may_pass

_MIB = 1 << 20


def save(
    path: Path,
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    losses: list[dict],
    scaler: GradScaler | None = None,
) -> None:
    """Whole or not at all: written beside, brought to the disk, and renamed. A disk that fails for the moment costs no training:
    it gets no checkpoint, with a warning, and the next one a minute later. Raises OSError where the disk does not come back."""
    state: dict[str, Any] = {
        "step": step,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "losses": losses,
        "scaler": scaler.state_dict() if scaler else {},
    }
    try:
        _write(state, path)
    except OSError as error:
        if not may_pass(error):
            raise
        warnings.warn(f"{path}: no checkpoint written ({error}); the training goes on", UserWarning, stacklevel=2)


def _write(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have cleared it away
    try:
        with temporary.open("wb") as file:
            _dump(state, file)
            file.flush()
            os.fsync(file.fileno())  # or a host that loses power may keep the name and lose the content
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk would stay full of these
        raise


def _dump(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError:
        file.write(bytes(_MIB))  # torch does not say what the system said: the disk shall say it
        file.flush()
        raise


@torch.no_grad()
def load(
    path: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, scaler: GradScaler | None = None
) -> tuple[int, list[dict]]:
    """Puts the state back; returns the step it was saved after and the losses so far, (0, []) without a checkpoint."""
    state = _read(path)
    if state is None:
        return 0, []
    saved: dict[str, Tensor] = state["parameters"]
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])
    optimizer.load_state_dict(state["optimizer"])
    if scaler and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    return state["step"], state["losses"]


def reached(path: Path) -> int:
    """Step that a checkpoint was saved after; 0 without one."""
    state = _read(path)
    return state["step"] if state else 0


def _read(path: Path) -> dict[str, Any] | None:
    """None without a checkpoint, and with one that is cut off: training from the start ends in the same weights.

    Raises ValueError for a file that would run code, or is nothing of ours at all.
    """
    if not path.exists():
        return None
    try:
        return load_pickled(path)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: no checkpoint of timbre-ray ({reason}); delete it, the training begins anew") from None
    except (RuntimeError, EOFError, ValueError) as error:
        warnings.warn(f"{path}: checkpoint cannot be read ({error}); training starts from step 0", UserWarning, stacklevel=2)
        return None


def generator_for(seed: int, stream: int, step: int) -> torch.Generator:
    """Random numbers of one stream (instance, prior, ...) at one step, the same however often training stopped."""
    return torch.Generator().manual_seed(((seed * 8 + stream) * 1_000_003 + step) % (1 << 63))
