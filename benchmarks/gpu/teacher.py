"""Row 6 at the published size: teacher forcing, all clips against one rollout, or item by item."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from benchmarks import teacher
from benchmarks.gpu import model
from benchmarks.measure import Figure, Row, speedup

EPOCHS, PAPER_EPOCHS = 2, 50
SPEC = dataclasses.replace(teacher.SPEC, epochs=EPOCHS)


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    backbone = model.load(size)
    backbone.pipeline.to(backbone.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = teacher.write_target(backbone, folder)

        def our_seconds(epochs: int = EPOCHS) -> float:
            return model.seconds(lambda: teacher.ours(backbone, folder, dataclasses.replace(SPEC, epochs=epochs)))

        def their_seconds() -> float:
            return model.seconds(lambda: teacher.theirs(backbone, files, SPEC))

        our_seconds(1)  # warm
        pairs = [(our_seconds(), their_seconds()) for _ in range(repeats)]
        whole = (our_seconds(PAPER_EPOCHS),)
    return [
        speedup(f"{EPOCHS} epochs, times faster", *zip(*pairs, strict=True), goal=10.0),
        Figure(name=f"ours, the paper's {PAPER_EPOCHS} epochs", values=whole, unit="s"),
    ]


ROW = Row(
    name="gpu-teacher-forcing", title=f"Teacher forcing, {model.SIZE}", measure=measure, needs_gpu=True,
    setup=f"Random weights in the published shapes, float32, {teacher.NUM_CLIPS} clips of 10.24 s in batches of "
    f"{SPEC.batch_size}, rollout; AudioMAE and the prompt once in ours, for every item of every step in theirs.",
)  # fmt: skip
