"""What a process gives back between two trials."""

from __future__ import annotations

import dataclasses
import gc
import platform
import weakref
from pathlib import Path

import psutil
import pytest

from benchmarks.ablation import Scored, reduced, trials
from timbre_ray.cluster.functions import Worker, run_trial
from timbre_ray.memory import imported, release
from timbre_ray.store import Store

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
#: Above the memory after a process's first trial, in which models are loaded and libraries fill their caches.
MARGIN_MIB = 100


def rss_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_the_collector_rests_while_libraries_come_and_passes_over_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "big_library.py").write_text("import gc\ncollected = gc.isenabled()\nkept = [[] for _ in range(100_000)]\n")
    (tmp_path / "broken_library.py").write_text("raise OSError('no such library')\n")
    try:
        assert not imported("big_library").collected and gc.isenabled()
        assert gc.get_freeze_count() > 100_000
        gc.unfreeze()
        assert imported("big_library").kept and gc.get_freeze_count() == 0, "what is there already, and what came since, stays"
        with pytest.raises(OSError, match="no such library"):
            imported("broken_library")
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_what_refers_to_itself_is_freed() -> None:
    gc.disable()
    try:
        held = Cycle()
        seen = weakref.ref(held)
        del held
        assert seen() is not None
        release()
        assert seen() is None
    finally:
        gc.enable()


@glibc
def test_pages_that_malloc_keeps_go_back() -> None:
    """300 MiB in pieces that are below malloc's threshold for pages of their own, with one left in use at the top of the heap."""
    pieces = [bytes([i % 256]) * 65_000 for i in range(4_800)]
    full, pin = rss_mib(), pieces[-1]
    pieces.clear()
    before = rss_mib()
    release()
    assert full - rss_mib() > 200 and before - rss_mib() > 100, "freed, and kept by malloc until then"
    assert len(pin) == 65_000


@glibc
@pytest.mark.slow
def test_memory_returns_to_its_baseline_between_trials(tmp_path: Path) -> None:
    """Trials of four kinds in one process, as a warm worker has them; each does its own work."""
    store, after = Store(tmp_path), []
    worker, arms = Worker(store_root=tmp_path, device="cpu", threads=1), {trial.arm: trial.spec for trial in trials()}
    for seed, arm in enumerate(("large-gpt2", "large-gpt2-prior", "large-gpt2-lora", "large-gpt2-teacher-mixclass-prior")):
        spec = dataclasses.replace(reduced(arms[arm]), seed=seed)
        evaluations = run_trial(
            spec, worker=worker, store=store, score=lambda request: Scored(request, store), on_progress=lambda progress: None
        )
        assert [evaluation.step for evaluation in evaluations] == list(spec.evaluate.at_steps)
        after.append(rss_mib())
    assert max(after[1:]) < after[0] + MARGIN_MIB, after
