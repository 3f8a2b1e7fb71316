"""``python -m tests.survival --out DIR``: plays the faults and writes the survival table; exit code 1 if one was not survived."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.survival.faults import Fault, table
from tests.survival.play import Ending, Undisturbed, play, run_undisturbed
from tests.survival.scene import cluster_of

HEADER = "| fault | what is struck, and when | stages computed twice | trials begun again | ledger and tables equal | seconds |"


def main() -> int:
    faults = table()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/survival"))
    parser.add_argument("--only", nargs="*", choices=faults, help="the faults to play (default: all)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster_of() as cluster:
        undisturbed = run_undisturbed(Path(folder), cluster)
        lines, survived = zip(*(_line(faults[name], Path(folder), undisturbed) for name in arguments.only or faults), strict=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "README.md").write_text(_page(lines, sum(survived)), encoding="utf-8")
    return 0 if all(survived) else 1


def _line(fault: Fault, folder: Path, undisturbed: Undisturbed) -> tuple[str, bool]:
    started = time.monotonic()
    try:
        ending = play(fault, folder, undisturbed)
    except Exception:  # the other faults are played all the same, and the page says which one ended so
        traceback.print_exc()
        line, survived = f"| {fault.name} | {fault.struck} | | | **no end** | {time.monotonic() - started:.0f} |", False
    else:
        line, survived = _row(fault, ending, time.monotonic() - started), _as_promised(fault, ending)
    print(line, flush=True)
    return line, survived


def _row(fault: Fault, ending: Ending, seconds: float) -> str:
    repeated = ", ".join(f"`{stage}`" for stage in ending.repeated) or "none"
    equal = "yes" if ending.equal and not ending.missing else "**no**"
    return f"| {fault.name} | {fault.struck} | {repeated} | {ending.retries} | {equal} | {seconds:.0f} |"


def _as_promised(fault: Fault, ending: Ending) -> bool:
    counted = fault.retries is None or ending.retries == fault.retries
    return ending.equal and not ending.missing and ending.repeated == fault.repeated and counted


def _page(lines: tuple[str, ...], num_survived: int) -> str:
    return "\n".join(
        (
            "# What a sweep survives",
            "",
            f"{num_survived} of {len(lines)} faults ended as they should: in the ledger and the tables of an undisturbed run",
            "with the same seed, and with no stage repeated but those that the table of faults allows. Played on "
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} on one machine by `make survival`, with real Ray processes and",
            "trials that need no torch; the two faults of checkpoints at one that trains the miniature. "
            "Stages are counted in the store's log.",
            "",
            HEADER,
            "|---|---|---|---|---|---|",
            *lines,
            "",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
