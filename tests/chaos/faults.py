"""What can strike a sweep while it runs, and strike it again: each waits for its victim, strikes, and tells what it hit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock
import psutil

from tests.chaos.schedule import Planned
from tests.chaos.seams import AtWork, events
from tests.chaos.stage import DISK_BYTES, NAME, NotNowError, Sweep, fill, resized, until
from tests.survival.scene import PATIENCE_S, flip, kill
from timbre_ray.artifact_files import MANIFEST
from timbre_ray.store import Store

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    victim: str
    """In words."""
    trials: tuple[str, ...] = ()
    """Whose process it ended, or whose attempt."""
    artifact: str | None = None
    """``stage/key`` of what it damaged."""
    at: float = dataclasses.field(default_factory=time.time)
    """Unix time."""


Strike = Callable[[Sweep, Planned], Hit]


def chosen(victims: list[T], planned: Planned) -> T:
    return victims[int(planned.victim * len(victims))]


def seconds(planned: Planned) -> float:
    return 2 + 4 * planned.amount


def one_at_work(role: str, sweep: Sweep, planned: Planned) -> AtWork:
    return chosen(sorted(sweep.wait_for(lambda: sweep.at_work(role)), key=lambda one: (one.trial, one.pid)), planned)


# -- processes ---------------------------------------------------------------------------------------------------------


def killed(role: str, sent: signal.Signals = signal.SIGKILL) -> Strike:
    def strike(sweep: Sweep, planned: Planned) -> Hit:
        one = one_at_work(role, sweep, planned)
        where = stage_of(sweep, one.trial)
        kill(one.pid, sent)
        return Hit(victim=f"process {one.pid}, {role} of {one.trial}, {where}", trials=(one.trial,) if role == "trial" else ())

    return strike


def stopped(role: str) -> Strike:
    def strike(sweep: Sweep, planned: Planned) -> Hit:
        one = one_at_work(role, sweep, planned)
        _stop(one.pid, seconds(planned))
        return Hit(victim=f"process {one.pid}, {role} of {one.trial}, for {seconds(planned):.1f} s")

    return strike


def _stop(pid: int, for_s: float) -> None:
    process = psutil.Process(pid)
    process.suspend()
    time.sleep(for_s)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def driver_killed(sent: signal.Signals) -> Strike:
    def strike(sweep: Sweep, planned: Planned) -> Hit:
        pid, trials = sweep.driver.pid, _trials(sweep.at_work("trial"))
        sweep.lose_driver(sent)
        sweep.go()
        return Hit(victim=f"process {pid}, driver of {len(trials)} trials at work", trials=trials)

    return strike


def driver_stopped(sweep: Sweep, planned: Planned) -> Hit:
    _stop(sweep.driver.pid, seconds(planned))
    return Hit(victim=f"process {sweep.driver.pid}, driver, for {seconds(planned):.1f} s")


def node(sweep: Sweep, planned: Planned) -> Hit:
    raylet, at = chosen(sorted(sweep.ground.raylets()), planned), time.time()
    children = {child.pid for child in psutil.Process(raylet).children(recursive=True)}
    here = [one for one in sweep.at_work() if one.pid in children]
    sweep.ground.lose_node(raylet)
    victim = f"process {raylet}, raylet over {len(here)} at work" + "".join(f", {one.role} of {one.trial}" for one in here)
    return Hit(victim=victim, trials=_trials(one for one in here if one.role == "trial"), at=at)


def head(sweep: Sweep, planned: Planned) -> Hit:
    trials, at = _trials(sweep.at_work("trial")), time.time()
    sweep.lose_driver()  # it ran on the head
    sweep.ground.lose_head()
    sweep.go()
    return Hit(victim=f"GCS, the head's raylet and the driver of {len(trials)} trials at work", trials=trials, at=at)


# -- the store ---------------------------------------------------------------------------------------------------------


def bit_flip(sweep: Sweep, planned: Planned) -> Hit:
    artifact = chosen(sorted(sweep.wait_for(lambda: sweep.published() - set(sweep.flipped))), planned)
    folder, draw = sweep.scene.store / "artifacts" / artifact, random.Random(planned.amount)
    path = draw.choice(sorted(p for p in folder.rglob("*") if p.name != MANIFEST and p.stat().st_size))
    position = draw.randrange(path.stat().st_size)
    flip(path, position)
    sweep.flipped.append(artifact)
    return Hit(victim=f"{artifact}, {path.relative_to(folder)}, byte {position} of {path.stat().st_size}", artifact=artifact)


def checkpoint(sweep: Sweep, planned: Planned) -> Hit:
    """A process that writes checkpoints dies, and the disk keeps a part of the last one."""
    owned = sweep.wait_for(lambda: _checkpoints(sweep))
    (path, one), at = chosen(owned, planned), time.time()
    kill(one.pid)
    with _free_lock(sweep, "dreambooth_run", path.parent.name):
        whole = path.stat().st_size if path.is_file() else 0  # its training may have ended just before
        if whole:
            os.truncate(path, int(planned.amount * whole))
    victim = f"checkpoint of {one.trial}, {int(planned.amount * whole)} of {whole} bytes left, its process {one.pid} killed"
    return Hit(victim=victim, trials=(one.trial,), at=at)


def _checkpoints(sweep: Sweep) -> list[tuple[Path, AtWork]]:
    """With the process that holds the lock of its training, as it has the lock's file open."""
    found = []
    for path in sorted((sweep.scene.store / "scratch" / "dreambooth").glob("*/resume.pt")):
        lock = sweep.scene.store / "locks" / "dreambooth_run" / f"{path.parent.name}.lock"
        for one in sweep.at_work("trial"):
            with contextlib.suppress(psutil.Error):
                if any(Path(file.path) == lock for file in psutil.Process(one.pid).open_files()):
                    found.append((path, one))
    return found


