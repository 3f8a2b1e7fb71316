"""What strikes from within: the process that comes by first, once, and the list of who is at work."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from tests.chaos.seams import Seams, at_work, events, struck
from timbre_ray.cluster.functions import Functions
from timbre_ray.store import Store


def trial(spec, *, worker, store, score, on_progress):
    on_progress(types.SimpleNamespace(stage="dreambooth"))
    store.get_or_compute("dreambooth", spec, lambda folder: (folder / "weights").touch(), description={})
    yield score(spec)


PLAIN = Functions(trial=trial, score=lambda request, *, worker, store: {"metrics": {"fad_held_out": 3.0}}, baseline=lambda: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "strikes").mkdir()
    return attributed(Store(tmp_path / "store"))


def attributed(store: Store) -> Store:
    store.trial = "flute-s0"
    return store


def run(store: Store, key: str) -> list:
    store, functions = attributed(Store(store.root)), struck(PLAIN, Seams(pace_s=0.0))

    def score(request):
        assert [one.role for one in at_work(store.root.parent)] == ["trial"]
        return functions.score(request, worker=None, store=store)

    return list(functions.trial(key, worker=None, store=store, score=score, on_progress=lambda progress: None))


def test_untouched_trials_are_only_listed(store: Store) -> None:
    assert run(store, "k") == [{"metrics": {"fad_held_out": 3.0}}]
    assert [(e["role"], e["event"]) for e in events(store.root.parent)] == [
        ("trial", "began"), ("score", "began"), ("score", "ended"), ("trial", "ended"),
    ]  # fmt: skip
    assert not at_work(store.root.parent)


def test_a_write_fails_once_and_the_list_says_so(store: Store) -> None:
    (store.root.parent / "strikes" / "produce").write_text("ENOSPC")
    with pytest.raises(OSError, match="No space left on device"):
        run(store, "k")
    assert not store.has("dreambooth", "k")
    assert "No space left on device" in events(store.root.parent)[-1]["error"]
    assert run(store, "k") == [{"metrics": {"fad_held_out": 3.0}}] and store.has("dreambooth", "k")


def test_a_disk_that_may_come_back_is_waited_for(store: Store) -> None:
    (store.root.parent / "strikes" / "produce").write_text("EIO")
    assert run(store, "k") == [{"metrics": {"fad_held_out": 3.0}}] and store.has("dreambooth", "k")
    assert not any("error" in event and event["error"] for event in events(store.root.parent))


def test_one_score_is_no_number(store: Store) -> None:
    (store.root.parent / "strikes" / "score").write_text("nan")
    (first,), (second,) = run(store, "k"), run(store, "k")
    assert first["metrics"]["fad_held_out"] != first["metrics"]["fad_held_out"]
    assert second == {"metrics": {"fad_held_out": 3.0}}


def test_a_twin_is_neither_struck_nor_listed(store: Store) -> None:
    (store.root.parent / "strikes" / "score").write_text("nan")
    functions = struck(PLAIN, Seams(pace_s=0.0, twin=True))
    assert functions.score("k", worker=None, store=store) == {"metrics": {"fad_held_out": 3.0}}
    assert not events(store.root.parent)
