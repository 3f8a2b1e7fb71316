"""A driver as a process of its own: ``python -m tests.chaos.drive TRIALS plain|struck|twin ADDRESS SWEEP...``."""

from __future__ import annotations

import sys

from tests.chaos.seams import Seams, struck
from tests.chaos.trials import TRIALS
from tests.survival.drive import drive


def main(name: str, how: str, *words: str) -> int:
    trials = TRIALS[name]
    seams = Seams(pace_s=trials.pace_s, twin=how == "twin")
    return drive(trials.plain if how == "plain" else struck(trials.struck, seams), *words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
