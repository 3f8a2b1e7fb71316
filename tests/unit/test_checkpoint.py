"""What a checkpoint puts back beside the weights; that a resumed run equals an uninterrupted one is tests/contract's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from timbre_ray.specs import DreamboothSpec
from timbre_ray.train import checkpoint, dreambooth


def new_training() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer, GradScaler]:
    parameter = nn.Parameter(torch.ones(3))
    return {"weight": parameter}, torch.optim.AdamW([parameter], lr=0.1), GradScaler("cpu", init_scale=65536.0)


def step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, scaler: GradScaler, factor: float) -> None:
    scaler.scale((parameters["weight"] * factor).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def test_the_loss_scale_of_half_precision_comes_back(tmp_path: Path) -> None:
    parameters, optimizer, scaler = new_training()
    step(parameters, optimizer, scaler, 1.0)
    step(parameters, optimizer, scaler, float("inf"))  # an overflow halves the scale and skips the step
    assert scaler.get_scale() == 32768.0
    checkpoint.save(tmp_path / "resume.pt", 2, parameters, optimizer, [{"loss": 1.0}], scaler)
    resumed, new_optimizer, new_scaler = new_training()
    assert checkpoint.load(tmp_path / "resume.pt", resumed, new_optimizer, new_scaler) == (2, [{"loss": 1.0}])
    assert new_scaler.state_dict() == scaler.state_dict()
    step(parameters, optimizer, scaler, 2.0)
    step(resumed, new_optimizer, new_scaler, 2.0)
    assert torch.equal(resumed["weight"], parameters["weight"])


@pytest.mark.parametrize("scaled", [False, True])
def test_full_precision_has_no_scale(tmp_path: Path, scaled: bool) -> None:
    parameters, optimizer, scaler = new_training()
    checkpoint.save(tmp_path / "resume.pt", 1, parameters, optimizer, [])
    checkpoint.load(tmp_path / "resume.pt", parameters, optimizer, scaler if scaled else None)
    assert scaler.get_scale() == 65536.0


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_checkpoint_that_is_cut_off_is_none(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "resume.pt"
    parameters, optimizer, scaler = new_training()
    step(parameters, optimizer, scaler, 1.0)
    checkpoint.save(path, 1, parameters, optimizer, [{"loss": 1.0}])
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    resumed, new_optimizer, _ = new_training()
    with pytest.warns(UserWarning, match="resume.pt: checkpoint cannot be read .* starts from step 0"):
        assert checkpoint.load(path, resumed, new_optimizer) == (0, [])
    assert torch.equal(resumed["weight"], torch.ones(3)) and not new_optimizer.state
    with pytest.warns(UserWarning, match="starts from step 0"):
        assert checkpoint.reached(path) == 0


def test_checkpoints_take_a_tenth_of_a_training_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step and a save take half a minute each, and what the caller does between two steps an hour."""
    now, saved = [0.0], []
    monkeypatch.setattr(dreambooth.time, "monotonic", lambda: now[0])

    def save(path: Path, step: int, *rest: object) -> None:
        saved.append(step)
        now[0] += 30.0

    def accumulate(*arguments: object, step: int, **named: object) -> list[dict[str, float]]:
        now[0] += 30.0
        return [{"instance": 1.0}]

    monkeypatch.setattr(dreambooth.checkpoint, "save", save)
    monkeypatch.setattr(dreambooth, "_accumulate", accumulate)
    spec, path = DreamboothSpec(steps=25, lr=1e-3), tmp_path / "resume.pt"
    for _ in dreambooth.train(nn.Linear(1, 1), None, None, None, spec, seed=0, resume_from=path):
        now[0] += 3600.0
    assert saved == [2, 12, 22], "after a minute, then no sooner than ten times what the last one took"


def test_streams_of_random_numbers_never_meet() -> None:
    """Where seed 1's draws for the instrument were seed 0's for the prior, seeds would not be independent."""
    drawn = {
        int(torch.randint(2**62, (1,), generator=checkpoint.generator_for(seed, stream, step)))
        for seed in range(3) for stream in range(4) for step in range(3)
    }  # fmt: skip
    assert len(drawn) == 3 * 4 * 3
