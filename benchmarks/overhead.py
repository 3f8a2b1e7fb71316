"""Row 3: a sweep's wall time over that of its bare stages; what a trial pays for Ray, the ledger and the display."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.ablation import run_ours
from benchmarks.measure import ENVIRONMENT, ROOT, Figure, Row, child, in_turns
from timbre_ray.evaluate.scorer import score_floor
from timbre_ray.ledger import Ledger
from timbre_ray.models.backbone import load_backbone
from timbre_ray.models.embedders import load_embedder
from timbre_ray.models.judges import load_judges
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
_SAMPLER = {"num_inference_steps": 8, "scheduler": "dpmsolver++"}
LONG_SWEEP = {
    **SWEEP,
    "name": "long",
    "base": SWEEP["base"]
    | {"dreambooth": SWEEP["base"]["dreambooth"] | {"steps": 100}}
    | {"evaluate": {"at_steps": [0, 25, 50, 100], "num_clips": 8, "sampler": _SAMPLER}},
}
"""Two minutes of bare work, less than a user's own sweep has."""


def write_sweep(folder: Path, sweep: dict[str, Any]) -> Path:
    path = folder / f"{sweep['name']}.yaml"
    path.write_text("# Question: what does a sweep cost beside its stages?\n" + yaml.safe_dump(sweep))
    return path


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
        store = run_ours(specs, Path(folder))
        score_floor(specs[0], store)  # a sweep has it too
        print(json.dumps({"seconds": time.perf_counter() - start}))


def both(folder: Path, sweep: dict[str, Any], repeats: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of the sweep and of its bare stages. ``folder`` then holds the results of each repetition."""
    file, numbers = write_sweep(folder, sweep), itertools.count()
    return in_turns(
        lambda: run_command(file, folder / str(next(numbers))),
        lambda: child("benchmarks.overhead", str(file))["seconds"],
        repeats,
    )


def over_bare(wall: Sequence[float], bare: Sequence[float]) -> Figure:
    ratios = tuple(w / b for w, b in zip(wall, bare, strict=True))
    sides = {"sweep_s": tuple(wall), "bare_s": tuple(bare)}
    return Figure(name="sweep over bare stages", values=ratios, goal=1.05, bound="at most", sides=sides)


def measure(repeats: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        wall, bare = both(Path(folder), SWEEP, repeats)
    own = tuple(w - b for w, b in zip(wall, bare, strict=True))
    return [
        dataclasses.replace(over_bare(wall, bare), goal=None),
        Figure(name="a sweep's own time", values=own, unit="s"),
        Figure(
            name="bare work from which the same own time is 5 %", values=tuple(s / 0.05 for s in own), unit="s", kind="computed"
        ),
    ]


def measure_long(repeats: int) -> list[Figure]:
    """Three times at most: a repetition takes four minutes."""
    with tempfile.TemporaryDirectory() as folder:
        times = both(Path(folder), LONG_SWEEP, min(repeats, 3))
        starts = [start for results in Path(folder).glob("*/results/long") for start in warm_starts(results)]
    return [
        over_bare(*times),
        Figure(name="start of a trial on a warm worker", values=tuple(starts), unit="s", goal=1.0, bound="at most"),
    ]


def warm_starts(results: Path) -> list[float]:
    """Seconds between the end of a trial and the start of the next, where one runs at a time."""
    records = sorted(Ledger(results).trials(), key=lambda record: record["started"])
    return [after["started"] - before["finished"] for before, after in itertools.pairwise(records)]


ROW = Row(
    name="overhead", title="What a sweep costs beside its stages", measure=measure,
    setup="Two arms, one seed, reduced: 10 steps, 2 clips a prompt, 4 sampler steps; one trial at a time, one evaluation actor "
    "that scores meanwhile. The sweep is `timbre-ray run` from its first to its last moment, Ray's start and the workers' "
    "imports included: they are paid once a sweep, so the ratio falls with its length. The bare stages, the real-versus-real "
    "floor among them as in the sweep, start with all models loaded.",
)  # fmt: skip
LONG = Row(
    name="overhead-long", title="What a sweep of two minutes costs beside its stages", measure=measure_long,
    setup="As the row before, with 100 steps scored at 0, 25, 50 and 100, 8 clips a prompt, 8 sampler steps: two trials, the "
    "second on a warm worker. Scoring goes on in a process of its own while the next steps are trained, which the bare stages "
    "cannot do.",
)  # fmt: skip

if __name__ == "__main__":
    main(sys.argv[1])
