"""The real-versus-real floor of each target, computed beside the trials."""

from __future__ import annotations

from collections.abc import Iterable

import ray

from timbre_ray.clip_sets import find_files
from timbre_ray.cluster.failures import describe
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.resources import Resources, as_ray_options
from timbre_ray.identity import VERSIONS, backbone_digest, judges_digest
from timbre_ray.ledger import Ledger
from timbre_ray.specs import TrialSpec, as_dict, digest
from timbre_ray.sweep import PlannedTrial


def missing_baselines(trials: Iterable[PlannedTrial], ledger: Ledger) -> dict[str, TrialSpec]:
    """Target -> spec of every baseline that the ledger does not hold yet, or holds for other clips or another evaluation."""
    known = {target: record.get("key") for target, record in ledger.baselines().items()}
    wanted: dict[str, TrialSpec] = {}
    for trial in trials:
        wanted.setdefault(trial.target, trial.spec)
    return {target: spec for target, spec in wanted.items() if known.get(target) != baseline_key(spec)}


def baseline_key(spec: TrialSpec) -> str:
    """Real clips are encoded, decoded and scored; nothing is trained, so nothing else of the spec matters."""
    evaluate = as_dict(spec.evaluate)
    judges = judges_digest(evaluate.pop("classifier"), evaluate.pop("vggish"))
    judged = [backbone_digest(spec.backbone), judges, VERSIONS["score"]]
    return digest({"clips": find_files(spec.clips).digests(), "models": judged, "evaluate": evaluate})


class BaselineTasks:
    """One Ray task a target, with the resources of a trial."""

    def __init__(
        self, specs: dict[str, TrialSpec], *, ledger: Ledger, worker: Worker, functions: Functions, resources: Resources
    ) -> None:
        task = ray.remote(_compute).options(max_retries=1, **as_ray_options(resources))
        self._refs = {
            target: task.remote(spec, target=target, ledger=ledger, worker=worker, functions=functions)
            for target, spec in specs.items()
        }

    def wait(self) -> dict[str, dict[str, str]]:
        """Waits for all; target -> error of those that failed."""
        errors: dict[str, dict[str, str]] = {}
        for target, ref in self._refs.items():
            try:
                ray.get(ref)
            except ray.exceptions.RayError as error:
                errors[target] = describe(error, stage="baseline")
        return errors


def _compute(spec: TrialSpec, *, target: str, ledger: Ledger, worker: Worker, functions: Functions) -> None:
    """Writes the record itself, as trials do: a report in the middle of the run has its floor."""
    store = worker.store()
    with store.attributed_to(f"baseline-{target}"):
        record = functions.baseline(spec, worker=worker, store=store)
        store.confirm()
    ledger.write_baseline(target, {**record, "target": target, "key": baseline_key(spec)})
