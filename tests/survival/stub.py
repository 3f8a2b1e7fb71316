"""A trial without torch whose scores come from the bytes in the store, and the seam at which a fault strikes it.

A file ``strikes/<place>`` beside the store says what happens when the stub comes by (see ``strike``). It works once, unless its
text begins with ``always``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from pathlib import Path

from tests.integration.stub_functions import baseline, count_call, prepare_scoring
from timbre_ray.cluster import scoring
from timbre_ray.cluster.functions import Functions
from timbre_ray.trial_progress import Evaluation, Progress

HOUR_S = 3600.0
#: Large enough that a full disk is full for it.
WEIGHTS_BYTES = 32_768


def trial(spec, *, worker, store, score, on_progress, companions):
    name, last = f"{spec.clips.token}-{spec.seed}", spec.evaluate.at_steps[-1]
    count_call(store.root, name)
    strike(store.root, f"start-{name}")
    taught = store.get_or_compute("teach", f"teach{spec.seed}", write_weights("teach", str(spec.seed)), description={})
    for step in spec.evaluate.at_steps:
        on_progress(Progress(stage="dreambooth", done=step, total=last, values={}))
        struck = strike(store.root, f"trial-{name}-{step}")
        while struck == "work":  # until it is told to leave
            on_progress(Progress(stage="dreambooth", done=step, total=last, values={}))
            time.sleep(0.1)
        key = f"{spec.clips.token}{spec.seed}step{step}"

        def produce(folder: Path, key=key, place=f"produce-{name}-{step}") -> None:
            strike(store.root, place)
            write_weights(key, hashlib.sha256(taught.file("weights").read_bytes()).hexdigest())(folder)

        store.get_or_compute("dreambooth", key, produce, description={})
        metrics = score({"key": key, "place": f"score-{name}-{step}"}).result()
        losses = [{"step": step, "loss": 1 / (1 + step)}]
        yield Evaluation(step=step, num_clips=2, metrics=metrics, confidences={}, audio={}, losses=losses)


def score(request, *, worker, store):
    struck = strike(store.root, request["place"])
    content = store.get("dreambooth", request["key"]).file("weights").read_bytes()
    value = int.from_bytes(hashlib.sha256(content).digest()[:4]) / 2**32
    return {"fad_held_out": float("nan") if struck == "nan" else 10 * value, "duet_partner_rank": 1 + value}


def write_weights(*parts: str):
    def write(folder: Path) -> None:
        seed = hashlib.sha256("/".join(parts).encode()).digest()
        (folder / "weights").write_bytes(seed * (WEIGHTS_BYTES // len(seed)))

    return write


def strike(store_root: Path, place: str) -> str | None:
    """nan, work: told to the caller; EIO, ENOSPC: raised; clock: an hour off from now on; pause: waits to be killed; kill: kills
    itself; impatient: from now on waits seconds for an evaluation actor that has no place.

    Of several processes that come by at one time one alone is struck. ``strikes/<place>.reached`` then holds its pid.
    """
    path = store_root.parent / "strikes" / place
    try:
        action = path.read_text()
        if not action.startswith("always"):
            path.unlink()
    except FileNotFoundError:
        return None
    action = action.removeprefix("always ")
    draft = path.with_name(f"{place}.reached.{os.getpid()}")
    draft.write_text(str(os.getpid()))
    draft.rename(path.with_name(f"{place}.reached"))
    if action in ("EIO", "ENOSPC"):
        raise OSError(getattr(errno, action), os.strerror(getattr(errno, action)), place)
    if action == "clock":
        real = time.time
        time.time = lambda: real() - HOUR_S
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "impatient":
        scoring.NO_PLACE_S, scoring.PLACES_ASKED_EVERY_S = 5.0, 1.0
    if action == "pause":
        time.sleep(HOUR_S)
    return action


STUBS = Functions(trial=trial, score=score, baseline=baseline, prepare_scoring=prepare_scoring)
