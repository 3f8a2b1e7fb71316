"""What a run of the chaos runner leaves: faults.json with every fault and every sweep, README.md with the sums."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from tests.chaos.play import Struck, Verdict

WORDS = {
    "worker": "`kill -9` of a trial's process",
    "worker-notice": "SIGTERM to a trial's process",
    "worker-stop": "SIGSTOP to a trial's process for some seconds",
    "scorer": "`kill -9` of an evaluation actor at work",
    "scorer-stop": "SIGSTOP to an evaluation actor for some seconds",
    "driver": "`kill -9` of the driver; the command again",
    "driver-notice": "SIGTERM to the driver; the command again",
    "driver-stop": "SIGSTOP to the driver for some seconds",
    "node": "`kill -9` of a node's raylet; another node joins",
    "head": "`kill -9` of GCS, the head's raylet and the driver; a new cluster, the command again",
    "bit-flip": "one bit of a published artifact flips",
    "checkpoint": "`kill -9` of a trial's process, and its checkpoint is cut off",
    "full-disk": "no space left under the store for some seconds",
    "io-error": "EIO at every write of an artifact for some seconds",
    "garbage": "a half-written folder of a writer that died",
    "same-sweep": "the same command a second time",
    "same-store": "another sweep with the same stages on the store, killed after some seconds",
    "nan": "one score that is no number",
    "hang": "a trial stands still (`run.hang_timeout_s`)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    command: str
    begun: str
    """UTC."""
    seconds: float
    machine: dict[str, Any]
    num_planned: int
    struck: tuple[Struck, ...]
    sweeps: tuple[Verdict, ...]
    strays: tuple[str, ...]
    """Processes that outlived the clusters."""
    broke_off: str | None
    """Why the run came to no end."""

    @property
    def survived(self) -> bool:
        whole = self.broke_off is None and len(self.struck) == self.num_planned
        return whole and not self.strays and all(verdict.survived for verdict in self.sweeps)


def write(run: Run, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    record = {"survived": run.survived, **dataclasses.asdict(run)}
    record["sweeps"] = [{"survived": verdict.survived, **dataclasses.asdict(verdict)} for verdict in run.sweeps]
    (out / "faults.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_page(run), encoding="utf-8")


PAGE = """# {num_planned} faults at random

`{command}` struck {num_struck} of {num_planned} faults, of {num_kinds} kinds, at running sweeps: {shares}.
{num_good} of {num_sweeps} sweeps ended in the ledger and the tables of an undisturbed run of theirs, to the last digit,
with every artifact in the store, none computed twice but what a fault had damaged, and no process left.
{broke_off}
Begun {begun} UTC; {minutes:.0f} minutes, the undisturbed runs included ({machine}). Which fault comes when,
and which of those at work it strikes, is drawn from the seed; who is at work by then depends on the machine. Each fault with its
victim: [faults.json](faults.json). Processes that outlived the clusters: {strays}.

| fault | what is struck | times | trials ended by it | begun again | median seconds until then | artifacts computed anew |
|---|---|---|---|---|---|---|
{kinds}

A stop of some seconds ends no trial. A flipped bit ends one only where it is met: after the artifact's last use by none.

| sweep | trials | seeds | faults | commands | seconds | tables equal | damaged at the end: mended, removed | wrong | survived |
|---|---|---|---|---|---|---|---|---|---|
{sweeps}

An artifact that is damaged after its last use is found by `store verify`: the same trials in a second sweep on the store compute
it anew (mended), and what they do not ask for is removed, as `store verify` says.
"""


def _page(run: Run) -> str:
    kinds = [kind for kind in WORDS if any(one.planned.kind == kind for one in run.struck)]
    return PAGE.format(
        command=run.command, num_planned=run.num_planned, num_struck=len(run.struck), num_kinds=len(kinds), shares=_shares(run),
        num_good=sum(verdict.survived for verdict in run.sweeps), num_sweeps=len(run.sweeps),
        broke_off=f"\n**The run broke off:** {run.broke_off}\n" if run.broke_off else "",
        begun=run.begun, minutes=run.seconds / 60, machine=", ".join(f"{name} {value}" for name, value in run.machine.items()),
        strays=", ".join(run.strays) or "none", kinds="\n".join(_kind(kind, run.struck) for kind in kinds),
        sweeps="\n".join(map(_sweep, run.sweeps)),
    )  # fmt: skip


def _shares(run: Run) -> str:
    by_trials = {verdict.sweep: verdict.trials for verdict in run.sweeps}
    names = list(dict.fromkeys(by_trials.values()))
    counts = {name: sum(by_trials[one.sweep] == name for one in run.struck) for name in names}
    words = {"miniature": "trials of the miniature, with real training and scoring", "stubs": "stub trials that need no torch"}
    return ", ".join(f"{counts[name]} at {words[name]}" for name in names)


def _kind(kind: str, struck: tuple[Struck, ...]) -> str:
    own = [one for one in struck if one.planned.kind == kind]
    ended = [seconds for one in own for seconds in one.begun_again_s.values()]
    again = [seconds for seconds in ended if seconds is not None]
    median = f"{statistics.median(again):.0f}" if again else ""
    cells = (kind, WORDS[kind], len(own), len(ended), len(again), median, sum(one.computed_again for one in own))
    return f"| {' | '.join(map(str, cells))} |"


def _sweep(verdict: Verdict) -> str:
    wrong = [*verdict.missing, *verdict.repeated, *verdict.bad, *verdict.strays]
    cells = (
        verdict.sweep, f"{verdict.num_trials} {verdict.trials}", f"{verdict.seeds[0]}, {verdict.seeds[1]}", verdict.num_faults,
        verdict.num_commands, f"{verdict.seconds:.0f}", "yes" if verdict.equal else "**no**",
        f"{len(verdict.mended)}, {len(verdict.removed)}", ", ".join(wrong) or "nothing", "yes" if verdict.survived else "**no**",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"
