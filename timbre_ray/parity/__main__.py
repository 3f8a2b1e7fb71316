"""Prints ours against the reference: ``python -m timbre_ray.parity [--backbone NAME]``. Exit code 1 if a check fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.parity.checks import CHECKS, Check
from timbre_ray.specs import BackboneSpec


def print_table(checks: Sequence[Check], backbone: Backbone, console: Console) -> bool:
    """-> whether all checks passed."""
    table = Table("ours", "reference", "deviation", "tolerance", "result")
    passed = []
    for check in checks:
        deviation = check.deviation(backbone)
        passed.append(check.passes(deviation))
        kind = "relative" if check.relative else "absolute"
        result = "pass" if passed[-1] else "FAIL"
        table.add_row(check.name, check.reference, f"{deviation:.1e}", f"{check.tolerance:g} {kind}", result)
    console.print(table)
    return all(passed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m timbre_ray.parity", description=__doc__)
    parser.add_argument("--backbone", default="mini", help="mini, a folder, or a hub id such as cvssp/audioldm2")
    options = parser.parse_args()
    backbone = load_backbone(BackboneSpec(name=options.backbone))
    sys.exit(0 if print_table(CHECKS, backbone, Console(width=120)) else 1)


if __name__ == "__main__":
    main()
