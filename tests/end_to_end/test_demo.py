"""The shipped demo, whole (`make test-slow`: about ten minutes on two cores)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from timbre_ray.ledger import Ledger

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_teaches_the_flute(tmp_path: Path) -> None:
    shutil.copy(ROOT / "sweeps" / "demo.yaml", tmp_path)
    command = [Path(sys.executable).parent / "timbre-ray", "run", "demo.yaml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    ledger = Ledger(tmp_path / "results" / "demo")
    trials = {t["arm"]: t["evaluations"] for t in ledger.trials()}
    assert len(trials) == 6
    floor = ledger.baselines()["chinese_flute_v1"]["metrics"]["fad_held_out"]
    for arm, evaluations in trials.items():
        first, last = evaluations[0]["metrics"], evaluations[-1]["metrics"]
        assert floor < last["fad_held_out"] < first["fad_held_out"], arm
        assert last["solo_target_confidence"] > first["solo_target_confidence"], arm
    untouched = trials["large-gpt2"][0]["metrics"]
    assert untouched["partner_rank"] == 1 and untouched["partner_confidence"] > 0.8, "the miniature plays a piano"
    # The same untouched model stands at step 0 of every arm without teacher forcing.
    assert trials["large-gpt2-prior"][0]["audio"] == trials["large-gpt2"][0]["audio"]
