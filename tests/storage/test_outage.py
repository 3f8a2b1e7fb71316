"""A sweep whose S3 server goes away: for a minute, and for longer than it is waited for. A second driver is refused meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stub_sweeps import by_token, stub_sweep, write_clips, write_sweep

from timbre_ray.ledger import Ledger
from timbre_ray.object_storage import ObjectStorage
from timbre_ray.store import Store

DRIVER = Path(__file__).with_name("sweep_driver.py")
DEADLINE_S = 400.0
ARMS = ("slow_a", "slow_b", "slow_c", "slow_d")


class Machine:
    """A driver's machine: its own cache and results."""

    def __init__(self, folder: Path, url: str, ray_folder: Path) -> None:
        self.folder, self._ray_folder = folder, ray_folder
        self.sweep = folder.with_suffix(".yaml")
        self._url = url

    def write(self, **run: object) -> None:
        sweep = stub_sweep(write_clips(self.folder.parent / "flute"), arms=by_token(*ARMS))
        places = {"storage": self._url, "results": str(self.folder / "results"), "cache": str(self.folder / "cache")}
        write_sweep(self.sweep, sweep, max_concurrent=1, max_failures=0, **places, **run)

    def start(self, *command: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return subprocess.Popen(
            [sys.executable, *(command or (str(DRIVER),)), str(self.sweep)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**environment, "RAY_TMPDIR": str(self._ray_folder)},
        )  # fmt: skip

    def records(self) -> list[dict]:
        return Ledger(self.folder / "results" / "stubs").trials()

    def computed(self) -> Counter[str]:
        (root,) = (self.folder / "cache").iterdir()
        return Counter(f"{e['stage']}/{e['key']}" for e in Store(root).log() if e["event"] == "computed")

    def wait_for(self, reached: Callable[[list[dict]], bool], driver: subprocess.Popen[str]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not reached(self.records()):
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def machines(tmp_path, bucket) -> Iterator[tuple[Machine, Machine]]:
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # Ray's sockets need a short path
        yield tuple(Machine(tmp_path / name, f"{bucket}/runs", Path(folder)) for name in ("one", "two"))


def scored(records: list[dict]) -> bool:
    return any(record["evaluations"] for record in records)


@pytest.mark.slow
def test_a_minute_without_the_server_and_a_second_driver_harm_nothing(machines, s3_server):
    one, two = machines
    one.write()
    two.write()
    driver = one.start()
    try:
        one.wait_for(scored, driver)
        refused = two.start("-c", "from timbre_ray.cli import main; main()", "run")
        s3_server.stop()
        time.sleep(60)
        s3_server.start()
        printed, _ = refused.communicate(timeout=DEADLINE_S)
        assert refused.returncode == 2 and "runs this sweep at the moment. Wait for it, or stop it." in printed, printed
        printed, _ = driver.communicate(timeout=DEADLINE_S)
        assert "kept 0, finished 4, failed 0" in printed, printed
    finally:
        driver.kill()
        refused.kill()
    assert one.computed().total() == len(one.computed()) == 8, "nothing was computed twice"
    printed, _ = two.start().communicate(timeout=DEADLINE_S)
    assert "kept 4, finished 0, failed 0" in printed, printed


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_sweep_with_its_name_and_nothing_is_lost(machines, bucket, s3_server):
    one, _ = machines
    one.write(storage_patience_s=3)
    driver = one.start()
    try:
        one.wait_for(lambda records: any(record["status"] == "finished" for record in records), driver)
        s3_server.stop()
        printed, _ = driver.communicate(timeout=DEADLINE_S)
    finally:
        driver.kill()
        s3_server.start()
    assert driver.returncode != 0 and f"StorageError: {bucket}/runs" in printed and "cannot" in printed, printed
    before = one.computed()
    assert before
    printed, _ = one.start().communicate(timeout=DEADLINE_S)
    assert "finished" in printed and "failed 0" in printed, printed
    assert one.computed().total() == len(one.computed()) == 8, "what was finished was not computed again"
    mirrored = {e.name for e in ObjectStorage(f"{bucket}/runs/results/stubs").entries() if e.name.startswith("trials/")}
    assert len(mirrored) == 4
