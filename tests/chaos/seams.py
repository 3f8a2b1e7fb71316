"""Trials and scores, real or stubs, with the seams at which a fault strikes them from within, and a list of who is at work.

``processes.jsonl`` beside the store has a line for each trial that begins or ends in a process, and for each score.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.survival.stub import strike
from timbre_ray.cluster.functions import Functions
from timbre_ray.store import Artifact, Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seams:
    pace_s: float
    """What every step of a trial and every score takes longer, so that stubs can be met."""
    twin: bool = False
    """Of a second sweep on the store, which is not struck from within and not on the list."""

    def pause(self, store: Store, place: str) -> str | None:
        time.sleep(self.pace_s)
        return None if self.twin else strike(store.root, place)


def struck(plain: Functions, seams: Seams) -> Functions:
    return Functions(
        trial=functools.partial(_trial, plain.trial, seams),
        score=functools.partial(_score, plain.score, seams),
        baseline=plain.baseline,
        prepare_scoring=plain.prepare_scoring,
    )


def _weaken(store: Store) -> None:
    """Its writes can fail."""
    get_or_compute = store.get_or_compute

    def struck(stage: str, key: str, produce: Callable[[Path], None], **options: Any) -> Artifact:
        def struck_produce(folder: Path) -> None:
            strike(store.root, "produce")
            produce(folder)

        return get_or_compute(stage, key, struck_produce, **options)

    store.get_or_compute = struck


def _trial(inner: Callable[..., Iterator[Any]], seams: Seams, spec, *, store, on_progress, **told) -> Iterator[Any]:
    def struck_progress(progress: Any) -> None:
        on_progress(progress)
        seams.pause(store, "progress")

    if not seams.twin:
        _weaken(store)
    with _at_work(store, "trial", seams):
        yield from inner(spec, store=store, on_progress=struck_progress, **told)


def _score(inner: Callable[..., dict[str, Any]], seams: Seams, request, *, worker, store) -> dict[str, Any]:
    with _at_work(store, "score", seams):
        found = inner(request, worker=worker, store=store)
        if seams.pause(store, "score") != "nan":
            return found
    spoilt = {**found.get("metrics", found), "fad_held_out": float("nan")}
    return {**found, "metrics": spoilt} if "metrics" in found else spoilt


@contextlib.contextmanager
def _at_work(store: Store, role: str, seams: Seams) -> Iterator[None]:
    if seams.twin:
        yield
        return
    error = None
    _note(store, role, "began")
    try:
        yield
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
        raise
    finally:
        _note(store, role, "ended", error=error)


def _note(store: Store, role: str, event: str, **more: Any) -> None:
    line = {"event": event, "role": role, "trial": store.trial, "pid": os.getpid(), "time": time.time(), **more}
    with (store.root.parent / "processes.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtWork:
    role: str
    trial: str
    pid: int
    began: float


def events(folder: Path) -> list[dict[str, Any]]:
    """What the processes of a scene's folder have noted; the last line may be half written."""
    path = folder / "processes.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def at_work(folder: Path, role: str | None = None) -> list[AtWork]:
    """Who began, has not ended and is alive."""
    begun: dict[tuple[str, str, int], AtWork] = {}
    for event in events(folder):
        who = (event["role"], event["trial"], event["pid"])
        begun.pop(who, None)
        if event["event"] == "began":
            begun[who] = AtWork(role=who[0], trial=who[1], pid=who[2], began=event["time"])
    return [one for one in begun.values() if role in (None, one.role) and is_alive(one.pid, one.began)]


def is_alive(pid: int, since: float) -> bool:
    """The process of that number that was there then, not a later one."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= since and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