def _free_lock(sweep: Sweep, stage: str, key: str) -> contextlib.AbstractContextManager:
    try:
        return Store(sweep.scene.store).lock(stage, key).acquire(timeout=5)
    except filelock.Timeout:
        raise NotNowError from None


def full_disk(sweep: Sweep, planned: Planned) -> Hit:
    """Until somebody noticed."""
    store = sweep.scene.store
    if not os.path.ismount(store):
        return _fails_for_a_while(sweep, planned, "ENOSPC")
    since = time.time()
    fill(store)
    try:
        time.sleep(seconds(planned))
        until(lambda: _errors(sweep, since), timeout_s=3 * seconds(planned))
    finally:
        assert resized(store, DISK_BYTES), f"{store}: cannot be given its size again"
    return _told("no space", since, _errors(sweep, since))


def io_error(sweep: Sweep, planned: Planned) -> Hit:
    return _fails_for_a_while(sweep, planned, "EIO")


def _fails_for_a_while(sweep: Sweep, planned: Planned, error: str) -> Hit:
    since = time.time()
    with _planned_strike(sweep, "produce", f"always {error}"):
        time.sleep(seconds(planned))
        until(lambda: _errors(sweep, since), timeout_s=3 * seconds(planned))
    return _told(f"{error} at every write", since, _errors(sweep, since))


def _errors(sweep: Sweep, since: float) -> list[dict]:
    return [e for e in events(sweep.scene.folder) if e["event"] == "ended" and e["time"] > since and e["error"]]


def _told(what: str, since: float, errors: list[dict]) -> Hit:
    """By those whom it hit."""
    lasted = f"{what} for {time.time() - since:.1f} s"
    told = "; ".join(f"{e['role']} of {e['trial']}: {e['error'][:150]}" for e in errors) or "nobody wrote meanwhile"
    return Hit(victim=f"{lasted}: {told}", trials=tuple(sorted({e["trial"] for e in errors})), at=since)


def garbage(sweep: Sweep, planned: Planned) -> Hit:
    """What a writer that died leaves of an artifact: of one that is still to come, if any is."""
    free = sorted(sweep.keys - sweep.published()) or sorted(sweep.keys)
    stage, key = chosen(free, planned).split("/")
    with _free_lock(sweep, stage, key):
        folder = sweep.scene.store / "tmp" / stage / key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "half").write_bytes(random.Random(planned.amount).randbytes(1000))
    return Hit(victim=f"tmp/{stage}/{key}")


