"""Which failures of a trial are tried again: a full disk is one, whatever library met it."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from timbre_ray.audio_file import write_flac
from timbre_ray.backbones import UnreachableWeightsError
from timbre_ray.cluster.failures import ScoringFailedError, describe, is_transient
from timbre_ray.store import DamagedArtifactError
from timbre_ray.train import checkpoint


@contextmanager
def no_room_beyond(num_bytes: int) -> Iterator[None]:
    """Writing a file fails at this size, as it would on a disk that is full by then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_that_do_not_fit_are_tried_again(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="os error") as raised, no_room_beyond(1000):
        save_file({"weight": torch.ones(100_000)}, tmp_path / "unet.safetensors")
    assert not isinstance(raised.value, OSError)
    assert is_transient(raised.value) and is_transient(ScoringFailedError(raised.value))


def test_a_clip_that_does_not_fit_is_an_error_of_the_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_960).astype("float32")
    write_flac(tmp_path / "whole.flac", noise, 16_000)
    num_bytes = (tmp_path / "whole.flac").stat().st_size
    with pytest.raises(OSError) as raised, no_room_beyond(num_bytes - 100):  # libsndfile meets it when it closes the file
        write_flac(tmp_path / "cut.flac", noise, 16_000)
    assert is_transient(raised.value)
    assert np.abs(soundfile.read(tmp_path / "whole.flac")[0] - noise).max() < 1e-4


def test_a_checkpoint_that_does_not_fit_is_an_error_of_the_disk_and_leaves_nothing(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(100_000))
    arguments = (tmp_path / "resume.pt", 1, {"weight": weight}, torch.optim.AdamW([weight]), [])
    with pytest.raises(OSError) as raised, no_room_beyond(10_000):
        checkpoint.save(*arguments)
    assert is_transient(raised.value)
    assert not list(tmp_path.iterdir())
    checkpoint.save(*arguments)
    assert checkpoint.reached(tmp_path / "resume.pt") == 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (DamagedArtifactError("encode/k: another digest"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (FileNotFoundError("clip_0001.flac"), False),
        (RuntimeError("No such file or directory (os error 2)"), False),
        (FloatingPointError("fad_held_out is nan"), False),
        (ValueError("28 clips"), False),
        (UnreachableWeightsError("the hub does not bring it"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_what_may_pass_and_what_comes_back(error: Exception, again: bool) -> None:
    assert is_transient(error) is again


def test_a_full_gpu_is_tried_again_and_says_where_to_look() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    assert is_transient(error)
    told = describe(error, stage="train step 3")
    assert told["message"].startswith("CUDA out of memory") and "timbre-ray doctor" in told["message"]
    assert "doctor" not in describe(ValueError("wrong"), stage="encode")["message"]
