"""`timbre-ray` as the hosts have it: the command line itself, with trials that train nothing and note on which host they were."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from typing import Any

from stub_functions import STUBS

from timbre_ray import cli
from timbre_ray.cluster import run

DOOMED = "doomed-host"
"""A file beside the store's stages: the host named in it never finishes a trial."""
STEP_S = 3.0


def trial(spec: Any, *, worker: Any, store: Any, score: Any, on_progress: Any, companions: Any) -> Iterator[Any]:
    host = socket.gethostname()
    with (store.root / f"hosts-{spec.clips.token}-{spec.seed}").open("a") as file:
        file.write(f"{host}\n")
    stubbed = STUBS.trial(spec, worker=worker, store=store, score=score, on_progress=on_progress, companions=companions)
    for evaluation in stubbed:
        yield evaluation
        time.sleep(STEP_S)
        while (store.root / DOOMED).is_file() and (store.root / DOOMED).read_text() == host:
            time.sleep(STEP_S)


def main() -> None:
    functions = dataclasses.replace(STUBS, trial=trial)
    run.Functions = lambda: functions
    cli.main()
