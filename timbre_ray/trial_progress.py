"""What a trial tells while it runs: where it stands, and what each evaluation found. Standard library only."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a trial stands: ``done`` of ``total`` units of a stage, with the values of its last unit."""

    stage: str
    done: int
    total: int
    values: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scored model after ``step`` Dreambooth steps."""

    step: int
    num_clips: int
    metrics: dict[str, float]
    confidences: dict[str, dict[str, float]]
    audio: dict[str, str]  # prompt -> key of its generate artifact
    losses: list[dict[str, float]]  # of every optimizer step so far
