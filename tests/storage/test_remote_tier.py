"""A store behind a URL, on a real S3 server: whole or nothing, checked, computed once, patient, and clear where it is no use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from timbre_ray import cache_room, cli, cli_errors, lease, remote_care
from timbre_ray.cluster.functions import Worker
from timbre_ray.leaving import Leaving
from timbre_ray.ledger import Ledger
from timbre_ray.object_storage import ObjectStorage, StorageError
from timbre_ray.remote_tier import CorruptArtifactError, RemoteTier, cache_of
from timbre_ray.store import ArtifactNotFoundError, Store

runner = CliRunner()
DEADLINE_S = 120.0


def host(tmp_path: Path, name: str, url: str) -> Store:
    """A node with a cache of its own."""
    return Store(tmp_path / name, RemoteTier(ObjectStorage(f"{url}/runs")))


def write_two(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "a.bin").write_bytes(b"first")
    (folder / "deep" / "b.bin").write_bytes(bytes(1000))
    (folder / "empty").touch()


def objects(store: Store, prefix: str) -> list[str]:
    return sorted(entry.name for entry in store.remote.storage.entries(prefix))


def test_another_host_finds_what_one_computed(tmp_path, bucket):
    one, two = host(tmp_path, "one", bucket), host(tmp_path, "two", bucket)
    made = one.get_or_compute("encode", "k", write_two, description={"work": 3})
    assert not made.reused and two.has("encode", "k") and not two.has("encode", "other")

    found = two.get_or_compute("encode", "k", lambda folder: pytest.fail("computed again"), description={})
    assert found.reused and found.seconds == made.seconds
    assert found.folder.is_relative_to(tmp_path / "two")
    names = [p.relative_to(made.folder) for p in sorted(made.folder.rglob("*")) if p.is_file()]
    assert len(names) == 4
    assert all((found.folder / name).read_bytes() == (made.folder / name).read_bytes() for name in names)
    assert [m["description"] for m in two.manifests()] == [{"work": 3}]
    with pytest.raises(ArtifactNotFoundError, match=f"{bucket}/runs: no artifact encode/other"):
        two.get("encode", "other")
    assert objects(one, "leases") == []


def test_what_is_damaged_here_alone_is_fetched_and_not_computed(tmp_path, bucket):
    one = host(tmp_path, "one", bucket)
    path = one.get_or_compute("encode", "k", write_two, description={}).file("a.bin")
    path.write_bytes(b"fir_t")
    found = one.get_or_compute("encode", "k", lambda folder: pytest.fail("computed again"), description={})
    assert found.reused and path.read_bytes() == b"first"


def test_a_full_disk_gives_up_what_the_url_has_the_longest_unused_first(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda root: SimpleNamespace(total=100, free=25))
    one = host(tmp_path, "one", bucket)
    then = time.time() - cache_room.UNUSED_S
    for age, key in enumerate(("newer", "older", "oldest", "mine")):
        folder = one.get_or_compute("dreambooth", key, write_two, description={}).folder
        os.utime(folder / "artifact.json", (then - 60 * (age + 1),) * 2)
    one.get_or_compute("dreambooth", "now", write_two, description={})
    (one.scratch("dreambooth", "sent") / "resume.pt").write_bytes(b"step 3")
    (one.scratch("dreambooth", "here-alone") / "resume.pt").write_bytes(b"step 3")
    one.remote.storage.upload("checkpoints/dreambooth/sent/00000003.pt", one.scratch("dreambooth", "sent") / "resume.pt")
    for path in (tmp_path / "one" / "scratch" / "dreambooth").glob("**/*"):
        os.utime(path, (then - 9000,) * 2)
    assert cache_room.make_room(one) == 0, "there is room"

    def usage(root: Path) -> SimpleNamespace:
        num_gone = 5 - len(list((one.root / "artifacts" / "dreambooth").iterdir()))
        return SimpleNamespace(total=100, free=20 + 5 * num_gone)

    monkeypatch.setattr(cache_room.shutil, "disk_usage", usage)
    entries = cache_room._entries

    def and_one_that_another_trial_took(root: Path) -> list:
        return [*entries(root), (0.0, "artifacts", root / "artifacts" / "dreambooth" / "gone")]

    one.remote.storage.upload("artifacts/dreambooth/gone/artifact.json", one.root / "artifacts/dreambooth/now/artifact.json")
    monkeypatch.setattr(cache_room, "_entries", and_one_that_another_trial_took)
    assert cache_room.make_room(one, in_use={("dreambooth", "mine")}) == 3
    assert sorted(p.name for p in (one.root / "artifacts" / "dreambooth").iterdir()) == ["mine", "newer", "now", "older"]
    assert not list((one.root / "scratch" / "dreambooth").iterdir()), "a training that was given up, too"
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda root: SimpleNamespace(total=100, free=0))
    with one.holding("dreambooth", "older"):
        subprocess.run([sys.executable, "-c", MAKE_ROOM, str(one.root), bucket], check=True, env=os.environ)
    assert sorted(p.name for p in (one.root / "artifacts" / "dreambooth").iterdir()) == ["now", "older"]
    found = one.get_or_compute("dreambooth", "oldest", lambda folder: pytest.fail("computed again"), description={})
    assert found.reused and found.file("a.bin").read_bytes() == b"first"


MAKE_ROOM = """
import shutil, sys
from types import SimpleNamespace
from pathlib import Path
from timbre_ray import cache_room
from timbre_ray.object_storage import ObjectStorage
from timbre_ray.remote_tier import RemoteTier
from timbre_ray.store import Store
cache_room.shutil.disk_usage = lambda root: SimpleNamespace(total=100, free=0)
cache_room.make_room(Store(Path(sys.argv[1]), RemoteTier(ObjectStorage(f"{sys.argv[2]}/runs"))))
"""


WRITER = """
import sys, time
from pathlib import Path
from timbre_ray.object_storage import ObjectStorage
from timbre_ray.remote_tier import RemoteTier
from timbre_ray.store import Store

