"""Row 6: teacher forcing, all clips against one rollout, or item by item."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import baseline
from benchmarks.measure import Figure, Row, in_turns, seconds, speedup
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows, read_clips, write_clips
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec, ClipsSpec, TeacherSpec
from timbre_ray.train.teacher import Lesson, teach

PROMPT = "A recording of a sks flute solo."
EPOCHS, NUM_CLIPS = 20, 8
SPEC = TeacherSpec(epochs=EPOCHS, lr=1e-3, batch_size=NUM_CLIPS)


def write_target(backbone: Backbone, folder: Path) -> list[Path]:
    recordings = find_files(ClipsSpec(path="mini:chinese_flute_v1")).train[:NUM_CLIPS]
    write_clips(load_windows(recordings, backbone.clip_samples), folder)
    return sorted(folder.glob("*.flac"))


def ours(backbone: Backbone, folder: Path, spec: TeacherSpec) -> list[float]:
    """Reading, AudioMAE and the prompt's encoding included."""
    lesson = Lesson(prompt=backbone.embed(PROMPT), loa=backbone.loa(read_clips(folder)))
    return [row["loss"] for row in teach(backbone.copy_language_model(), lesson, None, spec, seed=0)]


def theirs(backbone: Backbone, files: list[Path], spec: TeacherSpec) -> list[float]:
    gpt2 = backbone.copy_language_model()
    return list(baseline.teach(backbone.pipeline, backbone.audiomae, gpt2, files, PROMPT, spec, seed=0))


def measure(repeats: int, spec: TeacherSpec = SPEC) -> list[Figure]:
    torch.set_num_threads(1)
    backbone, losses = load_backbone(BackboneSpec()), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_target(backbone, folder)

        def run(side: str) -> None:
            losses[side] = ours(backbone, folder, spec) if side == "ours" else theirs(backbone, files, spec)

        times = in_turns(seconds(lambda: run("ours")), seconds(lambda: run("theirs")), repeats)
    a, b = np.array(losses["ours"]), np.array(losses["theirs"])
    return [
        speedup("the whole of it, times faster", *times, goal=10.0),
        Figure(
            name="largest relative difference of a loss", values=(float(np.abs(a / b - 1).max()),), goal=1e-3, bound="at most"
        ),
    ]


ROW = Row(
    name="teacher-forcing", title="Teacher forcing", measure=measure,
    setup=f"{EPOCHS} epochs (the paper: 50) over {NUM_CLIPS} clips in batches of {NUM_CLIPS}, rollout; theirs reads the file, "
    "AudioMAE's features and the prompt and rolls GPT-2 out for every item of every step. Ours reads them once, in the time.",
)  # fmt: skip
