"""A store's care: files that changed are found, nothing outside an artifact is read, and only garbage goes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors, store_care
from timbre_ray.store import Store

SPAWN = multiprocessing.get_context("spawn")
DEADLINE_S = 120.0
runner = CliRunner()


@pytest.fixture
def store(tmp_path) -> Store:
    """Two artifacts of 4 and 2 bytes of files."""
    store = Store(tmp_path / "store")
    store.get_or_compute("encode", "a", lambda folder: (folder / "x.bin").write_bytes(b"abcd"), description={})
    store.get_or_compute("score", "b", lambda folder: (folder / "y.bin").write_bytes(b"ef"), description={})
    return store


def problems(store: Store) -> dict[str, tuple[str, ...]]:
    return {f"{checked.stage}/{checked.key}": checked.problems for checked in store_care.verify(store.root)}


def edit_manifest(store: Store, edit) -> None:
    path = store.root / "artifacts" / "encode" / "a" / "artifact.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_whole_store_has_no_problem(store):
    assert problems(store) == {"encode/a": (), "score/b": ()}
    result = runner.invoke(cli.app, ["store", "verify", "--storage", str(store.root)])
    assert (result.exit_code, result.output) == (0, "2 artifacts, 0 bad\n")


def test_every_file_that_is_not_what_it_was_is_reported(store):
    folder = store.root / "artifacts"
    (folder / "encode" / "a" / "x.bin").write_bytes(b"abcX")
    (folder / "encode" / "a" / "extra").touch()
    (folder / "score" / "b" / "y.bin").unlink()
    found = problems(store)
    assert [text.split(" ")[:2] for text in found["encode/a"]] == [["x.bin:", "sha256"], ["extra:", "not"]]
    assert found["score/b"] == ("y.bin: missing",)
    (folder / "score" / "b" / "y.bin").write_bytes(b"e")
    assert problems(store)["score/b"] == ("y.bin: 1 bytes instead of 2",)
    result = runner.invoke(cli.app, ["store", "verify", "--storage", str(store.root)])
    assert result.exit_code == 1
    assert "encode/a: x.bin: sha256" in result.output and "2 artifacts, 2 bad" in result.output


@pytest.mark.parametrize("name", ["../../score/b/y.bin", "/etc/hostname", "sub/../../../score/b/y.bin"])
def test_a_path_that_climbs_out_is_not_read(store, name):
    good = json.loads((store.root / "artifacts" / "score" / "b" / "artifact.json").read_text())["files"]["y.bin"]
    edit_manifest(store, lambda manifest: manifest["files"].update({name: good}))
    assert problems(store)["encode/a"] == (f"{name}: leads out of the artifact's folder; it was not read",)


def test_a_link_out_of_the_folder_is_not_read(store, tmp_path):
    path = store.root / "artifacts" / "encode" / "a" / "x.bin"
    (tmp_path / "elsewhere").write_bytes(b"abcd")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert problems(store)["encode/a"] == ("x.bin: leads out of the artifact's folder; it was not read",)


def test_a_broken_or_foreign_manifest_is_a_problem(store):
    edit_manifest(store, lambda manifest: manifest.update(key="other"))
    assert problems(store)["encode/a"] == ("artifact.json is that of encode/other",)
    edit_manifest(store, lambda manifest: manifest.pop("files"))
    assert "cannot be used (KeyError" in problems(store)["encode/a"][0] or "encode/other" in problems(store)["encode/a"][0]
    (store.root / "artifacts" / "encode" / "a" / "artifact.json").unlink()
    assert "cannot be used (FileNotFoundError" in problems(store)["encode/a"][0]


def test_usage_is_by_stage_the_largest_first(store):
    (store.root / "artifacts" / "score" / "b" / "large").write_bytes(bytes(5000))
    first, second = store_care.usage(store.root)
    assert (first.stage, first.num_artifacts, second.stage) == ("score", 1, "encode")
    assert first.num_bytes > 5000 > second.num_bytes > 4
    result = runner.invoke(cli.app, ["store", "du", "--storage", str(store.root)])
    assert result.exit_code == 0 and result.output.splitlines()[0].startswith("score")
    assert "2 artifacts" in result.output.splitlines()[-1]


def write_slowly(root: Path) -> None:
    def produce(folder: Path) -> None:
        (folder / "half").write_bytes(b"12")
        (root / "inside").touch()
        time.sleep(600)

    Store(root).get_or_compute("teach", "k", produce, description={})


def test_garbage_is_what_a_killed_writer_left_and_never_what_a_living_one_writes(store):
    writer = SPAWN.Process(target=write_slowly, args=(store.root,))
    writer.start()
    end = time.monotonic() + DEADLINE_S
    while not (store.root / "inside").exists():
        assert time.monotonic() < end, "the writer did not start"
        time.sleep(0.05)
    half = store.root / "tmp" / "teach" / "k"
    assert store_care.collect_garbage(store.root, days=0, remove=True) == [] and half.is_dir()
    writer.kill()
    writer.join()
    (found,) = store_care.collect_garbage(store.root, days=0, remove=False)
    assert (found.folder, found.reason, found.num_bytes) == (half, "its writer is gone", 2)
    assert half.is_dir()
    assert store_care.collect_garbage(store.root, days=0, remove=True) == [found]
    assert not half.exists() and store.has("encode", "a")


def test_gc_removes_old_checkpoints_with_yes_alone(store):
    old, new = store.scratch("dreambooth", "old"), store.scratch("dreambooth", "new")
    for folder in (old, new):
        (folder / "checkpoint").write_bytes(bytes(2000))
    then = time.time() - 40 * store_care.DAY_S
    for path in (old / "checkpoint", old):
        os.utime(path, (then, then))
    arguments = ["store", "gc", "--storage", str(store.root)]
    listed = runner.invoke(cli.app, arguments)
    assert "old: untouched for 40 days, 2.0 KB" in listed.output and "add --yes" in listed.output
    assert old.is_dir()
    removed = runner.invoke(cli.app, [*arguments, "--yes"])
    assert "1 folders, 2.0 KB removed" in removed.output
    assert not old.exists() and new.is_dir() and problems(store) == {"encode/a": (), "score/b": ()}


def test_gc_leaves_the_checkpoint_of_a_training_under_way(store):
    folder = store.scratch("dreambooth", "k")
    (folder / "resume.pt").write_bytes(bytes(2000))
    then = time.time() - 40 * store_care.DAY_S
    for path in (folder / "resume.pt", folder):
        os.utime(path, (then, then))
    with store.holding("dreambooth_run", "k"):
        gone = SPAWN.Process(target=collect, args=(store.root,))
        gone.start()
        gone.join(60)
        assert (folder / "resume.pt").is_file()
    collect(store.root)
    assert not folder.exists()


def collect(root: Path) -> None:
    store_care.collect_garbage(root, days=0, remove=True)


@pytest.mark.parametrize("command", ["verify", "du", "gc"])
def test_a_wrong_path_is_no_store_without_a_fault(command, tmp_path):
    result = runner.invoke(cli.app, ["store", command, "--storage", str(tmp_path / "stroe")])
    assert result.exit_code == cli_errors.BAD_INPUT and "no store there" in result.output
