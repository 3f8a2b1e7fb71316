"""The store: computed once, published whole, freed by a killed process."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from timbre_ray import artifact_files, store_log
from timbre_ray.store import ArtifactNotFoundError, DamagedArtifactError, Store, stage_key

SPAWN = multiprocessing.get_context("spawn")
DEADLINE_S = 30.0


def write_number(folder: Path) -> None:
    (folder / "number.txt").write_text("7")


def compute_slowly(root: Path) -> None:
    """Another process: counts its produce calls in a file, and lets the others come while it computes."""

    def produce(folder: Path) -> None:
        with (root / "calls").open("a") as file:
            file.write("x")
        time.sleep(0.3)
        write_number(folder)

    Store(root).get_or_compute("encode", "k", produce, description={})


def hang_in_produce(root: Path) -> None:
    def produce(folder: Path) -> None:
        write_number(folder)
        (root / "inside").touch()
        time.sleep(600)

    store = Store(root)
    (store.scratch("encode", "k") / "checkpoint").write_text("step 3")
    store.get_or_compute("encode", "k", produce, description={})


def wait_for(path: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_computes_once_then_reuses(tmp_path):
    store, folders = Store(tmp_path), []

    def produce(folder: Path) -> None:
        folders.append(folder)
        write_number(folder)

    first = store.get_or_compute("encode", "k", produce, description={"clips": 3})
    second = Store(tmp_path).get_or_compute("encode", "k", produce, description={"clips": 3})
    assert len(folders) == 1 and not folders[0].exists()
    assert (first.reused, second.reused) == (False, True)
    assert first.folder == second.folder == tmp_path / "artifacts" / "encode" / "k"
    assert second.seconds == first.seconds and second.file("number.txt").read_text() == "7"
    assert store.has("encode", "k") and store.get("encode", "k").folder == first.folder


def test_manifest_describes_every_file(tmp_path):
    def produce(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.bin").write_bytes(b"abc")

    artifact = Store(tmp_path).get_or_compute("encode", "k", produce, description={"clips": 3})
    manifest = json.loads(artifact.file("artifact.json").read_text())
    assert manifest["stage"] == "encode" and manifest["key"] == "k" and manifest["description"] == {"clips": 3}
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["files"] == {"sub/a.bin": {"sha256": sha256, "bytes": 3}}
    assert manifest["seconds"] >= 0 and manifest["created"] > 0


def test_a_failing_produce_publishes_nothing_and_keeps_its_checkpoints(tmp_path):
    store = Store(tmp_path)
    checkpoint = store.scratch("teach", "k") / "checkpoint"
    checkpoint.write_text("step 3")

    def produce(folder: Path) -> None:
        write_number(folder)
        raise RuntimeError("NaN loss")

    with pytest.raises(RuntimeError, match="NaN loss"):
        store.get_or_compute("teach", "k", produce, description={})
    assert not store.has("teach", "k") and store.log() == []
    assert not (tmp_path / "tmp" / "teach" / "k").exists()
    assert checkpoint.read_text() == "step 3"
    store.get_or_compute("teach", "k", write_number, description={})
    assert store.has("teach", "k") and not checkpoint.parent.exists()


def test_two_processes_compute_a_key_once(tmp_path):
    processes = [SPAWN.Process(target=compute_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
        assert process.exitcode == 0
    assert (tmp_path / "calls").read_text() == "x"
    assert sorted(event["event"] for event in Store(tmp_path).log()) == ["computed", "reused"]
    assert len({event["pid"] for event in Store(tmp_path).log()}) == 2


def test_a_killed_process_publishes_nothing_and_frees_the_lock(tmp_path):
    process = SPAWN.Process(target=hang_in_produce, args=(tmp_path,))
    process.start()
    wait_for(tmp_path / "inside")
    os.kill(process.pid, signal.SIGKILL)
    process.join(DEADLINE_S)
    store = Store(tmp_path)
    assert not store.has("encode", "k") and store.log() == []
    assert (store.scratch("encode", "k") / "checkpoint").read_text() == "step 3"

    def produce(folder: Path) -> None:
        assert list(folder.iterdir()) == [], "what the killed process left must be gone"
        write_number(folder)

    assert not store.get_or_compute("encode", "k", produce, description={}).reused


def test_a_host_that_does_not_see_yet_what_another_has_published_takes_it(tmp_path, monkeypatch):
    """A network folder may answer "absent" for some seconds after the other host's rename, lock or no lock."""
    one, other = Store(tmp_path), Store(tmp_path)

    def produce(folder: Path) -> None:
        monkeypatch.setattr(artifact_files, "HOST", "elsewhere")
        other.get_or_compute("encode", "k", write_number, description={})
        (folder / "number.txt").write_text("8")

    monkeypatch.setattr(other, "holding", lambda stage, key: contextlib.nullcontext())
    found = one.get_or_compute("encode", "k", produce, description={})
    assert found.reused and found.file("number.txt").read_text() == "7"
    assert not list((tmp_path / "tmp" / "encode").iterdir())


