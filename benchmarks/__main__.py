"""``python -m benchmarks --out reports/speed [ROW ...]``: measures the rows, each in a process of its own, and writes the table.

A row that fails says so in the table and the others go on; the exit code is then 1. Rows that need a GPU keep what was measured
where there was one.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import rows, table
from benchmarks.measure import ENVIRONMENT, ROOT

NOT_MEASURED = "not measured: no GPU at hand"


def cpu_name() -> str:
    """As Linux names it; what Python knows elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def gpu_name() -> str | None:
    import torch  # a parent of many rows needs it for this alone

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measured(name: str, repeats: int) -> dict[str, Any]:
    """One row, here, as JSON data."""
    row = rows.load(name)
    if row.needs_gpu and gpu_name() is None:
        return {"title": row.title, "setup": row.setup, "status": NOT_MEASURED, "figures": []}
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
        limit_s = rows.load(name).limit_s
    except Exception as error:
        return {**failed, "reason": f"{type(error).__name__}: {error}"}
    try:
        result = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {**failed, "reason": f"longer than {limit_s} s"}
    if result.returncode:
        return {**failed, "reason": f"ended with {result.returncode}", "traceback": result.stderr}
    return json.loads(result.stdout.strip().splitlines()[-1])


def record(path: Path, name: str, repeats: int, found: dict[str, Any]) -> bool:
    """Writes a row's JSON; not over what a GPU measured, where there is none now."""
    if found["status"] == NOT_MEASURED and path.is_file():
        return False
    gpu = f"{gpu_name()}; " if rows.load(name).needs_gpu and gpu_name() else ""
    about = {
        "row": name, "machine": gpu + cpu_name(),
        "command": f"python -m benchmarks --repeats {repeats} {name}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip
    path.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows.MODULES)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("reports/speed"))
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of either side")
    parser.add_argument("--here", action="store_true", help="one row in this process, as a line of JSON")
    parser.add_argument("--in-process", action="store_true", help="all rows in this process: models are loaded once")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(rows.MODULES):
        parser.error(f"rows {sorted(unknown)}: must be of {', '.join(rows.MODULES)}")
    if options.here:
        print(json.dumps(measured(options.rows[0], options.repeats)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name in options.rows or rows.MODULES:
        start = time.monotonic()
        found = (measured if options.in_process else run_row)(name, options.repeats)
        failures += found["status"] == "failed"
        if not record(options.out / f"{name}.json", name, options.repeats, found):
            continue
        print(f"{name}: {found['status']} in {time.monotonic() - start:.0f} s", flush=True)
    print(table.write(options.out))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