def produce(folder):
    (folder / "a.bin").write_bytes(b"first")
    (folder / "b.bin").write_bytes(b"second")

upload = ObjectStorage.upload
ObjectStorage.upload = lambda self, name, path: time.sleep(600) if path.name == "b.bin" else upload(self, name, path)
store = Store(sys.argv[1], RemoteTier(ObjectStorage(sys.argv[2])))
store.get_or_compute("encode", "k", produce, description={})
"""


def test_a_writer_killed_half_way_leaves_garbage_and_no_result(tmp_path, bucket, monkeypatch):
    next_host = host(tmp_path, "next", bucket)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "killed"), f"{bucket}/runs"])
    try:
        end = time.monotonic() + DEADLINE_S
        while not any(name.endswith("/a.bin") for name in objects(next_host, "payload")):
            assert writer.poll() is None and time.monotonic() < end, "the writer ended, or never came that far"
            time.sleep(0.1)
    finally:
        writer.kill()
        writer.wait()

    assert not next_host.has("encode", "k") and objects(next_host, "artifacts") == []
    assert not (tmp_path / "killed" / "artifacts").exists()
    (garbage,) = remote_care.collect_garbage(next_host.remote, days=0, remove=False)
    assert (garbage.reason, garbage.num_bytes) == ("never published", 5)

    # Its lease is still there, is not renewed, and runs out.
    assert objects(next_host, "leases") == ["leases/encode/k"]
    monkeypatch.setattr(lease, "LOST_AFTER_S", 0.5)
    monkeypatch.setattr(lease, "POLL_S", 0.1)
    assert not next_host.get_or_compute("encode", "k", write_two, description={}).reused
    assert remote_care.collect_garbage(next_host.remote, days=1, remove=True) == []  # it may be under way
    assert remote_care.collect_garbage(next_host.remote, days=0, remove=True) == [garbage]
    assert [c.problems for c in remote_care.verify(next_host.remote)] == [()]


@pytest.mark.parametrize("wrong", [b"worse", b"short"[:3], b"first and more", None])
def test_a_corrupted_object_is_refused_and_named(tmp_path, bucket, wrong):
    one, two = host(tmp_path, "one", bucket), host(tmp_path, "two", bucket)
    one.get_or_compute("encode", "k", write_two, description={})
    (name,) = [name for name in objects(one, "payload") if name.endswith("/a.bin")]
    storage = one.remote.storage
    storage.delete(name)
    if wrong is not None:
        storage.write(name, wrong)
    if wrong == b"first and more":  # what artifact.json counts is what it was: nothing else is read
        assert two.get("encode", "k").file("a.bin").read_bytes() == b"first"
        return
    remedy = f"Remove {bucket}/runs/artifacts/encode/k/artifact.json"
    with pytest.raises(CorruptArtifactError, match=f"{bucket}/runs/{name}: .*{remedy}"):
        two.get("encode", "k")
    assert not list((tmp_path / "two").rglob("a.bin"))

    result = runner.invoke(cli.app, ["store", "verify", "--storage", f"{bucket}/runs"])
    assert result.exit_code == 1
    assert name in result.stderr and "1 artifacts, 1 bad" in result.stdout
    storage.delete("artifacts/encode/k/artifact.json")
    assert not two.get_or_compute("encode", "k", write_two, description={}).reused


@pytest.mark.parametrize("climbing", ["../../../../stolen", "/tmp/stolen", "deep/../../stolen"])
def test_a_manifest_that_climbs_out_writes_nothing(tmp_path, bucket, climbing):
    one, two = host(tmp_path, "one", bucket), host(tmp_path, "two", bucket)
    one.get_or_compute("encode", "k", write_two, description={})
    name = "artifacts/encode/k/artifact.json"
    manifest = json.loads(one.remote.storage.read(name))
    manifest["files"] = {climbing: manifest["files"]["a.bin"]}
    one.remote.storage.write(name, json.dumps(manifest).encode())
    with pytest.raises(CorruptArtifactError, match="leads out of the artifact's folder; nothing of it was read"):
        two.get("encode", "k")
    assert not [p for p in tmp_path.rglob("*") if p.name == "stolen"] and not Path("/tmp/stolen").exists()
    (checked,) = remote_care.verify(two.remote)
    assert "leads out" in checked.problems[0]


def compute_on_two_hosts(tmp_path, bucket) -> tuple[list[str], list[bytes]]:
    """Who computed, and what either holds in the end."""
    calls, stores = [], [host(tmp_path, name, bucket) for name in ("one", "two")]
    begin = threading.Barrier(2)

    def work(store: Store) -> None:
        def produce(folder: Path) -> None:
            calls.append(store.root.name)
            time.sleep(1)
            (folder / "a.bin").write_text(store.root.name)  # as a GPU's result differs by a rounding

        begin.wait()
        store.get_or_compute("encode", "k", produce, description={})

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls, [store.get("encode", "k").file("a.bin").read_bytes() for store in stores]


def test_who_waits_for_another_host_hears_that_it_must_leave(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(lease, "POLL_S", 0.1)
    store = host(tmp_path, "one", bucket)
    store.remote.storage.write("leases/encode/k", b"{}")
    looks = []

    def while_waiting() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise Leaving("drained")

    store.while_waiting = while_waiting
    with pytest.raises(Leaving, match="drained"):
        store.get_or_compute("encode", "k", write_two, description={})
    assert len(looks) == 3 and not store.has("encode", "k")


def test_one_record_that_cannot_be_read_hides_no_other(tmp_path, bucket):
    store = host(tmp_path, "one", bucket)
    for key in ("fine", "spoilt"):
        store.get_or_compute("encode", key, write_two, description={})
    store.remote.storage.write("artifacts/encode/spoilt/artifact.json", b"{")
    assert [manifest["key"] for manifest in store.manifests()] == ["fine"]
    assert remote_care.collect_garbage(store.remote, days=0, remove=True) == [], "its files may be whole"
    assert {name.split("/")[2] for name in objects(store, "payload")} == {"fine", "spoilt"}
    assert [checked.key for checked in remote_care.verify(store.remote) if checked.problems] == ["spoilt"]


def test_a_node_that_cannot_make_the_drivers_folder_keeps_records_in_its_cache(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "driver").write_text("no folder for others")
    worker = Worker(store_root=cache_of(f"{bucket}/runs", "~/cache"), device="cpu", threads=1, remote_url=f"{bucket}/runs")
    assert str(worker.store_root).startswith("~/cache/"), "each node's own user has a home"
    worker.ledger(tmp_path / "driver" / "stubs").write_trial({"trial_id": "a", "status": "running"})
    (kept,) = (tmp_path / "home" / "cache").glob("*/results/stubs/trials/a.json")
    assert worker.store().root == kept.parents[3]
    assert Ledger.of(tmp_path / "elsewhere" / "stubs", f"{bucket}/runs").trial("a")["status"] == "running"


def test_two_hosts_at_once_compute_once(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(lease, "POLL_S", 0.1)
    calls, held = compute_on_two_hosts(tmp_path, bucket)
    assert len(calls) == 1 and held == [calls[0].encode()] * 2


def test_where_both_compute_the_first_result_is_everybodys(tmp_path, bucket, monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(RemoteTier, "lease", lambda *args: nullcontext())
    calls, held = compute_on_two_hosts(tmp_path, bucket)
    assert sorted(calls) == ["one", "two"]
    assert held[0] == held[1] and held[0] in (b"one", b"two")
    store = host(tmp_path, "third", bucket)
    assert store.get("encode", "k").file("a.bin").read_bytes() == held[0]
    assert len(objects(store, "payload")) == 1  # the other's was taken away


def test_a_server_that_is_away_for_some_seconds_is_waited_for(tmp_path, bucket, s3_server):
    store = host(tmp_path, "one", bucket)
    assert not store.has("encode", "k")
    s3_server.stop()
    back = threading.Timer(4, s3_server.start)
    try:
        back.start()
        began = time.monotonic()
        store.get_or_compute("encode", "k", write_two, description={})
        assert time.monotonic() - began > 3
    finally:
        back.join()
    assert host(tmp_path, "two", bucket).get("encode", "k").file("a.bin").read_bytes() == b"first"


def test_storage_that_is_gone_for_good_is_named_with_the_operation(tmp_path, bucket, monkeypatch):
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/x: cannot write k: .*NoSuchBucket.*Is the bucket there"):
        ObjectStorage("s3://no-such-bucket/x").write("k", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    began = time.monotonic()
    with pytest.raises(StorageError, match=rf"{bucket}: cannot upload k: "):
        ObjectStorage(bucket, patience_s=2).upload("k", Path(__file__))
    assert time.monotonic() - began < 30


def test_du_and_gc_work_on_the_url(tmp_path, bucket):
    store = host(tmp_path, "one", bucket)
    store.get_or_compute("encode", "k", write_two, description={})
    url = f"{bucket}/runs"
    store.remote.storage.write("payload/encode/k/dead-writer/a.bin", b"x" * 100)
    du = runner.invoke(cli.app, ["store", "du", "--storage", url])
    assert du.exit_code == 0 and "encode                1 artifacts" in du.stdout
    assert "0 folders" in runner.invoke(cli.app, ["store", "gc", "--storage", url]).stdout
    gc = runner.invoke(cli.app, ["store", "gc", "--storage", url, "--days", "0", "--yes"])
    assert f"{url}/payload/encode/k/dead-writer: never published, 100 B" in gc.stdout
    assert runner.invoke(cli.app, ["store", "verify", "--storage", url]).stdout == "1 artifacts, 0 bad\n"
    nothing = runner.invoke(cli.app, ["store", "verify", "--storage", f"{bucket}/elsewhere"])
    assert nothing.exit_code == cli_errors.BAD_INPUT and "no store there" in nothing.stderr


def test_storage_travels_by_pickle_without_its_credentials(bucket):
    import pickle

    data = pickle.dumps(ObjectStorage(bucket))
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in data
    pickle.loads(data).write("k", b"1")
    assert ObjectStorage(bucket).read("k") == b"1"


def test_a_ledger_is_mirrored_whatever_its_records_are_called(tmp_path, bucket):
    one, two = (Ledger.of(tmp_path / name / "my sweep", f"{bucket}/runs") for name in ("one", "two"))
    one.write_sweep({"name": "my sweep"})
    for trial_id in ("plain-s0", "a/b c", "100 %", "flöte", ".."):
        one.write_trial({"trial_id": trial_id, "status": "finished"})
    one.write_baseline("a flute", {"metrics": {}})
    assert two.trial("a/b c") == {"trial_id": "a/b c", "status": "finished"} and two.trial("other") is None
    assert len(two.pull()) == 7
    assert (two.trials(), two.baselines(), two.sweep()) == (one.trials(), one.baselines(), one.sweep())

    # What else lies there, or was put there to climb out, does not come with it.
    storage = ObjectStorage(f"{bucket}/runs/results/my%20sweep")
    for name in ("notes.txt", "trials/deep/x.json", ".lock"):
        storage.write(name, b"{}")
    assert len(two.pull()) == 7 and len(list((tmp_path / "two").rglob("*.json"))) == 7


def test_records_of_runs_before_the_url_reach_it(tmp_path, bucket):
    Ledger(tmp_path / "old" / "stubs").write_trial({"trial_id": "t", "status": "finished"})
    Ledger.of(tmp_path / "old" / "stubs", f"{bucket}/runs").sync()
    new = Ledger.of(tmp_path / "new" / "stubs", f"{bucket}/runs")
    new.pull()
    assert new.trials() == [{"trial_id": "t", "status": "finished"}]


def test_a_trial_that_finished_while_the_url_was_away_stays_finished(tmp_path, bucket, monkeypatch):
    record = {"trial_id": "t", "trial_key": "k", "status": "running"}
    ledger = Ledger.of(tmp_path / "mine" / "stubs", f"{bucket}/runs", patience_s=1)
    ledger.write_trial(record)
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(StorageError, match="cannot write trials/t.json"):
        Ledger.of(tmp_path / "mine" / "stubs", f"{bucket}/runs", patience_s=1).write_trial({**record, "status": "finished"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    ledger.sync()
    other = Ledger.of(tmp_path / "other" / "stubs", f"{bucket}/runs")
    assert ledger.trial("t") == other.trial("t") == {**record, "status": "finished"}

    other.write_trial({**record, "trial_key": "edited"})  # another machine has begun with another spec: that one counts
    ledger.sync()
    assert ledger.trial("t")["trial_key"] == "edited"
