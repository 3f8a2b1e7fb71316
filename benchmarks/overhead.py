"""Row 3: a sweep's wall time over that of its bare stages; what a trial pays for Ray, the ledger and the display."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from benchmarks.ablation import run_ours
from benchmarks.measure import ENVIRONMENT, ROOT, Figure, Row, child, in_turns
from timbre_ray.models.backbone import load_backbone, load_judges
from timbre_ray.models.embedders import load_embedder
from timbre_ray.sweep import load_sweep

SWEEP = {
    "name": "overhead",
    "base": {
        "clips": {"path": "mini:chinese_flute_v1", "target_class": "chinese flute"},
        "dreambooth": {"steps": 10, "lr": 2.0e-4, "batch_size": 2, "gradient_accumulation": 1, "num_class_clips": 2},
        "evaluate": {"at_steps": [0, 10], "num_clips": 2, "sampler": {"num_inference_steps": 4, "scheduler": "dpmsolver++"}},
    },
    "arms": {"direct": {}, "lora": {"dreambooth": {"method": "lora"}}},
    "run": {"max_concurrent": 1, "resources": {"train": {"cpu": 1}, "score": {"cpu": 0}}},
}  # fmt: skip


def run_command(sweep_file: Path, folder: Path) -> float:
    """Wall seconds of ``timbre-ray run``, the interpreter's and Ray's start included."""
    script = "from timbre_ray.cli import main; main()"
    places = ["--storage", str(folder / "store"), "--results", str(folder / "results"), "--no-report"]
    environment = {**ENVIRONMENT, "RAY_ADDRESS": "local"}  # never the cluster of someone else on this machine
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", script, "run", str(sweep_file), *places],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    spent = time.perf_counter() - start
    if result.returncode:
        raise RuntimeError(f"timbre-ray run ended with {result.returncode}: {(result.stdout + result.stderr)[-1000:]}")
    return spent


def main(sweep_file: str) -> None:
    """The same stages in this process, one after another, models loaded before the clock starts."""
    torch.set_num_threads(1)
    specs = [trial.spec for trial in load_sweep(Path(sweep_file)).trials]
    load_backbone(specs[0].backbone), load_judges(), load_embedder("vggish")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_ours(specs, Path(folder))
        print(json.dumps({"seconds": time.perf_counter() - start}))


def measure(repeats: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), itertools.count()
        sweep_file = folder / "overhead.yaml"
        sweep_file.write_text("# Question: what does a sweep cost beside its stages?\n" + yaml.safe_dump(SWEEP))
        wall, bare = in_turns(
            lambda: run_command(sweep_file, folder / str(next(numbers))),
            lambda: child("benchmarks.overhead", str(sweep_file))["seconds"], repeats,
        )  # fmt: skip
    pairs = list(zip(wall, bare, strict=True))
    sides = {"sweep_s": wall, "bare_s": bare}
    return [
        Figure(name="sweep over bare stages", values=tuple(w / b for w, b in pairs), goal=1.05, bound="at most", sides=sides),
        Figure(name="a sweep's own time", values=tuple(w - b for w, b in pairs), unit="s"),
        Figure(
            name="bare work from which the same own time is 5 %", values=tuple((w - b) / 0.05 for w, b in pairs), unit="s",
            kind="computed",
        ),
    ]


ROW = Row(
    name="overhead", title="What a sweep costs beside its stages", measure=measure,
    setup="Two arms, one seed, reduced: 10 steps, 2 clips a prompt, 4 sampler steps; one trial at a time, one evaluation actor "
    "that scores meanwhile. The sweep is `timbre-ray run` from its first to its last moment, Ray's start and the workers' "
    "imports included: they are paid once a sweep, so the ratio falls with its length. The bare stages start with all models "
    "loaded.",
)  # fmt: skip

if __name__ == "__main__":
    main(sys.argv[1])
