"""A trial without torch: two scored steps, each an artifact and a request to the evaluation actor; scores come from a hash."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.specs import TrialSpec, as_dict, digest
from timbre_ray.store import Store
from timbre_ray.trial_progress import Evaluation, Progress

METRICS = (
    "fad_held_out", "fad_train", "kad_held_out", "kad_train", "solo_target_confidence", "duet_partner_rank",
    "duet_partner_confidence", "duet_target_confidence", "partner_confidence", "partner_rank",
)  # fmt: skip
PROMPTS = ("solo", "duet", "partner")


def scores_of(key: str) -> dict[str, float]:
    """Between 0 and 10, the same for the same key."""
    drawn = hashlib.sha256(key.encode()).digest()
    return {name: 10 * drawn[i] / 255 for i, name in enumerate(METRICS)}


def losses_until(step: int) -> list[dict[str, float]]:
    return [{"step": i, "loss": 1 / i} for i in range(1, step + 1)]


def trial(spec: TrialSpec, *, worker: Worker, store: Store, score: Any, on_progress: Any) -> Iterator[Evaluation]:
    """``confidences`` holds the memory of the process instead: how it grows in a worker that goes from trial to trial."""
    identity, last = digest(as_dict(spec)), spec.evaluate.at_steps[-1]
    for step in spec.evaluate.at_steps:
        on_progress(Progress(stage="dreambooth", done=step, total=last, values={}))
        key = f"{identity}{step}"
        store.get_or_compute("dreambooth", key, lambda folder: _write(folder), description={})
        metrics = score(key).result()
        process = psutil.Process()
        yield Evaluation(
            step=step, num_clips=4, metrics=metrics, audio={name: f"{key}{name}" for name in PROMPTS},
            confidences={"worker": {"pid": process.pid, "rss_mib": process.memory_info().rss / 2**20}}, losses=losses_until(step),
        )  # fmt: skip


def _write(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(1000))


def score(request: str, *, worker: Worker, store: Store) -> dict[str, float]:
    return scores_of(request)


def prepare_scoring(worker: Worker) -> None:
    """Nothing, where the real one imports torch."""


def baseline(spec: TrialSpec, *, worker: Worker, store: Store) -> dict[str, Any]:
    return {"num_clips": 4, "metrics": scores_of(spec.clips.path), "audio": {}}


STUBS = Functions(trial=trial, score=score, baseline=baseline, prepare_scoring=prepare_scoring)


class Scored:
    """A score that is there at once."""

    def __init__(self, request: str) -> None:
        self._scores = scores_of(request)

    def result(self) -> dict[str, float]:
        return self._scores


def own_seconds(specs: list[TrialSpec]) -> float:
    """Of one stub in this process, without Ray and ledger: the mean over ``specs``."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        start = time.perf_counter()
        for spec in specs:
            worker = Worker(store_root=store.root, device="cpu", threads=1)
            list(trial(spec, worker=worker, store=store, score=Scored, on_progress=lambda progress: None))
        return (time.perf_counter() - start) / len(specs)
