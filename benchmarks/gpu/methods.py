"""Every method through a whole trial at the published size: peak memory on the GPU, stage by stage."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import model
from benchmarks.measure import Figure, Row
from timbre_ray.evaluate.scorer import ScoreRequest, score_clips
from timbre_ray.methods import METHODS
from timbre_ray.specs import ClipsSpec, DreamboothSpec, EvaluateSpec, SamplerSpec, TeacherSpec, TrialSpec
from timbre_ray.store import Store
from timbre_ray.trial import run_trial
from timbre_ray.trial_progress import Progress

STEPS = 4
SPEC = TrialSpec(
    clips=ClipsSpec(path="mini:chinese_flute_v1"), teacher=TeacherSpec(epochs=1, batch_size=4),
    dreambooth=DreamboothSpec(steps=STEPS, batch_size=1, gradient_accumulation=4, num_class_clips=4, mixed_precision="bf16"),
    evaluate=EvaluateSpec(at_steps=(STEPS,), num_clips=4, sampler=SamplerSpec(num_inference_steps=5, batch_size=4)),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """A score that was computed at once."""

    value: dict[str, Any]

    def done(self) -> bool:
        return True

    def result(self) -> dict[str, Any]:
        return self.value


class Peaks:
    """Peak memory between two reports of a trial, under the stage that did the work, and when each step ended."""

    def __init__(self) -> None:
        self.gb: dict[str, float] = {}
        self.steps: list[float] = []
        self._stage = "start"
        model.reset_peak()

    def __call__(self, progress: Progress) -> None:
        stage = progress.stage if progress.done else self._stage  # a report of 0 comes before the work
        self.gb[stage] = max(self.gb.get(stage, 0.0), model.peak_gb())
        self._stage = progress.stage
        model.reset_peak()
        if progress.stage == "dreambooth":
            self.steps.append(time.perf_counter())


def run(method: str, size: str, store: Store) -> Peaks:
    spec = dataclasses.replace(
        SPEC, backbone=model.spec_of(size, "bfloat16"), dreambooth=dataclasses.replace(SPEC.dreambooth, method=method)
    )

    def score(request: ScoreRequest) -> Done:
        return Done(value=score_clips(request, store))

    model.load(size, "bfloat16").set_aside()
    peaks = Peaks()
    (evaluation,) = run_trial(spec, store=store, score=score, device=model.device(), on_progress=peaks)
    assert evaluation.step == STEPS and len(evaluation.losses) == STEPS
    return peaks


def measure(repeats: int, size: str = model.SIZE) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for method in METHODS:
            peaks = run(method, size, store)
            gaps = tuple(b - a for a, b in zip(peaks.steps, peaks.steps[1:], strict=False))
            figures += [
                Figure(name=f"{method}, peak while it trains", values=(peaks.gb["dreambooth"],), unit="GB"),
                Figure(
                    name=f"{method}, peak of all else",
                    values=(max(gb for s, gb in peaks.gb.items() if s != "dreambooth"),),
                    unit="GB",
                ),
                Figure(name=f"{method}, a training step", values=gaps, unit="s"),
            ]
            shutil.rmtree(store.root / "artifacts" / "dreambooth")  # a fine-tuned U-Net is 3 GB
    return figures


ROW = Row(
    name="gpu-methods", title=f"Every method, {model.SIZE}", measure=measure, needs_gpu=True,
    setup=f"Whole trials without Ray: random weights in the published shapes, 10.24 s, bfloat16, {STEPS} steps of four "
    "accumulated clips. Memory is that of tensors; all else is encoding, teacher forcing, reading prompts and "
    "generating four clips at once.",
)  # fmt: skip
