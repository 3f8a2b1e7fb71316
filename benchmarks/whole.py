"""Row 2 as a user pays for it: ``timbre-ray run`` against a shell loop of scripts, whole processes on every core of the machine.

``python -m benchmarks.whole SWEEP.yaml NUMBER FOLDER`` is one such script: it trains and scores the sweep's trial of that number.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import ROOT, Figure, Row, seconds, speedup
from benchmarks.overhead import run_command, write_sweep
from timbre_ray.ledger import Ledger
from timbre_ray.sweep import load_sweep

NUM_SEEDS = 3  # of the sweep's six


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a trial's work is done."""

    epochs: int
    at_steps: tuple[int, ...]
    """The last is the number of optimizer steps."""
    num_clips: int
    """A prompt, and of class audio."""


#: With all of it, the scripts alone would take over an hour.
THIRD = Size(epochs=17, at_steps=(0, 8, 100), num_clips=7)

#: Their prior is the latents that the model generated; a script encodes the audio made of them.
OWN_LATENTS = ("prior", "chineseclass_prior")

Scores = dict[str, dict[int, float]]
"""Trial id -> step -> Fréchet distance to the held-out recordings."""


def sweep_of(num_seeds: int, size: Size, num_arms: int) -> dict[str, Any]:
    """The first arms of six on the first flute; audio by the vocoder, as the scripts have it."""
    data = yaml.safe_load((ROOT / "sweeps" / "mini-ablation.yaml").read_text())
    base = data["base"]
    base["dreambooth"] |= {"steps": size.at_steps[-1], "num_class_clips": size.num_clips}
    base["evaluate"] |= {"at_steps": list(size.at_steps), "num_clips": size.num_clips}
    del base["evaluate"]["sampler"]["mel_inversion"]
    arms = dict(list(data["arms"].items())[:num_arms])
    for arm in arms.values():
        if "teacher" in arm:
            arm["teacher"] |= {"epochs": size.epochs}
    return data | {"name": "whole", "arms": arms, "grid": {"seed": list(range(num_seeds))}}


def theirs(file: Path, folder: Path, numbers: Iterable[int]) -> None:
    """One script after another, each with PyTorch's own choice of threads."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    for number in numbers:
        words = [sys.executable, "-m", "benchmarks.whole", str(file), str(number), str(folder / "theirs")]
        result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(words[1:])} ended with {result.returncode}: {result.stderr.strip()[-1000:]}")


def script(file: str, number: str, folder: str) -> None:
    from benchmarks.ablation import Script  # torch and diffusers: a script pays for them, the parent does not
    from timbre_ray.models.backbone import load_backbone

    trial = load_sweep(Path(file)).trials[int(number)]
    place = Path(folder) / trial.trial_id
    place.mkdir(parents=True)
    scores = Script(trial.spec, load_backbone(trial.spec.backbone), place).run()
    (place / "scores.json").write_text(json.dumps(scores))


def scores_of(folder: Path) -> tuple[Scores, Scores]:
    """What either side found, of the trials that train on the same: all but those of ``OWN_LATENTS``."""
    records = [record for sweep in (folder / "ours" / "results").iterdir() for record in Ledger(sweep).trials()]
    same = [record for record in records if record["spec"]["dreambooth"]["method"] not in OWN_LATENTS]
    found = {r["trial_id"]: {e["step"]: e["metrics"]["fad_held_out"] for e in r["evaluations"]} for r in same}
    files = {name: folder / "theirs" / name / "scores.json" for name in found}
    return found, {name: {int(k): v for k, v in json.loads(file.read_text()).items()} for name, file in files.items()}


def difference(found: Scores, expected: Scores) -> float:
    """The largest, relative, of any trial at any step. Both sides must have scored the same."""
    assert {name: set(steps) for name, steps in found.items()} == {name: set(steps) for name, steps in expected.items()}
    return max(abs(found[name][step] / value - 1) for name, steps in expected.items() for step, value in steps.items())


def measure(repeats: int, num_seeds: int = NUM_SEEDS, num_arms: int = 6, size: Size = THIRD) -> list[Figure]:
    """Once, whatever ``repeats`` says; half of the scripts before the sweep and half after it, as the machine may drift."""
    with tempfile.TemporaryDirectory() as name:
        folder, num_trials = Path(name), num_seeds * num_arms
        file = write_sweep(folder, sweep_of(num_seeds, size, num_arms))
        before = seconds(lambda: theirs(file, folder, range(num_trials // 2)))()
        sweep = seconds(lambda: run_command(file, folder / "ours"))()
        after = seconds(lambda: theirs(file, folder, range(num_trials // 2, num_trials)))()
        same = difference(*scores_of(folder))
    return [
        speedup("all trials, times faster", (sweep,), (before + after,), goal=3.0),
        Figure(name="largest relative difference of a Fréchet distance, arms that train on the same clips", values=(same,)),
    ]


ROW = Row(
    name="ablation-whole", title="Six arms by three seeds, as a user runs them", measure=measure, limit_s=7200,
    setup="Whole processes on all cores, loading counted: one `timbre-ray run` against a shell loop of eighteen scripts, which "
    "share nothing and have PyTorch's own number of threads. A third of sweeps/mini-ablation.yaml on one flute: "
    f"{THIRD.epochs} epochs, scored at steps {THIRD.at_steps}, {THIRD.num_clips} clips a prompt and of class audio, the vocoder. "
    "Once, between the scripts' two halves. Ours computes more for the same time: kernel distances, distances to the training "
    "recordings, the target's floor.",
)  # fmt: skip

if __name__ == "__main__":
    script(*sys.argv[1:])
