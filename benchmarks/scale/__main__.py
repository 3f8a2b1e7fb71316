"""``python -m benchmarks.scale --out reports/scale [PART ...]``: measures the parts, writes their JSON, figures and README.md.

``plan`` and ``records`` take minutes; ``tune`` goes through a real Ray Tune run for each number of trials, an hour or so in all;
``spot`` is a simulation. A part that is not asked for keeps the JSON that lies in the folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.__main__ import cpu_name
from benchmarks.scale import page, planning, records, tuning
from benchmarks.spot.study import study

TRIALS = (100, 1_000, 10_000)
#: A run of Tune that is longer is ended; the page says how far it came.
LIMIT_S = 1_500.0


def _runs(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """File's name -> what measures its content."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for num in options.trials:
        found[f"plan-{num}"] = lambda num=num: planning.measure(num)
        found[f"records-{num}"] = lambda num=num: records.measure(num)
        found[f"tune-{num}"] = lambda num=num: tuning.measure(num, options.limit_s)
    return {**found, "spot": study}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(page.PARTS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("reports/scale"))
    parser.add_argument("--trials", type=int, nargs="+", default=TRIALS, help="how many trials; default: 100 1000 10000")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds after which a run of Tune is ended")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(page.PARTS):
        parser.error(f"parts {sorted(unknown)}: must be of {', '.join(page.PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, measure in _runs(options).items():
        if options.parts and name.partition("-")[0] not in options.parts:
            continue
        about = {"machine": cpu_name(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
        before, found = os.getloadavg()[0], measure()
        loads = {"loads": [round(before, 1), round(os.getloadavg()[0], 1)]}
        (options.out / f"{name}.json").write_text(json.dumps({**found, **about, **loads}) + "\n", encoding="utf-8")
        print(f"{name}: done", flush=True)
    print(page.write(options.out))


if __name__ == "__main__":
    main()
