"""Two machines at one sweep behind a URL: the second is refused while the first lives, and goes on where it is gone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors, lease, sole_driver
from timbre_ray.ledger import Ledger, mirror_of
from timbre_ray.object_storage import ObjectStorage
from timbre_ray.sole_driver import alone

runner = CliRunner()

#: Holds the sweep from a folder of its own until it is killed; it renews ten times a second.
HOLDER = """
import sys, time
from pathlib import Path
from timbre_ray import lease
from timbre_ray.sole_driver import alone

lease.RENEWED_EVERY_S = 0.1
with alone(Path(sys.argv[1]) / "stubs", sys.argv[2], patience_s=5, say=print):
    (Path(sys.argv[1]) / "holds").touch()
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "RENEWED_EVERY_S", 0.1)
    monkeypatch.setattr(lease, "LOST_AFTER_S", 2.0)
    monkeypatch.setattr(lease, "POLL_S", 0.05)


@pytest.fixture
def other(tmp_path, bucket):
    """A driver on another machine, as far as it can tell."""
    (tmp_path / "other").mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "other"), f"{bucket}/runs"])
    end = time.monotonic() + 120
    while not (tmp_path / "other" / "holds").exists():
        assert process.poll() is None and time.monotonic() < end, "it never held the sweep"
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def hold(folder: Path, url: str, said: list[str]):
    return alone(folder / "stubs", url, patience_s=5, say=said.append)


def test_the_second_is_refused_while_the_first_lives_and_goes_on_where_it_is_killed(tmp_path, bucket, other):
    url, said = f"{bucket}/runs", []
    with pytest.raises(RuntimeError, match=rf"{url}/results/stubs: the driver {other.pid} on .* runs this sweep at the moment"):
        with hold(tmp_path / "mine", url, said):
            pytest.fail("two drivers")
    other.kill()
    other.wait()
    with hold(tmp_path / "mine", url, said) as check:
        check()
    assert len(said) == 2 and f"the driver {other.pid} on" in said[1]
    with hold(tmp_path / "third", url, said):
        assert len(said) == 2, "the second gave the lease back: nobody had to be waited for"


def test_a_driver_that_is_started_again_waits_for_no_one(tmp_path, bucket, other):
    other.kill()
    other.wait()
    said: list[str] = []
    began = time.monotonic()
    with hold(tmp_path / "other", f"{bucket}/runs", said):
        assert not said and time.monotonic() - began < lease.LOST_AFTER_S


def test_a_copy_of_the_results_is_no_claim_to_the_sweep(tmp_path, bucket, other):
    """Whoever takes the records to another machine has not stopped the driver."""
    shutil.copytree(tmp_path / "other" / "stubs", tmp_path / "copy" / "stubs")
    with pytest.raises(RuntimeError, match=f"the driver {other.pid} on .* runs this sweep at the moment"):
        with hold(tmp_path / "copy", f"{bucket}/runs", []):
            pytest.fail("two drivers")


def test_a_driver_whose_lease_was_taken_over_ends(tmp_path, bucket):
    url = f"{bucket}/runs"
    with hold(tmp_path / "one", url, []) as check:
        check()
        theirs = json.dumps({"lease": "another", "host": "elsewhere"}).encode()
        mirror_of(url, "stubs").write(sole_driver.LEASE, theirs)
        end = time.monotonic() + 30
        with pytest.raises(RuntimeError, match="another driver took this sweep over"):
            while time.monotonic() < end:
                check()
                time.sleep(0.05)
    assert mirror_of(url, "stubs").read(sole_driver.LEASE) == theirs, "it is not ours to remove"


def test_status_from_anywhere(tmp_path, bucket, monkeypatch):
    url = f"{bucket}/runs"
    ledger = Ledger.of(tmp_path / "mine" / "stubs", url)
    ledger.write_sweep({"name": "stubs", "planned": ["a", "b"], "run": {"storage": url}})
    scores = {"step": 25, "metrics": {"fad_held_out": 61.25}}
    ledger.write_trial(
        {"trial_id": "a", "status": "running", "error": None, "evaluations": [scores], "started": 1.0, "wall_s": None}
    )
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    monkeypatch.chdir(laptop)
    (laptop / "s.yaml").write_text(f"name: stubs\nrun: {{storage: '{url}'}}\n")
    for words in ([url], ["s.yaml"], ["stubs", "--storage", url]):
        with hold(tmp_path / "mine", url, []):
            running = runner.invoke(cli.app, ["status", *words])
        stopped = runner.invoke(cli.app, ["status", *words])
        assert running.exit_code == stopped.exit_code == 0, running.output + stopped.output
        assert running.stdout.startswith("stubs (running): 1 running, 1 not begun, 2 planned") and "61.25" in running.stdout
        assert stopped.stdout.startswith("stubs (not running): 1 interrupted, 1 not begun, 2 planned")
    assert [path.name for path in laptop.rglob("*")] == ["s.yaml"]

    Ledger.of(tmp_path / "mine" / "more-of-it", url).write_sweep({"name": "more-of-it", "planned": [], "run": {"storage": url}})
    both = runner.invoke(cli.app, ["status", url])
    assert [line for line in both.stdout.splitlines() if "planned" in line] == [
        "more-of-it (not running): 0 not begun, 0 planned", "stubs (not running): 1 interrupted, 1 not begun, 2 planned",
    ]  # fmt: skip
    many = runner.invoke(cli.app, ["report", url])
    assert many.exit_code == cli_errors.BAD_INPUT
    assert f"timbre-ray report NAME --storage {url} (NAME: more-of-it, stubs)" in many.stderr
    for words in (["status", f"{bucket}/nothing"], ["report", f"{bucket}/nothing"]):
        missing = runner.invoke(cli.app, words)
        assert missing.exit_code == cli_errors.BAD_INPUT and f"{bucket}/nothing: no results found there" in missing.stderr
    climbing = ObjectStorage(f"{bucket}/climbing")
    climbing.write("results/..%2F..%2Fstolen/sweep.json", b"{}")
    (laptop / "climbing.yaml").write_text(f"name: ../stolen\nrun: {{storage: '{url}'}}\n")
    for words in (["status", climbing.url], ["report", climbing.url], ["report", "climbing.yaml"]):
        assert runner.invoke(cli.app, words).exit_code == cli_errors.BAD_INPUT
    assert not list(tmp_path.rglob("stolen"))
    secret = runner.invoke(cli.app, ["status", "s3://AKIA:hush@bucket/x"])
    assert secret.exit_code == cli_errors.BAD_INPUT and "hush" not in secret.output
