"""``python -m benchmarks --out reports/speed [ROW ...]``: measures the rows, each in a process of its own, and writes the table.

A row that fails says so in the table and the others go on; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks import rows, table
from benchmarks.measure import ENVIRONMENT, ROOT

#: A row that takes longer is stopped and counted as failed.
LIMIT_S = 900


def cpu_name() -> str:
    """As Linux names it; what Python knows elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def measured(name: str, repeats: int) -> dict[str, Any]:
    """One row, here, as JSON data."""
    row = rows.load(name)
    if row.measure is None:
        return {"title": row.title, "setup": row.setup, "status": "not measured", "figures": []}
    try:
        figures = [{**dataclasses.asdict(f), "median": f.median, "met": f.met} for f in row.measure(repeats)]
    except Exception as error:
        why = {"reason": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        return {"title": row.title, "setup": row.setup, "status": "failed", "figures": [], **why}
    return {"title": row.title, "setup": row.setup, "status": "measured", "figures": figures}


def run_row(name: str, repeats: int) -> dict[str, Any]:
    """One row in a process of its own, whatever happens to it."""
    command = [sys.executable, "-m", "benchmarks", "--here", "--repeats", str(repeats), name]
    failed = {"title": name, "setup": "", "status": "failed", "figures": []}
    try:
        result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {**failed, "reason": f"longer than {LIMIT_S} s"}
    if result.returncode:
        return {**failed, "reason": f"ended with {result.returncode}", "traceback": result.stderr}
    return json.loads(result.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows.MODULES)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("reports/speed"))
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of either side")
    parser.add_argument("--here", action="store_true", help="one row in this process, as a line of JSON")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows.MODULES):
        parser.error(f"rows {sorted(unknown)}: must be of {', '.join(rows.MODULES)}")
    if options.here:
        print(json.dumps(measured(options.rows[0], options.repeats)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name in options.rows or rows.MODULES:
        found = run_row(name, options.repeats)
        failures += found["status"] == "failed"
        about = {
            "row": name, "position": list(rows.MODULES).index(name), "machine": cpu_name(), "threads": 1,
            "command": f"python -m benchmarks --repeats {options.repeats} {name}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }  # fmt: skip
        (options.out / f"{name}.json").write_text(json.dumps({**about, **found}, indent=1) + "\n")
        print(f"{name}: {found['status']}", flush=True)
    print(table.write(options.out))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
