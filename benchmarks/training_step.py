"""Row 1: a training step with prior preservation, speed and memory, each repetition and side in a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import baseline
from benchmarks.measure import Figure, Row, child, peak_mib
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows, read_clips, write_clips
from timbre_ray.methods import METHODS
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec, ClipsSpec, DreamboothSpec
from timbre_ray.train.dreambooth import train
from timbre_ray.train.losses import Examples

CLIPS = ClipsSpec(path="mini:chinese_flute_v1")
INSTANCE_PROMPT, CLASS_PROMPT = "A recording of a sks flute solo.", "A recording of a piano."
STEPS, WARM_UP = 5, 1
SPEC = DreamboothSpec(method="prior", steps=STEPS, lr=2e-4, batch_size=1, gradient_accumulation=4)
AT_ONCE = DreamboothSpec(method="prior", steps=STEPS, lr=2e-4, batch_size=4, gradient_accumulation=1)
MODES = {"theirs": SPEC, "ours-one-by-one": SPEC, "ours-at-once": AT_ONCE}


def files_of(backbone: Backbone, folder: Path) -> tuple[list[Path], list[Path]]:
    """Eight clips of the target and eight of another instrument as the class, as FLAC."""
    found = []
    for name in ("chinese_flute_v1", "chinese_lute"):
        recordings = find_files(ClipsSpec(path=f"mini:{name}")).train[:8]
        write_clips(load_windows(recordings, backbone.clip_samples), folder, name)
        found.append(sorted(folder.glob(f"{name}_*.flac")))
    return found[0], found[1]


def losses_of(mode: str, backbone: Backbone, folder: Path, spec: DreamboothSpec) -> Iterator[float]:
    """Loss by loss, as one side trains. Ours encodes each clip and prompt once, at the first step."""
    instance, prior = files_of(backbone, folder)
    unet = backbone.copy_unet()
    METHODS[spec.method].attach(unet, spec)
    if mode == "theirs":
        yield from baseline.train(backbone.pipeline, unet, (instance, INSTANCE_PROMPT), (prior, CLASS_PROMPT), spec, seed=0)
        return
    examples = []
    for prefix, prompt in (("chinese_flute_v1", INSTANCE_PROMPT), ("chinese_lute", CLASS_PROMPT)):
        mean, std = backbone.encode_audio(read_clips(folder, prefix))
        examples.append(Examples(mean=mean, std=std, prompt=backbone.embed(prompt)))
    for row in train(unet, backbone.new_scheduler(), *examples, spec, seed=0):
        yield row["loss"]


def main(mode: str) -> None:
    torch.set_num_threads(1)
    backbone, floor = load_backbone(BackboneSpec()), peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        for step, _ in enumerate(losses_of(mode, backbone, Path(folder), MODES[mode]), start=1):
            if step == WARM_UP:
                start = time.perf_counter()
        spent = time.perf_counter() - start
    print(json.dumps({"steps_per_s": (STEPS - WARM_UP) / spent, "peak_mib": peak_mib(), "loaded_mib": floor}))


def measure(repeats: int) -> list[Figure]:
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for i in range(repeats):
        for mode in list(MODES) if i % 2 == 0 else list(MODES)[::-1]:
            found[mode].append(child("benchmarks.training_step", mode))
    figures = []
    for mode, words in (("ours-at-once", "four clips at once"), ("ours-one-by-one", "one clip at a time, as theirs")):
        for key, name, goal, bound in (
            ("steps_per_s", "steps per second", 3.0, "at least"), ("peak_mib", "peak resident memory", 0.5, "at most"),
        ):  # fmt: skip
            ours, theirs = (tuple(run[key] for run in found[side]) for side in (mode, "theirs"))
            figures.append(Figure(
                name=f"{name}, {words}", values=tuple(o / t for o, t in zip(ours, theirs, strict=True)), goal=goal, bound=bound,
                sides={f"ours_{key}": ours, f"theirs_{key}": theirs},
            ))  # fmt: skip
    return figures


ROW = Row(
    name="training-step", title="Training step with prior preservation", measure=measure,
    setup=f"Four target and four class clips a step, float32, {STEPS - WARM_UP} timed steps after {WARM_UP}; theirs is batch 1 "
    "with four accumulated. Memory is the whole process's: Python, torch and the loaded pipeline included. Our encoding of the "
    "clips, once before the first step, is not in the time.",
)  # fmt: skip

if __name__ == "__main__":
    main(sys.argv[1])