# -- other drivers -----------------------------------------------------------------------------------------------------


def same_sweep(sweep: Sweep, planned: Planned) -> Hit:
    """The same command once more: it is refused."""
    second = sweep.command()
    printed, _ = second.communicate(timeout=PATIENCE_S)
    refused = "another process runs this sweep" in printed
    if not refused and sweep.driver.poll() is not None:
        raise NotNowError  # the first had ended before the second looked
    assert refused and second.returncode, f"a second driver was not refused (exit code {second.returncode}):\n{printed}"
    return Hit(victim="refused: another process runs this sweep")


def same_store(sweep: Sweep, planned: Planned) -> Hit:
    """Another sweep with the same stages, for a while."""
    twin = sweep.scene.put("twin", sweep.body, **{**sweep.run, "max_concurrent": 1})
    second = dataclasses.replace(sweep.scene, drive=(*sweep.scene.drive[:-1], "twin")).start(twin, cluster=sweep.ground.cluster)
    try:
        began = time.monotonic()
        until(lambda: list((sweep.scene.folder / "results" / "twin" / "trials").glob("*.json")), timeout_s=60)
        time.sleep(seconds(planned))
    finally:
        second.kill()
        second.communicate()
    return Hit(victim=f"a twin of the sweep on the same store, killed after {time.monotonic() - began:.1f} s")


# -- from within -------------------------------------------------------------------------------------------------------


def not_a_number(sweep: Sweep, planned: Planned) -> Hit:
    return _struck_within(sweep, "score", "nan", "the score of")


def hang(sweep: Sweep, planned: Planned) -> Hit:
    return _struck_within(sweep, "progress", "pause", "stands still:")


def _struck_within(sweep: Sweep, place: str, action: str, words: str) -> Hit:
    reached = sweep.scene.folder / "strikes" / f"{place}.reached"
    with _planned_strike(sweep, place, action):
        sweep.wait_for(reached.is_file)
    pid, at = int(reached.read_text()), reached.stat().st_mtime
    begun = [e for e in events(sweep.scene.folder) if e["pid"] == pid and e["event"] == "began"]
    trial = [e["trial"] for e in begun if e["time"] <= at][-1]
    return Hit(victim=f"{words} {trial}, process {pid}", trials=(trial,), at=at)


@contextlib.contextmanager
def _planned_strike(sweep: Sweep, place: str, action: str) -> Iterator[None]:
    """Within the block it may be met; the evidence of earlier times is gone."""
    strikes = sweep.scene.folder / "strikes"
    (strikes / f"{place}.reached").unlink(missing_ok=True)
    sweep.scene.plan_strike(place, action)
    try:
        yield
    finally:
        (strikes / place).unlink(missing_ok=True)


# -- words -------------------------------------------------------------------------------------------------------------


def stage_of(sweep: Sweep, trial: str) -> str:
    """Where a trial stands."""
    try:
        told = json.loads((sweep.scene.folder / "results" / NAME / "progress" / f"{trial}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return "at its start"
    return f"{told['stage']} {told['done']}/{told['total']}"


def _trials(at_work: Iterable[AtWork]) -> tuple[str, ...]:
    return tuple(sorted({one.trial for one in at_work}))


KINDS: dict[str, Strike] = {
    "worker": killed("trial"),
    "worker-notice": killed("trial", signal.SIGTERM),
    "worker-stop": stopped("trial"),
    "scorer": killed("score"),
    "scorer-stop": stopped("score"),
    "driver": driver_killed(signal.SIGKILL),
    "driver-notice": driver_killed(signal.SIGTERM),
    "driver-stop": driver_stopped,
    "node": node,
    "head": head,
    "bit-flip": bit_flip,
    "checkpoint": checkpoint,
    "full-disk": full_disk,
    "io-error": io_error,
    "garbage": garbage,
    "same-sweep": same_sweep,
    "same-store": same_store,
    "nan": not_a_number,
    "hang": hang,
}
