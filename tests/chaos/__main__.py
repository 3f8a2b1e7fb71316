"""``python -m tests.chaos --seed 0 --faults 100``: faults at random against running sweeps; exit code 1 unless all survive."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import deque
from pathlib import Path

from tests.chaos import report
from tests.chaos.play import Arena, Struck, Verdict
from tests.chaos.schedule import Planned, schedule
from tests.chaos.stage import MARK, Ground, strays, until
from tests.chaos.trials import MINIATURE_TRIALS, STUB_TRIALS

#: Sweeps in a row in which the next fault found nobody to strike.
MAX_IDLE = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--stubs", type=int, default=0, help="how many of them, the last, strike stub trials")
    parser.add_argument("--out", type=Path, default=Path("reports/chaos"))
    chosen = parser.parse_args()
    parts = {MINIATURE_TRIALS.name: chosen.faults - chosen.stubs, STUB_TRIALS.name: chosen.stubs}
    stubs = f" --stubs {chosen.stubs}" if chosen.stubs else ""
    command = f"python -m tests.chaos --seed {chosen.seed} --faults {chosen.faults}{stubs}"
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, signal.default_int_handler)  # ends with a report, also where a shell's background ignores SIGINT
    run = chaos(chosen.seed, parts, command=command)
    report.write(run, chosen.out)
    return 0 if run.survived else 1


def chaos(seed: int, parts: dict[str, int], *, command: str) -> report.Run:
    """parts: name of the trials -> number of faults."""
    os.environ[MARK] = mark = uuid.uuid4().hex
    began, begun = time.monotonic(), datetime.datetime.now(datetime.UTC)
    struck: list[Struck] = []
    verdicts: list[Verdict] = []
    broke_off = None
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        try:
            with Ground() as ground:
                for trials in (MINIATURE_TRIALS, STUB_TRIALS):
                    drawn = schedule(f"{seed} {trials.name}", trials.weights, parts.get(trials.name, 0), first=len(struck) + 1)
                    pending = deque(drawn)
                    _until_used_up(pending, Arena(Path(folder) / trials.name, trials, ground), struck, verdicts)
        except (Exception, KeyboardInterrupt) as error:  # the report says how far it came
            traceback.print_exc()
            broke_off = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    return report.Run(
        command=command, begun=f"{begun:%Y-%m-%d %H:%M}", seconds=time.monotonic() - began, machine=_machine(),
        num_planned=sum(parts.values()), struck=tuple(struck), sweeps=tuple(verdicts), strays=_strays(mark), broke_off=broke_off,
    )  # fmt: skip


def _until_used_up(pending: deque[Planned], arena: Arena, struck: list[Struck], verdicts: list[Verdict]) -> None:
    idle = 0
    while pending:
        verdict, found = arena.play(len(verdicts), pending)
        verdicts.append(verdict)
        struck += found
        print(f"     sweep {verdict.sweep}: {'survived' if verdict.survived else verdict}", flush=True)
        idle = 0 if found else idle + 1
        if idle == MAX_IDLE:
            raise RuntimeError(f"{pending[0].kind}: found nobody to strike in {MAX_IDLE} sweeps")


def _strays(mark: str) -> tuple[str, ...]:
    until(lambda: not strays(mark), timeout_s=60)
    return tuple(strays(mark))


def _machine() -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in ("ray", "torch")}
    return {"cores": os.cpu_count(), "Python": platform.python_version(), **versions}


if __name__ == "__main__":
    sys.exit(main())
