"""Stand-ins for the real trial, score and baseline: no torch, milliseconds each. ``clips.token`` says how a trial behaves."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from timbre_ray.cluster.functions import Functions
from timbre_ray.trial_progress import Evaluation, Progress


def trial(spec, *, worker, store, score, on_progress, companions):
    token, last = spec.clips.token, spec.evaluate.at_steps[-1]
    attempt = count_call(store.root, f"{token}-{spec.seed}")
    for other in companions:
        count_call(store.root, f"along-{other.clips.token}-{other.seed}")
    for step in spec.evaluate.at_steps:
        on_progress(Progress(stage="dreambooth", done=step, total=last, values={"loss": 0.5}))
        key = f"{token}{spec.seed}{spec.dreambooth.lr}step{step}"
        store.get_or_compute("dreambooth", key, lambda folder: (folder / "weights").touch(), description={})
        if token == "wrong" and step:
            raise ValueError("flute_03.wav: silent clip")
        if token == "killed" and step and attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if token == "dies" and step:
            os.kill(os.getpid(), signal.SIGKILL)
        if token.startswith("slow") and step:
            time.sleep(2)
        scores = score({"step": step, "token": token, "lr": spec.dreambooth.lr}).result()
        losses = [{"step": earlier, "loss": 12.5 / earlier} for earlier in spec.evaluate.at_steps if 0 < earlier <= step]
        yield Evaluation(step=step, num_clips=2, metrics=scores, confidences={}, audio={}, losses=losses)


def score(request, *, worker, store):
    if request["token"] == "unscored":
        raise FileNotFoundError("clip_0001.flac: missing")
    if request["token"].startswith("scorer_dies") and count_call(store.root, f"scorer-{request['token']}") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    bad = request["token"] == "nan" or request["lr"] > 0.5
    return {"fad_held_out": float("nan") if bad else 10.0 - request["step"] / 10 + request["lr"], "duet_partner_rank": 1.0}


def baseline(spec, *, worker, store):
    if spec.clips.token == "no_baseline":
        raise ValueError("held-out clips: silence")
    return {"num_clips": 2, "metrics": {"fad_held_out": 1.0}, "audio": {}}


def prepare_scoring(worker):
    """Nothing, where the real one imports torch."""


def count_call(root: Path, name: str) -> int:
    """How often this was called, over all processes."""
    path = root / f"calls-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


STUBS = Functions(trial=trial, score=score, baseline=baseline, prepare_scoring=prepare_scoring)