def test_two_hosts_without_a_lock_between_them_never_mix_their_files(tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    with artifact_files.own_folder(place) as ours:
        (ours / "clip_0").touch()
        monkeypatch.setattr(artifact_files, "HOST", "elsewhere")
        with artifact_files.own_folder(place) as theirs:
            assert theirs != ours and not list(theirs.iterdir()) and (ours / "clip_0").is_file()
        assert (ours / "clip_0").is_file()
    assert not place.exists()
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        (place / f"elsewhere-{pid}").mkdir(parents=True)
    with artifact_files.own_folder(place):
        assert not (place / f"elsewhere-{dead.pid}").exists() and (place / f"elsewhere-{os.getppid()}").is_dir()


def test_a_held_lock_lets_its_holder_publish(tmp_path):
    store = Store(tmp_path)
    with store.lock("dreambooth", "end"):
        for key in ("step-25", "end"):
            store.get_or_compute("dreambooth", key, write_number, description={})
    assert store.has("dreambooth", "end")


def test_the_log_names_trials(tmp_path):
    store = Store(tmp_path)
    with store.attributed_to("a-s0"):
        store.get_or_compute("encode", "k", write_number, description={})
        with store.attributed_to("b-s0"):
            store.get_or_compute("encode", "k", write_number, description={})
    store.get_or_compute("encode", "k", write_number, description={})
    assert [(e["event"], e["trial"]) for e in store.log()] == [("computed", "a-s0"), ("reused", "b-s0"), ("reused", None)]
    assert {"event", "stage", "key", "seconds", "time", "pid", "trial"} == set(store.log()[0])
    assert [(e["event"], e["trial"]) for e in store.log("b-s0")] == [("reused", "b-s0")] and store.log("c-s0") == []


def test_a_trials_own_log_does_not_read_the_others(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for number in range(5):
        with store.attributed_to(f"a-s{number}"):
            store.get_or_compute("encode", f"k{number}", write_number, description={})
    reads = []
    monkeypatch.setattr(Path, "read_text", lambda path, **_: reads.append(path) or "")
    store.log("a-s3")
    assert [path.parent.name for path in reads] == ["a-s3"]


def test_the_log_of_an_older_version_counts(tmp_path):
    """It had the lines of all trials in the files of their processes."""
    store = Store(tmp_path)
    with store.attributed_to("a-s0"):
        store.get_or_compute("encode", "k", write_number, description={})
    (event,) = store.log()
    (tmp_path / "log" / "host-1-1.jsonl").write_text("".join(
        json.dumps({**event, "key": f"old-{trial}", "trial": trial, "time": 1.0}) + "\n" for trial in ("a-s0", "b-s0")
    ))  # fmt: skip
    assert [e["key"] for e in store.log("a-s0")] == ["old-a-s0", "k"] and len(store.log()) == 3


def test_a_torn_last_line_of_the_log_is_left_out(tmp_path):
    store = Store(tmp_path)
    store.get_or_compute("encode", "k", write_number, description={})
    with next((tmp_path / "log").iterdir()).open("a") as file:
        file.write('{"event": "reu')
    assert len(store.log()) == 1


def test_what_is_absent_is_named(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ArtifactNotFoundError, match="^.*no artifact encode/k;"):
        store.get("encode", "k")
    artifact = store.get_or_compute("encode", "k", write_number, description={})
    with pytest.raises(FileNotFoundError, match=r"no file 'numbr.txt'; nearest: number.txt"):
        artifact.file("numbr.txt")


def test_relative_roots_are_resolved_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "store"


def test_stage_key_depends_on_each_part():
    key = stage_key("teach", 1, {"lr": 1e-5, "epochs": 50}, ["a", "b"])
    assert key == stage_key("teach", 1, {"epochs": 50, "lr": 1e-5}, ["a", "b"])
    others = [
        stage_key("encode", 1, {"lr": 1e-5, "epochs": 50}, ["a", "b"]),
        stage_key("teach", 2, {"lr": 1e-5, "epochs": 50}, ["a", "b"]),
        stage_key("teach", 1, {"lr": 2e-5, "epochs": 50}, ["a", "b"]),
        stage_key("teach", 1, {"lr": 1e-5, "epochs": 50}, ["b", "a"]),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("name", ["number.txt", "artifact.json"])
@pytest.mark.parametrize("damage", [lambda path: path.write_text("8"), lambda path: path.write_text("")])
def test_a_damaged_artifact_is_refused_and_computed_anew(tmp_path, name, damage):
    store = Store(tmp_path)
    artifact = store.get_or_compute("encode", "k", write_number, description={})
    damage(artifact.file(name))
    with pytest.raises(DamagedArtifactError, match=rf"encode/k: {name} .*Remove the folder and run the sweep again"):
        store.get("encode", "k")
    again = store.get_or_compute("encode", "k", write_number, description={})
    assert not again.reused and again.file("number.txt").read_text() == "7"
    assert [event["event"] for event in store.log()] == ["computed", "computed"]
    assert store.get("encode", "k").reused


def test_a_file_that_is_gone_from_an_artifact_is_damage(tmp_path):
    store = Store(tmp_path)
    store.get_or_compute("encode", "k", write_number, description={}).file("number.txt").unlink()
    with pytest.raises(DamagedArtifactError, match="number.txt is missing"):
        store.get("encode", "k")


def test_a_log_that_ends_in_half_a_line_is_not_written_on(tmp_path, monkeypatch):
    def fills_up(path, text):
        with path.open("a") as file:
            file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    store.get_or_compute("encode", "k", write_number, description={})
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(store_log, "_append", fills_up)
        store.get_or_compute("encode", "k", write_number, description={})
    store.get_or_compute("encode", "k", write_number, description={})
    assert [event["event"] for event in store.log()] == ["computed", "reused"]


def double(store, meanwhile=lambda path: None):
    """A stage that reads another's number; ``meanwhile`` happens between the check of that file and its reading."""
    source = store.get_or_compute("encode", "k", write_number, description={})
    meanwhile(source.file("number.txt"))

    def produce(folder):
        (folder / "number.txt").write_text(str(2 * int(source.file("number.txt").read_text())))

    return store.get_or_compute("double", "k", produce, description={})


def test_nothing_is_published_that_was_made_of_what_was_damaged_meanwhile(tmp_path):
    store = Store(tmp_path)
    with store.attributed_to("flute-s0"), pytest.raises(DamagedArtifactError, match="number.txt is not what was published"):
        double(store, meanwhile=lambda path: path.write_text("9"))
    assert not store.has("double", "k")
    with store.attributed_to("flute-s0"):  # the next attempt
        assert double(store).file("number.txt").read_text() == "14"
        store.confirm()


def test_what_another_process_took_away_as_damaged_is_not_believed_until_it_is_the_same_again(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    with store.attributed_to("flute-s0"):
        artifact = store.get_or_compute("encode", "k", write_number, description={})
        shutil.rmtree(artifact.folder)
        with pytest.raises(DamagedArtifactError, match="encode/k was found damaged while it was in use"):
            store.confirm()
        other.get_or_compute("encode", "k", write_number, description={})
        store.confirm()


def test_an_artifact_whose_manifest_is_damaged_hides_no_other(tmp_path):
    store = Store(tmp_path)
    for key in ("a", "b"):
        store.get_or_compute("encode", key, write_number, description={})
    (tmp_path / "artifacts" / "encode" / "a" / "artifact.json").write_bytes(b'{"stage\xff": "encode"}')
    assert [manifest["key"] for manifest in store.manifests()] == ["b"]


def test_an_artifact_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    done, rename = [], os.rename
    monkeypatch.setattr(artifact_files, "fsync", lambda path: done.append(path.name))
    monkeypatch.setattr(os, "rename", lambda a, b: (done.append("rename"), rename(a, b)))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "x").write_text("1")
    artifact_files.publish(tmp_path / "tmp", tmp_path / "artifacts" / "stage" / "key")
    assert done == ["x", "tmp", "rename", "stage", "artifacts"]
