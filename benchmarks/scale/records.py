"""Part ``records``: the ledger and the report over finished stub trials, written by the ledger's and the store's own code."""

from __future__ import annotations

import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import ENVIRONMENT, ROOT
from benchmarks.scale import sweeps
from benchmarks.scale.browser import opening_seconds
from benchmarks.scale.stub import PROMPTS, losses_until, scores_of
from timbre_ray.clip_sets import recording_digests
from timbre_ray.cluster.trainable import planned_record
from timbre_ray.ledger import Ledger
from timbre_ray.stage_keys import StageKeys
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial, Sweep, load_sweep

#: The command line; then the largest memory that the process held, by the kernel's own mark (``getrusage`` counts its parent's).
SCRIPT = """
from timbre_ray.cli import main
try:
    main()
finally:
    import sys
    print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1], file=sys.stderr)
"""


def measure(num_trials: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = load_sweep(sweeps.write(folder, num_trials))
        ledger, store = Ledger(folder / "results" / sweep.name), Store(folder / "store")
        records = [record_of(trial) for trial in sweep.trials]
        found: dict[str, Any] = {"trials": num_trials, "write_s": _seconds(lambda: _write(sweep, ledger, records))}
        publish_scores(sweep, store)
        found["read_s"] = _seconds(ledger.trials)
        found["difference_s"] = _seconds(lambda: ledger.difference(sweep.trials))
        found["ledger_mib"] = sum(path.stat().st_size for path in ledger.folder.rglob("*.json")) / 2**20
        places = ["--results", str(folder / "results")]
        found["status"] = command("status", sweep.name, *places)
        report = ["--out", str(folder / "report"), "--storage", str(folder / "store")]
        found["report"] = command("report", sweep.name, *places, *report)
        page = folder / "report" / "index.html"
        found["page_mib"], found["opens_s"] = page.stat().st_size / 2**20, opening_seconds(page)
        found["plan"] = command("plan", str(sweep.path))
    return found


def record_of(trial: PlannedTrial) -> dict[str, Any]:
    """What a finished trial leaves in the ledger."""
    keys = StageKeys(trial.spec, recording_digests(trial.spec.clips))
    last, clips, stages = trial.spec.evaluate.at_steps[-1], trial.spec.evaluate.num_clips, keys.all()
    evaluations = [
        {
            "step": step, "num_clips": clips, "metrics": scores_of(f"{trial.key}{step}"), "confidences": {},
            "audio": {name: keys.generate(step, prompt, clips).key for name, prompt in keys.scored_prompts().items()},
        }
        for step in trial.spec.evaluate.at_steps
    ]  # fmt: skip
    return {
        **planned_record(trial), "status": "finished", "error": None, "evaluations": evaluations, "losses": losses_until(last),
        "stages": [{"stage": s.name, "key": s.key, "seconds": 1.0, "reused": False} for s in stages],
        "started": 0.0, "finished": 60.0, "wall_s": 60.0,
    }  # fmt: skip


def _write(sweep: Sweep, ledger: Ledger, records: list[dict[str, Any]]) -> None:
    planned = [trial.trial_id for trial in sweep.trials]
    about = {"name": sweep.name, "question": sweep.question, "arms": list(sweep.arms), "text": sweep.text}
    ledger.write_sweep({**about, "planned": planned})
    for record in records:
        ledger.write_trial(record)


def publish_scores(sweep: Sweep, store: Store) -> None:
    """Of each trial's last step, with what a report reads of them: the kernel distance's interval, each clip's own distance."""
    for trial in sweep.trials:
        keys, evaluate = StageKeys(trial.spec, recording_digests(trial.spec.clips)), trial.spec.evaluate
        step = evaluate.at_steps[-1]
        audio = {name: keys.generate(step, prompt, evaluate.num_clips).key for name, prompt in keys.scored_prompts().items()}
        assert set(audio) == set(PROMPTS)
        stage, metrics = keys.request(audio).stage(), scores_of(f"{trial.key}{step}")
        kad = metrics["kad_held_out"]
        scores = {
            "metrics": metrics, "intervals": {"kad_held_out": [kad - 1, kad + 1]},
            "outliers": [{"clip": clip, "fad_held_out": metrics["fad_held_out"] + clip} for clip in range(evaluate.num_clips)],
        }  # fmt: skip
        description = {**stage.description(), "classifier": evaluate.classifier}
        store.get_or_compute("score", stage.key, functools.partial(_write_scores, scores), description=description)


def _write_scores(scores: dict[str, Any], folder: Path) -> None:
    (folder / "scores.json").write_text(json.dumps(scores))


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def command(*words: str) -> dict[str, float]:
    """``timbre-ray WORDS`` as a process: wall and CPU seconds, and the largest memory it held."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = [sys.executable, "-c", SCRIPT, *words]
    result = subprocess.run(process, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    spent, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise RuntimeError(f"timbre-ray {' '.join(words)} ended with {result.returncode}: {result.stderr[-1000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": spent, "cpu_s": cpu_s, "peak_mib": int(result.stderr.split()[-1]) / 1024}
