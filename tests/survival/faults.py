"""The table of faults: what is killed when, how the sweep goes on, and what that may repeat."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from tests.integration.ray_nodes import add_worker
from tests.survival.scene import ARMS, Scene, cluster_of, flip, kill, mounted_disk
from tests.survival.trained import STEPS, steps_file, trained_sweep
from timbre_ray.train.checkpoint import reached

PLAIN, LONGER, OTHER_ARMS, TRAINED = "stubs", "longer", "other_arms", "trained"
MINUTE_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    name: str
    struck: str
    """What happens when, in words."""
    play: Callable[[Scene], None]
    """Strikes and goes on to the end; checks what only this fault shows."""
    repeated: tuple[str, ...] = ()
    """Stages that are computed twice, and no others."""
    retries: int | None = 0
    """Attempts at trials beyond the first of each; None: depends on who meets the fault first."""
    ends_as: str = PLAIN
    """The undisturbed sweep that has the same end."""


def worker(scene: Scene) -> None:
    scene.plan_strike("trial-a-0-10", "pause")
    driver = scene.start(scene.write())
    kill(scene.reached("trial-a-0-10", driver))
    scene.finish(driver)


def worker_notice(scene: Scene) -> None:
    """No failure is allowed: leaving is none."""
    scene.plan_strike("trial-a-0-10", "work")
    driver = scene.start(scene.write(max_failures=0))
    kill(scene.reached("trial-a-0-10", driver), signal.SIGTERM)
    scene.finish(driver)


def scorer(scene: Scene) -> None:
    scene.plan_strike("score-a-0-10", "pause")
    driver = scene.start(scene.write())
    kill(scene.reached("score-a-0-10", driver))
    scene.finish(driver)


def scorer_each_time(scene: Scene) -> None:
    """The trial alone fails whose score it is."""
    scene.plan_strike("score-a-0-10", "always kill")
    scene.run(scene.write(), exit_code=1)
    assert scene.record("a")["error"]["stage"] == "score" and scene.record("b")["status"] == "finished"
    (scene.folder / "strikes" / "score-a-0-10").unlink()
    scene.run(scene.write())


def scorer_node(scene: Scene) -> None:
    """A trial fills the node that is left: it gives its place up for the actor, which is no failure, and goes on elsewhere."""
    with cluster_of(2) as cluster:
        for arm in ARMS:
            scene.plan_strike(f"start-{arm}-0", "always impatient")
        scene.plan_strike("score-a-0-10", "pause")
        resources = {"train": {"cpu": 2}, "score": {"cpu": 1}}
        driver = scene.start(scene.write(resources=resources, max_failures=0), cluster=cluster)
        kill(_raylet_of(scene.reached("score-a-0-10", driver), cluster))
        time.sleep(MINUTE_S)
        add_worker(cluster)
        printed = scene.finish(driver)
        assert "no evaluation actor has had a place" in printed, printed


def raylet(scene: Scene) -> None:
    with cluster_of(2) as cluster:
        scene.plan_strike("trial-a-0-10", "pause")
        driver = scene.start(scene.write(max_concurrent=1), cluster=cluster)  # so that one trial is under way
        kill(_raylet_of(scene.reached("trial-a-0-10", driver), cluster))
        scene.finish(driver)


def _raylet_of(process: int, cluster: Cluster) -> int:
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes}
    (own,) = raylets & {parent.pid for parent in psutil.Process(process).parents()}
    return own


def driver(scene: Scene, sent: signal.Signals = signal.SIGKILL) -> None:
    scene.plan_strike("trial-a-0-10", "pause")
    first = scene.start(scene.write(max_concurrent=1))  # so that one trial is under way
    scene.reached("trial-a-0-10", first)
    kill(first.pid, sent)
    first.communicate()
    scene.run(scene.write())


def head(scene: Scene) -> None:
    with cluster_of() as cluster:
        scene.plan_strike("trial-a-0-10", "pause")
        first = scene.start(scene.write(max_concurrent=1), cluster=cluster)  # so that one trial is under way
        scene.reached("trial-a-0-10", first)
        for name in ("gcs_server", "raylet"):
            kill(cluster.head_node.all_processes[name][0].process.pid)
        kill(first.pid)  # it ran on the head
        first.communicate()
    scene.run(scene.write())


def full_disk(scene: Scene) -> None:
    """A small disk of its own under the store, or, where mounting is not allowed, the error it would give."""
    if mounted_disk(scene.store, 1 << 20):
        free = os.statvfs(scene.store).f_bavail * os.statvfs(scene.store).f_frsize
        (scene.store / "other-data").write_bytes(bytes(free - 65_536))
        scene.run(scene.write(), exit_code=1)
        (scene.store / "other-data").unlink()
    else:
        scene.plan_strike("produce-a-0-10", "always ENOSPC")
        scene.run(scene.write(), exit_code=1)
        (scene.folder / "strikes" / "produce-a-0-10").unlink()
    assert "No space left on device" in scene.record("a")["error"]["message"]
    scene.run(scene.write())


def storage_for_a_minute(scene: Scene) -> None:
    scene.plan_strike("produce-a-0-10", "always EIO")
    driver = scene.start(scene.write(max_failures=0))
    scene.began("a", driver)
    time.sleep(MINUTE_S)
    (scene.folder / "strikes" / "produce-a-0-10").unlink()
    scene.finish(driver)


def storage_for_good(scene: Scene) -> None:
    scene.plan_strike("produce-a-0-10", "always EIO")
    scene.run(scene.write(storage_patience_s=2.0), exit_code=1)
    error = scene.record("a")["error"]
    assert error["type"] == "StorageError" and f"{scene.store}: cannot keep dreambooth/a0step10 for 2 s" in error["message"]
    assert "Input/output error" in error["message"]
    assert scene.record("b")["status"] == "finished"
    (scene.folder / "strikes" / "produce-a-0-10").unlink()
    scene.run(scene.write())


def bit_flip(scene: Scene) -> None:
    scene.run(scene.write())
    flip(scene.store / "artifacts" / "dreambooth" / "a0step10" / "weights", 100)
    scene.run(scene.write(steps=(0, 10, 20)))


def two_sweeps(scene: Scene) -> None:
    both = [scene.start(scene.write(name=name)) for name in ("stubs", "twin")]
    for process in both:
        scene.finish(process)
    assert scene.state("twin") == scene.state("stubs")


def edited(scene: Scene) -> None:
    scene.run(scene.write())
    printed = scene.run(scene.write(arms=("b", "c")))
    assert "1 kept, 1 to run; 1 no longer planned" in printed, printed


def clocks(scene: Scene) -> None:
    scene.plan_strike("start-a-0", "clock")
    scene.plan_strike("trial-a-0-10", "pause")
    process = scene.start(scene.write())
    kill(scene.reached("trial-a-0-10", process))
    scene.finish(process)


def not_a_number(scene: Scene) -> None:
    scene.plan_strike("score-a-0-10", "nan")
    scene.run(scene.write(), exit_code=1)
    assert "fad_held_out is nan" in scene.record("a")["error"]["message"]
    assert scene.record("b")["status"] == "finished"
    scene.run(scene.write())


def hang(scene: Scene) -> None:
    scene.plan_strike("trial-a-0-10", "pause")
    scene.run(scene.write(hang_timeout_s=20.0))
    stack = (scene.folder / "results" / "stubs" / "hung" / f"{scene.record('a')['trial_id']}.txt").read_text()
    assert "in strike" in stack and "in trial" in stack, stack


def scorer_hang(scene: Scene) -> None:
    """Longer than a trial may stand still: who waits for a score does not."""
    scene.plan_strike("score-a-0-10", "pause")
    scene.run(scene.write(hang_timeout_s=20.0))
    stack = (scene.folder / "results" / "stubs" / "hung" / "scorer-0.txt").read_text()
    assert "in strike" in stack and "in score" in stack, stack


def host_amid_checkpoint(scene: Scene) -> None:
    """The host goes with all its processes at once, when a checkpoint is written but not yet in its place."""
    with cluster_of(2) as cluster:
        scene.plan_strike("checkpoint-4", "pause")
        driver = scene.start(scene.put("stubs", trained_sweep()), cluster=cluster)
        trial = psutil.Process(scene.reached("checkpoint-4", driver))
        raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes}
        (own,) = raylets & {process.pid for process in trial.parents()}
        host = [psutil.Process(own), *psutil.Process(own).children(recursive=True)]
        for process in host:
            process.kill()
        psutil.wait_procs(host, timeout=60)
        saved = _checkpoint_of(scene)
        assert reached(saved) == 3 and len(list(saved.parent.glob("*.tmp"))) == 1
        scene.finish(driver)
    assert len(steps_file(scene.store).read_text()) == STEPS + 1, "the fourth step alone was computed twice"


def checkpoint_cut_off(scene: Scene) -> None:
    scene.plan_strike("checkpoint-4", "pause")
    driver = scene.start(scene.put("stubs", trained_sweep()))
    trial = scene.reached("checkpoint-4", driver)
    saved = _checkpoint_of(scene)
    os.truncate(saved, saved.stat().st_size // 2)
    kill(trial)
    scene.finish(driver)
    assert len(steps_file(scene.store).read_text()) == STEPS + 4, "it began anew"


def _checkpoint_of(scene: Scene) -> Path:
    (saved,) = scene.store.rglob("resume.pt")
    return saved


def terminated(play: Callable[..., None]) -> Callable[[Scene], None]:
    return lambda scene: play(scene, signal.SIGTERM)


def table() -> dict[str, Fault]:
    retried: dict[str, Any] = {"retries": 1}
    faults = (
        Fault(name="worker", struck="`kill -9` of a trial's process before step 10", play=worker, **retried),
        Fault(
            name="worker-notice", struck="SIGTERM to a trial's process before step 10; no failure allowed", play=worker_notice,
            **retried,
        ),
        Fault(name="scorer", struck="`kill -9` of the evaluation actor while it scores step 10", play=scorer),
        Fault(
            name="scorer-each-time", struck="an evaluation actor dies of one score at each try; mended, run again",
            play=scorer_each_time, retries=2,
        ),
        Fault(
            name="scorer-node",
            struck="`kill -9` of the raylet under the evaluation actor; a waiting trial fills the other node; then a third joins",
            play=scorer_node, **retried,
        ),
        Fault(name="raylet", struck="`kill -9` of the raylet under a trial; another node is left", play=raylet, **retried),
        Fault(name="driver", struck="`kill -9` of the driver amid a trial; run again", play=driver, **retried),
        Fault(
            name="driver-notice", struck="SIGTERM to the driver amid a trial; run again", play=terminated(driver), **retried
        ),
        Fault(
            name="head", struck="`kill -9` of GCS, the head's raylet and the driver; run again", play=head, **retried
        ),
        Fault(
            name="host-amid-checkpoint",
            struck="`kill -9` of all processes of a host, between writing a checkpoint and its rename",
            play=host_amid_checkpoint, ends_as=TRAINED, **retried,
        ),
        Fault(
            name="checkpoint-cut-off", struck="a checkpoint loses its second half, its trial's process is killed",
            play=checkpoint_cut_off, ends_as=TRAINED, **retried,
        ),
        Fault(name="full-disk", struck="no space left under the store; room made, run again", play=full_disk, retries=None),
        Fault(
            name="storage-minute", struck="EIO at each write of one trial for a minute; no failure allowed",
            play=storage_for_a_minute,
        ),
        Fault(
            name="storage-for-good", struck="EIO at each write of one trial; mended, run again", play=storage_for_good, retries=2
        ),
        Fault(
            name="bit-flip", struck="one bit of published weights flips; the sweep, now longer, runs again", play=bit_flip,
            repeated=("dreambooth/a0step10",), retries=2, ends_as=LONGER,
        ),
        Fault(name="two-sweeps", struck="two drivers share a store and all stages at one time", play=two_sweeps, retries=2),
        Fault(name="edited", struck="between two runs arm a goes and arm c comes", play=edited, ends_as=OTHER_ARMS),
        Fault(name="clocks", struck="a worker's clock is an hour behind; killed before step 10", play=clocks, **retried),
        Fault(name="nan", struck="a score that is no number; run again", play=not_a_number, **retried),
        Fault(name="hang", struck="a trial stands still (`run.hang_timeout_s: 20`)", play=hang, **retried),
        Fault(name="scorer-hang", struck="an evaluation actor stands still at a score (likewise)", play=scorer_hang),
    )  # fmt: skip
    return {fault.name: fault for fault in faults}
