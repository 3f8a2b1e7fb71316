"""Sweep after sweep under fire, until the faults are used up; each is held against an undisturbed run of its own."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.faults import KINDS, Hit
from tests.chaos.schedule import Planned
from tests.chaos.seams import events, is_alive
from tests.chaos.stage import DISK_BYTES, NAME, SWEEP_PATIENCE_S, Ground, NotNowError, Sweep, until
from tests.chaos.trials import Trials
from tests.integration.stub_sweeps import write_clips
from tests.survival.scene import PATIENCE_S, Scene, mounted_disk, unmount
from timbre_ray import store_care
from timbre_ray.store import Store

#: Pairs of trial seeds, which the sweeps take in turn.
NUM_SEED_PAIRS = 2
MAX_FAILURES = 5
#: A sweep ends when its command has been given so often more than there were faults.
SPARE_COMMANDS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Struck:
    """A fault that was struck."""

    planned: Planned
    sweep: int
    hit: Hit
    begun_again_s: dict[str, float | None]
    """Trial that it ended -> seconds until it began again; None where it did not."""
    computed_again: int
    """How often the artifact that it damaged was computed anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a sweep under fire ended."""

    sweep: int
    trials: str
    seeds: tuple[int, int]
    num_trials: int
    num_faults: int
    num_commands: int
    """How often the command was given."""
    seconds: float
    equal: bool
    """Ledger, baselines and tables are those of the undisturbed run, to the last digit."""
    missing: tuple[str, ...]
    """Artifacts that the undisturbed run published and this one did not."""
    repeated: tuple[str, ...]
    """Artifacts computed more often than faults damaged them, plus one."""
    mended: tuple[str, ...]
    """Damaged after their last use; computed anew by the same trials in another sweep on the store."""
    removed: tuple[str, ...]
    """Damaged, and asked for by nothing any more: removed, as ``store verify`` says."""
    bad: tuple[str, ...]
    """What ``store verify`` still says at the end."""
    strays: tuple[str, ...]
    """Processes of trials and scores that outlived the sweep."""
    reasons: tuple[str, ...]
    """Printed by the drivers that ended with trials failed."""

    @property
    def survived(self) -> bool:
        return self.equal and not (self.missing or self.repeated or self.bad or self.strays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    state: dict[str, Any]
    keys: frozenset[str]


class Arena:
    """Where the sweeps of one kind of trials are played."""

    def __init__(self, folder: Path, trials: Trials, ground: Ground) -> None:
        self._folder, self._trials, self._ground = folder, trials, ground
        self._expected: dict[tuple[int, int], Expected] = {}
        self._clips = write_clips(folder / "flute")

    def play(self, number: int, pending: deque[Planned]) -> tuple[Verdict, list[Struck]]:
        """Strikes from ``pending`` what it can, and lets the sweep come to its end."""
        first = 2 * (number % NUM_SEED_PAIRS)
        seeds = (first, first + 1)
        expected = self._expected_of(seeds)
        sweep = self._sweep(f"sweep-{number}", "struck", seeds, expected.keys)
        mounted_disk(sweep.scene.store, DISK_BYTES)
        try:
            began = time.monotonic()
            hits = under_fire(sweep, pending, pause_s=self._trials.longest_pause_s)
            seconds = time.monotonic() - began
            verdict = self._verdict(number, seeds, sweep, expected, num_faults=len(hits), seconds=seconds)
            return verdict, [followed(number, planned, hit, sweep) for planned, hit in hits]
        finally:
            sweep.lose_driver()  # where the run breaks off
            unmount(sweep.scene.store)

    def _sweep(self, folder: str, how: str, seeds: tuple[int, int], keys: frozenset[str] = frozenset()) -> Sweep:
        (self._folder / folder).mkdir()
        drive = ("tests.chaos.drive", self._trials.name, how)
        scene = Scene(
            folder=self._folder / folder, clips=self._clips, cluster=self._ground.cluster, drive=drive,
            patience_s=SWEEP_PATIENCE_S,
        )  # fmt: skip
        body = {**self._trials.sweep(self._clips), "grid": {"seed": list(seeds)}}
        run = {"max_failures": MAX_FAILURES, "max_concurrent": 2, "hang_timeout_s": self._trials.hang_timeout_s}
        return Sweep(ground=self._ground, scene=scene, path=scene.put(NAME, body, **run), run=run, body=body, keys=keys)

    def _expected_of(self, seeds: tuple[int, int]) -> Expected:
        if seeds not in self._expected:
            calm = self._sweep(f"undisturbed-{seeds[0]}", "plain", seeds)
            calm.scene.finish(calm.command())
            assert set(calm.scene.computed().values()) == {1}
            self._expected[seeds] = Expected(state=calm.scene.state(NAME), keys=frozenset(calm.published()))
        return self._expected[seeds]

    def _verdict(self, number: int, seeds: tuple[int, int], sweep: Sweep, expected: Expected, **counted: Any) -> Verdict:
        scene, allowed = sweep.scene, Counter(sweep.flipped)
        equal, missing = scene.state(NAME) == expected.state, sorted(expected.keys - sweep.published())
        repeated = sorted(key for key, times in scene.computed().items() if times > 1 + allowed[key])
        strays = still_alive(sweep)
        left = damaged(sweep)
        again = self._second_look(sweep, expected) if left else True
        unasked = damaged(sweep) & left
        for key in unasked:
            shutil.rmtree(scene.store / "artifacts" / key)
        bad = damaged(sweep) | (left - allowed.keys())
        return Verdict(
            sweep=number, trials=self._trials.name, seeds=seeds, num_trials=len(expected.state["trials"]),
            num_commands=sweep.commands, equal=equal and again, missing=tuple(missing), repeated=tuple(repeated),
            mended=tuple(sorted(left - unasked)), removed=tuple(sorted(unasked)), bad=tuple(sorted(bad)), strays=strays,
            reasons=tuple(line for printed in sweep.printed for line in printed.splitlines() if " in " in line), **counted,
        )  # fmt: skip

    def _second_look(self, sweep: Sweep, expected: Expected) -> bool:
        """The same trials in a sweep of another name, from the same store: whether they end the same."""
        path = sweep.scene.put("again", sweep.body, **sweep.run)
        plain = dataclasses.replace(sweep.scene, drive=(*sweep.scene.drive[:-1], "plain"))
        plain.finish(plain.start(path, cluster=self._ground.cluster))
        return plain.state("again") == expected.state


def under_fire(sweep: Sweep, pending: deque[Planned], *, pause_s: float) -> list[tuple[Planned, Hit]]:
    """Until the command ends well. What found nobody to strike stays in ``pending``."""
    hits: list[tuple[Planned, Hit]] = []
    sweep.go()
    quiet_since = time.monotonic()
    while (code := sweep.ended()) != 0:
        if code is not None:
            if sweep.commands > len(hits) + SPARE_COMMANDS:
                raise AssertionError(f"the sweep comes to no end; its last driver said:\n{sweep.printed[-1]}")
            sweep.go()
        elif pending and time.monotonic() - quiet_since >= pending[0].moment * pause_s:
            try:
                hit = KINDS[pending[0].kind](sweep, pending[0])
            except (NotNowError, psutil.NoSuchProcess):
                continue
            print(f"{pending[0].number:4} {pending[0].kind:14} {hit.victim}", flush=True)
            hits.append((pending.popleft(), hit))
            quiet_since = time.monotonic()
        else:
            time.sleep(0.05)
    return hits


def followed(number: int, planned: Planned, hit: Hit, sweep: Sweep) -> Struck:
    """What came after a hit."""
    begun = [(e["trial"], e["time"]) for e in events(sweep.scene.folder) if (e["event"], e["role"]) == ("began", "trial")]
    again = {trial: _first(at - hit.at for other, at in begun if other == trial and at > hit.at) for trial in hit.trials}
    computed = [e for e in Store(sweep.scene.store).log() if e["event"] == "computed" and e["time"] > hit.at]
    times = sum(f"{e['stage']}/{e['key']}" == hit.artifact for e in computed)
    return Struck(planned=planned, sweep=number, hit=hit, begun_again_s=again, computed_again=times)


def _first(seconds: Iterable[float]) -> float | None:
    return next((round(one, 1) for one in sorted(seconds)), None)


def still_alive(sweep: Sweep) -> tuple[str, ...]:
    """Processes of trials and scores, once Ray has had time to end them."""

    def left() -> list[str]:
        began = [e for e in events(sweep.scene.folder) if e["event"] == "began"]
        return sorted({f"{e['pid']} ({e['role']} of {e['trial']})" for e in began if is_alive(e["pid"], e["time"])})

    until(lambda: not left(), timeout_s=PATIENCE_S)
    return tuple(left())


def damaged(sweep: Sweep) -> set[str]:
    return {f"{one.stage}/{one.key}" for one in store_care.verify(sweep.scene.store) if one.problems}
