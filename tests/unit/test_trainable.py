"""A trial as a worker runs it: what it records, and what it does not believe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from timbre_ray.cluster import notice
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.trainable import LASTING_FAILURE, TrialContext, run_planned_trial, stages_of
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.store import DamagedArtifactError, Store
from timbre_ray.sweep import PlannedTrial
from timbre_ray.trial_progress import Evaluation

PLANNED = PlannedTrial(
    trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=TrialSpec(clips=ClipsSpec(path="flute")), key="k"
)


def write_weights(folder: Path) -> None:
    (folder / "weights").write_text("14")


def test_no_score_of_what_was_damaged_while_it_was_in_use_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    monkeypatch.setattr(notice.Notice, "_watch_node", lambda self, done: None)  # there is no Ray here

    def trial(spec: TrialSpec, *, store: Store, **others: Any) -> Iterator[Evaluation]:
        weights = store.get_or_compute("dreambooth", "k", write_weights, description={}).file("weights")
        yield Evaluation(step=0, num_clips=2, metrics={"fad_held_out": 2.0}, confidences={}, audio={}, losses=[])
        weights.write_text("41")
        yield Evaluation(step=25, num_clips=2, metrics={"fad_held_out": 1.0}, confidences={}, audio={}, losses=[])

    context = TrialContext(
        ledger_folder=tmp_path / "results", worker=Worker(store_root=tmp_path / "store", device="cpu", threads=1, patience_s=1.0),
        functions=Functions(trial=trial), scorers=ScorerPool([]), plan=lambda config: PLANNED,
    )  # fmt: skip
    with pytest.raises(DamagedArtifactError, match="weights is not what was published"):
        run_planned_trial({}, context=context)
    record = context.worker.ledger(context.ledger_folder).trial("a-flute-s0")
    assert record["status"] == "failed" and [evaluation["step"] for evaluation in record["evaluations"]] == [0]
    assert [report.get("step") for report in reports] == [0], "and it may be tried again"
    assert LASTING_FAILURE not in reports[-1]


def test_what_a_trial_computed_before_it_was_interrupted_is_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.attributed_to("first"):
        store.get_or_compute("teach", "shared", write_weights, description={})
    with store.attributed_to("second"):
        for stage, key in (("teach", "shared"), ("dreambooth", "own"), ("dreambooth", "own")):
            store.get_or_compute(stage, key, write_weights, description={})
    assert [(stage["key"], stage["reused"]) for stage in stages_of("second", store)] == [("shared", True), ("own", False)]
